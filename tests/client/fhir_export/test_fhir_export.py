"""A FHIR server's export into a folder, by the real command, over real TLS."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from healthfm_client.__main__ import main
from healthfm_client.fhir_export.export_state import ExportState
from healthfm_client.ingest import ingest, update_store
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from tests.client.fhir_export.conftest import Site, lines, observed, resource, three_people
from tests.client.fhir_export.fhir_server import TIME, Held, cut, forgets_tokens, says

NAMES = {
    "Patient.0001.ndjson": "Patient.ndjson",
    "Observation.0001.ndjson": "Observation-1.ndjson",
    "Observation.0002.ndjson": "Observation-2.ndjson",
    "MedicationRequest.0001.ndjson": "MedicationRequest.ndjson",
    "Medication.0001.ndjson": "Medication.ndjson",
}


def is_whole(site: Site) -> bool:
    """Whether the folder has the server's files, all that they hold, and the state."""
    found = {file.name: file.read_bytes() for file in site.out.iterdir()}
    state = ExportState.read(site.out)
    found.pop("export.state")
    return (
        state is not None
        and state.phase == "whole"
        and found == {name: site.fhir.files[at] for name, at in NAMES.items()}
    )


def rows(store: Path) -> pa.Table:
    return SiteStore.open(store).events()


def test_what_is_downloaded_is_what_the_server_has_and_gives_the_same_store(site, capsys):
    assert main(["fhir-export", str(site.file), "--out", str(site.out)]) == 0
    said = capsys.readouterr().out
    assert "The server: 50 % done\nThe server: 100 % done\n" in said
    assert "13 resources in 5 files" in said
    assert is_whole(site)
    assert site.fhir.jobs == set(), "the job was given back"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in site.out.iterdir()}
    assert (stat.S_IMODE(site.out.stat().st_mode), modes) == (0o700, {0o600})

    same = site.folder / "same"
    same.mkdir()
    for name, content in site.fhir.files.items():
        (same / name).write_bytes(content)
    store = site.folder / "stores" / "exported"
    assert main(["ingest", "fhir", str(site.out), "--out", str(store)]) == 0
    (by_hand,) = ingest("fhir", same, site.folder / "stores" / "by_hand")
    assert rows(store).equals(rows(by_hand))
    assert "ATC//C07AB02" in rows(store)["code"].to_pylist()


def test_the_server_is_asked_for_a_groups_types_and_for_what_changed(site):
    site.settings["types"] = ["Patient", "Observation"]
    site.export(since="2026-11-01T00:00:00Z")
    (asked,) = [call for call in site.fhir.calls if call.path == "/fhir/Group/g-1/$export"]
    assert asked.query["_type"] == "Patient,Observation"
    assert asked.query["_since"] == "2026-11-01T00:00:00Z"
    assert site.fhir.scopes == ["system/Patient.rs system/Observation.rs"]
    assert {call.method for call in site.fhir.calls} == {"GET", "POST", "DELETE"}


def test_without_a_group_all_patients_are_asked_for_and_older_servers_by_older_scopes(site):
    del site.settings["group"]
    site.fhir.smart = {}
    site.export()
    assert site.fhir.count("GET", "/fhir/Patient/$export") == 1
    assert site.fhir.scopes[0].startswith("system/Patient.read system/Encounter.read ")


def test_a_busy_server_is_waited_for_as_it_asks(site):
    busy = says(429, Retry_After="7")
    site.fhir.faults["GET /fhir/Group/g-1/$export"] = [busy]
    site.fhir.faults["GET /jobs/1"] = [says(503, Retry_After="11")]
    site.fhir.faults["GET /files/Patient.ndjson"] = [says(429, Retry_After="13")]
    slept: list[float] = []
    site.export(slept=slept)
    assert is_whole(site)
    assert [wait for wait in slept if wait] == [7, 11, 13]


def test_what_takes_longer_than_the_time_given_can_be_gone_on_with(site):
    site.fhir.faults["GET /jobs/1"] = [says(202, Retry_After="5000")]
    with pytest.raises(IngestError, match=r"HF-331.*not done within 1 hours.*--resume"):
        site.export()
    assert site.fhir.jobs == {"/jobs/1"}
    site.export(resume=True)
    assert is_whole(site)
    assert len(site.fhir.used) == 2
    assert site.fhir.count("GET", "/fhir/Group/g-1/$export") == 1


def test_a_token_that_ends_in_the_middle_is_followed_by_another(site):
    site.fhir.faults["GET /files/Observation-2.ndjson"] = [forgets_tokens]
    site.export()
    assert is_whole(site)
    assert len(site.fhir.used) == 2
    tokens = [c.token for c in site.fhir.calls if c.path == "/files/Observation-2.ndjson"]
    assert len(set(tokens)) == 2


def test_a_token_is_renewed_before_its_end_is_near(site):
    site.fhir.faults["GET /jobs/1"] = [says(202, Retry_After="239"), says(202, Retry_After="2")]
    site.export()
    assert len(site.fhir.used) == 2


def test_a_token_that_is_never_taken_is_asked_for_twice_and_no_more(site):
    path = "/fhir/Group/g-1/$export"
    site.fhir.faults[f"GET {path}"] = [says(401)] * 5
    with pytest.raises(IngestError, match=r"HF-330.*HTTP 401"):
        site.export()
    assert (site.fhir.count("GET", path), len(site.fhir.used)) == (2, 2)


def test_a_connection_that_is_cut_in_the_middle_of_a_file_costs_that_file_alone(site):
    site.fhir.faults["GET /files/Observation-1.ndjson"] = [cut, cut]
    site.export()
    assert is_whole(site)
    asked = {name: site.fhir.count("GET", f"/files/{name}") for name in site.fhir.files}
    assert asked == dict.fromkeys(site.fhir.files, 1) | {"Observation-1.ndjson": 3}


def test_a_file_that_is_always_cut_off_is_refused_and_tried_again_on_resuming(site):
    site.fhir.faults["GET /files/Observation-1.ndjson"] = [cut] * 5
    with pytest.raises(IngestError, match=r"HF-333\]: Observation.0001.ndjson: the connection"):
        site.export()
    assert site.fhir.jobs == {"/jobs/1"}
    assert not (site.out / "Observation.0001.ndjson").exists()
    site.export(resume=True)
    assert is_whole(site)
    assert site.fhir.count("GET", "/files/Medication.ndjson") == 1


KILLED = {
    "token": "POST /token",
    "asked": "GET /fhir/Group/g-1/$export",
    "waiting": "GET /jobs/1",
    "first_file": "GET /files/Medication.ndjson",
    "last_file": "GET /files/Patient.ndjson",
    "giving_back": "DELETE /jobs/1",
}


@pytest.mark.parametrize("where", KILLED)
def test_a_command_that_is_killed_at_any_point_goes_on_with_resume(site, where):
    held = Held(half="file" in where)
    site.fhir.faults[KILLED[where]] = [held]
    words = ["fhir-export", str(site.file), "--out", str(site.out)]
    program = Path(sys.executable).with_name("healthfm-client")
    process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
    assert held.reached.wait(600)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    held.go_on.set()
    if where != "giving_back":
        empty = where in ("token", "asked")
        with pytest.raises(IngestError, match="HF-306" if empty else r"HF-334.*--resume"):
            ingest("fhir", site.out, site.folder / "store")
    assert main([*words, "--resume"]) == 0
    assert is_whole(site)
    files = [call.path for call in site.fhir.calls if call.path.startswith("/files/")]
    assert len(files) == len(NAMES) + ("file" in where), "what was here was not fetched again"
    asked = site.fhir.count("GET", "/fhir/Group/g-1/$export")
    assert asked == (2 if where == "asked" else 1)
    assert site.fhir.jobs == set()


def test_resuming_what_is_whole_asks_for_nothing(site):
    site.export()
    before, said = len(site.fhir.calls), []
    site.export(resume=True, said=said)
    assert (len(site.fhir.calls), said) == (before, ["export is whole already."])


def test_a_job_that_the_server_forgot_is_begun_anew_and_one_that_it_loses_again_is_refused(site):
    site.fhir.faults["GET /files/Patient.ndjson"] = [cut] * 5
    with pytest.raises(IngestError, match="HF-333"):
        site.export()
    site.fhir.jobs.clear()
    site.fhir.files["Observation-1.ndjson"] += lines(observed("o9", "p5", "2020-03-01", 99.0))
    site.export(resume=True)
    assert is_whole(site)
    site.out.rename(site.folder / "first")
    site.fhir.faults["GET /jobs/1"] = site.fhir.faults["GET /jobs/2"] = [says(404), says(404)]
    with pytest.raises(IngestError, match=r"HF-331.*lost the export"):
        site.export()


def test_a_list_of_other_files_than_before_has_them_downloaded_anew(site):
    site.fhir.faults["GET /files/Patient.ndjson"] = [cut] * 5
    with pytest.raises(IngestError, match="HF-333"):
        site.export()
    site.fhir.files["Observation-1.ndjson"] += lines(observed("o9", "p5", "2020-03-01", 99.0))
    said: list[str] = []
    site.export(resume=True, said=said)
    assert is_whole(site)
    assert "The server lists other files than before: they are downloaded anew." in said


def test_an_interrupted_export_can_be_cancelled(site, capsys):
    site.fhir.faults["GET /files/Patient.ndjson"] = [cut] * 5
    with pytest.raises(IngestError, match="HF-333"):
        site.export()
    assert main(["fhir-export", str(site.file), "--out", str(site.out), "--cancel"]) == 0
    assert (site.fhir.jobs, list(site.out.iterdir())) == (set(), [])
    site.export()
    assert main(["fhir-export", str(site.file), "--out", str(site.out), "--cancel"]) == 4
    assert is_whole(site)


def test_what_is_in_a_folder_is_never_mixed_with_an_export(site):
    site.out.mkdir()
    (site.out / "notes.txt").touch()
    for resume in (False, True):
        with pytest.raises(IngestError, match="HF-334"):
            site.export(resume=resume)
    assert site.fhir.calls == []
    (site.out / "notes.txt").unlink()
    site.export()
    with pytest.raises(IngestError, match="HF-334"):
        site.export()
    site.settings["group"] = "g-2"
    with pytest.raises(IngestError, match=r"HF-334.*another group"):
        site.export(resume=True)


def test_what_the_server_could_not_export_and_what_is_gone_is_counted_and_not_read(site):
    failed = {"resourceType": "OperationOutcome"}
    issue = {"severity": "error", "code": "exception", "diagnostics": "Patient/p5 is odd"}
    gone = {"resourceType": "Bundle", "type": "transaction"}
    entries = [{"request": {"method": "DELETE", "url": f"Observation/{n}"}} for n in (1, 2)]
    site.fhir.files["OperationOutcome.errors"] = lines(json.dumps(failed | {"issue": [issue]}))
    site.fhir.files["Bundle.deleted"] = lines(json.dumps(gone | {"entry": entries}))
    said: list[str] = []
    site.export(since="2026-11-01T00:00:00Z", said=said)
    told = "\n".join(said)
    assert "could not export everything: 1 error exception (*.errors)" in told
    assert "Deleted at the server since then: 2 Observation (*.deleted)" in told
    assert "p5" not in told
    (store,) = ingest("fhir", site.out, site.folder / "store")
    assert SiteStore.open(store).not_read == {}


def test_what_changed_since_goes_in_as_rows_and_never_in_place_of_whole_records(site, capsys):
    first, later = site.folder / "first", site.out
    assert main(["fhir-export", str(site.file), "--out", str(first)]) == 0
    (store,) = ingest("fhir", first, site.folder / "store")
    before = len(rows(store))
    drug = site.fhir.files["MedicationRequest.ndjson"].replace(b"2020-02", b"2020-04")
    site.fhir.files = {
        "Observation.ndjson": lines(observed("o9", "p5", "2020-03-01", 99.0)),
        "MedicationRequest.ndjson": drug,
    }
    words = ["fhir-export", str(site.file), "--out", str(later), "--since", str(first)]
    assert main(words) == 0
    assert "--out STORE --update rows" in capsys.readouterr().out
    assert site.fhir.calls[-1].method == "DELETE"
    assert [c.query["_since"] for c in site.fhir.calls if "_since" in c.query] == [TIME]
    with pytest.raises(IngestError, match=r"HF-334.*--update rows"):
        update_store("fhir", later, store, "people")
    update_store("fhir", later, store, "rows")
    assert len(rows(store)) == before + 2
    assert rows(store)["code"].to_pylist().count("ATC//C07AB02") == 2, "the drug kept its name"


def test_an_interrupted_export_of_what_changed_still_knows_the_drugs_of_the_one_before(site):
    first = site.folder / "first"
    site.export()
    site.out.rename(first)
    site.fhir.files.pop("Medication.ndjson")
    site.fhir.faults["GET /files/Patient.ndjson"] = [cut] * 5
    words = ["fhir-export", str(site.file), "--out", str(site.out)]
    with pytest.raises(IngestError, match="HF-333"):
        site.export(since=TIME, earlier=first)
    first.rename(site.folder / "away")
    assert main([*words, "--resume"]) == 4
    (site.folder / "away").rename(first)
    assert main([*words, "--resume"]) == 0
    carried = (site.out / "Medication.0000.ndjson").read_bytes()
    assert carried == three_people()["Medication.ndjson"]
    drugs = site.folder / "later"
    site.fhir.files = {"Medication.ndjson": lines(resource("Medication", "m1"))}
    assert main(["fhir-export", str(site.file), "--out", str(drugs), "--since", str(site.out)]) == 0
    assert [file.name for file in sorted(drugs.glob("Medication*"))] == [
        "Medication.0000.ndjson",
        "Medication.0001.ndjson",
    ]


def test_a_night_in_which_nothing_changed_is_no_error(site, capsys):
    first, later = site.folder / "first", site.folder / "later"
    site.fhir.files.pop("Medication.ndjson")
    assert main(["fhir-export", str(site.file), "--out", str(first)]) == 0
    (store,) = ingest("fhir", first, site.folder / "store")
    site.fhir.files = {}
    words = ["fhir-export", str(site.file), "--out", str(later), "--since", str(first)]
    assert main(words) == 0
    said: list[str] = []
    update_store("fhir", later, store, "rows", notify=said.append)
    assert said == ["Nothing in it is new to the store."]
    assert main(["fhir-export", str(site.file), "--out", str(site.out), "--since", TIME]) == 0
    assert capsys.readouterr().out.endswith("There is nothing in it to ingest.\n")


@pytest.mark.parametrize("since", ["yesterday", "2026-11-01", "2026-11-01T00:00:00", "."])
def test_a_time_without_its_zone_is_no_time_to_begin_from(site, since, capsys, monkeypatch):
    monkeypatch.chdir(site.folder)
    code = main(["fhir-export", str(site.file), "--out", str(site.out), "--since", since])
    assert code == (4 if since == "." else 2)
    assert site.fhir.calls == []
