"""What a FHIR server may get wrong or try, and the sentence that the export ends with."""

from __future__ import annotations

import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from healthfm_client.__main__ import main
from healthfm_client.fhir_export import fetched_folder, resource_lines
from healthfm_client.fhir_export.export_state import ExportState
from healthfm_core.errors import ConfigError, IngestError, TrustError
from tests.client.fhir_export.conftest import Site, lines, resource
from tests.client.fhir_export.fhir_server import FhirServer, cut, listening, outcome, says

KICK_OFF = "GET /fhir/Group/g-1/$export"
DISCOVERY = "GET /fhir/.well-known/smart-configuration"
HTML = "<!DOCTYPE html><title>Sign in</title>"


def tokens_of(fhir: FhirServer) -> set[str]:
    """The tokens that a server saw."""
    return {call.token for call in fhir.calls} - {""}


def elsewhere(site: Site, other: FhirServer, where: str) -> None:
    """Have the server lead to another host at one of the places where it gives an address."""
    if where == "token":
        site.fhir.smart = {"token_endpoint": f"{other.base}/token"}
    elif where == "job":
        site.fhir.faults[KICK_OFF] = [says(202, Content_Location=f"{other.base}/jobs/1")]
    elif where == "redirect":
        leads = says(302, Location=f"{other.base}/files/Patient.ndjson")
        site.fhir.faults["GET /files/Patient.ndjson"] = [leads]
    else:
        url = {"file": f"{other.base}/files/Patient.ndjson", "clear": "http://10.0.0.1/a"}[where]
        listed = [{"type": "Patient", "url": url}]
        site.fhir.changed = lambda manifest: manifest | {"output": listed}


@pytest.mark.parametrize("where", ["token", "job", "file", "redirect", "clear"])
def test_a_host_that_was_not_named_is_not_asked_and_sees_no_token(site, other, where):
    other.files, other.requires_token = {"Patient.ndjson": b""}, False
    elsewhere(site, other, where)
    with pytest.raises(IngestError, match="HF-332"):
        site.export()
    assert other.calls == []


def test_a_named_host_gets_the_token_for_a_file_and_not_by_a_redirect(site, other):
    site.settings["hosts"] = [other.base.removeprefix("https://")]
    other.files, other.requires_token = dict(site.fhir.files), False
    elsewhere(site, other, "redirect")
    site.export()
    assert [call.token for call in other.calls] == [""], "a redirect takes no token along"
    site.out.rename(site.folder / "first")
    elsewhere(site, other, "file")
    site.export()
    assert tokens_of(other) == tokens_of(site.fhir) & tokens_of(other) != set()


def test_files_that_want_no_token_get_none(site, other):
    site.settings["hosts"] = [other.base.removeprefix("https://")]
    other.files, other.requires_token = dict(site.fhir.files), False
    site.fhir.requires_token = False
    elsewhere(site, other, "file")
    site.export()
    assert tokens_of(other) == set()
    site.out.rename(site.folder / "first")
    site.fhir.changed = lambda manifest: manifest
    site.export()
    files = [call for call in site.fhir.calls if call.path.startswith("/files/")]
    assert {call.token for call in files} == {""}
    assert len(files) == 5


def test_a_redirect_within_the_server_keeps_the_token_and_a_circle_ends(site):
    path = "GET /files/Patient.ndjson"
    site.fhir.files["again"] = site.fhir.files["Patient.ndjson"]
    site.fhir.changed = lambda m: (
        m | {"output": [one for one in m["output"] if not one["url"].endswith("again")]}
    )
    site.fhir.faults[path] = [says(307, Location="/files/again")]
    site.export()
    assert (site.out / "Patient.0001.ndjson").read_bytes() == site.fhir.files["again"]
    site.out.rename(site.folder / "first")
    site.fhir.faults[path] = [says(307, Location="/files/Patient.ndjson")] * 9
    with pytest.raises(IngestError, match=r"HF-329.*redirects more than 5"):
        site.export()


ANSWERS = {
    "no_configuration": (DISCOVERY, says(404), r"HF-329.*HTTP 404"),
    "configuration_html": (DISCOVERY, says(200, HTML), r"HF-329.*no SMART configuration"),
    "too_large": (DISCOVERY, says(200, " " * 5_000_000), r"HF-329.*more than 4,194,304 bytes"),
    "token_html": ("POST /token", says(200, HTML), r"HF-329.*no token in JSON"),
    "mac_token": (
        "POST /token",
        says(200, {"access_token": "x", "token_type": "mac"}),
        r"HF-329.*no bearer",
    ),
    "odd_token": ("POST /token", says(200, {"access_token": "a\nb"}), r"HF-329.*no bearer"),
    "not_here": (KICK_OFF, says(404, outcome("not-supported", "no $export")), "no .export"),
    "no_place": (KICK_OFF, says(202), r"HF-329.*does not say where"),
    "failed": ("GET /jobs/1", says(500, outcome("exception", "out of\x1b[2J space")), "HF-331.*"),
    "html_for_list": ("GET /jobs/1", says(200, HTML), r"HF-329.*no list"),
    "html_for_file": ("GET /files/Patient.ndjson", says(200, HTML), r"HF-333.*Patient.*HTML"),
    "outcome_for_file": (
        "GET /files/Patient.ndjson",
        says(200, outcome("exception")),
        r"HF-333.*its resources are OperationOutcome, the list says Patient",
    ),
    "file_gone": ("GET /files/Patient.ndjson", says(404, outcome("not-found")), r"HF-331.*404"),
    "file_forbidden": ("GET /files/Patient.ndjson", says(403), r"HF-330.*403"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_is_none_is_told_in_one_sentence(site, case):
    where, fault, told = ANSWERS[case]
    site.fhir.faults[where] = [fault] * 2
    with pytest.raises(IngestError, match=told) as caught:
        site.export()
    assert "\x1b" not in str(caught.value)
    assert not (site.out / "Patient.0001.ndjson").exists()
    if where == "GET /files/Patient.ndjson":
        assert ExportState.read(site.out).phase == "fetching"
    else:
        assert not site.out.exists(), "a folder that was made for nothing is gone"
    gone = site.fhir.count("DELETE", "/jobs/1")
    assert gone == (where == "GET /jobs/1"), "given back where no resuming makes it useful"


def test_what_is_transient_is_asked_for_again(site):
    site.fhir.faults["GET /jobs/1"] = [says(500, outcome("transient"), Retry_After="3")]
    slept: list[float] = []
    site.export(slept=slept)
    assert 3 in slept


LISTS = {
    "of_no_type": ({"output": [{"url": "/files/Patient.ndjson"}]}, r"HF-329.*of no type"),
    "odd_type": ({"output": [{"type": "../a", "url": "/files/a"}]}, r"HF-329.*of no type"),
    "goes_on": ({"link": [{"relation": "next", "url": "/x"}]}, r"HF-329.*goes on elsewhere"),
    "no_address": ({"error": [{"url": "file:///etc/passwd"}]}, r"HF-332.*no address of http"),
    "password": (
        {"output": [{"type": "Patient", "url": "https://a:b@h/"}]},
        r"HF-332.*no address of http",
    ),
    "longer": (
        {"output": [{"type": "Patient", "url": "/files/Patient.ndjson", "count": 4}]},
        r"HF-333.*it has 3 lines, the list says 4",
    ),
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_that_says_what_cannot_be_is_refused(site, case):
    said, told = LISTS[case]
    site.fhir.changed = lambda manifest: manifest | said
    with pytest.raises(IngestError, match=told):
        site.export()


def test_relative_addresses_are_of_the_server(site):
    one = {"type": "Patient", "url": "/files/Patient.ndjson"}
    site.fhir.changed = lambda manifest: manifest | {"output": [one]}
    site.export()
    assert (site.out / "Patient.0001.ndjson").is_file()


def test_a_file_that_says_no_length_and_ends_in_a_line_is_cut_off(site):
    def short(handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", "40")
        handler.end_headers()
        handler.wfile.write(site.fhir.files["Patient.ndjson"][:40])
        return True

    def open_ended(handler, body):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(site.fhir.files["Patient.ndjson"])
        handler.close_connection = True
        return True

    one = {"type": "Patient", "url": "/files/Patient.ndjson"}
    site.fhir.changed = lambda manifest: manifest | {"output": [one]}
    for fault, told in ((short, "HF-333"), (open_ended, r"HF-333.*does not say how long")):
        site.fhir.faults["GET /files/Patient.ndjson"] = [fault] * 5
        with pytest.raises(IngestError, match=told):
            site.export(resume=site.out.exists())
    site.export(resume=True)


def test_a_line_cut_off_behind_whole_ones_is_seen():
    whole = lines(resource("Patient", "1"), resource("Patient", "2"))
    for end, fault in ((len(whole), None), (len(whole) - 1, None), (len(whole) - 2, "cut off")):
        for step in (1, 7, 1000):
            seen = resource_lines.ResourceLines("Patient")
            parts = [whole[at : min(at + step, end)] for at in range(0, end, step)]
            found = [seen.add(part) for part in parts]
            assert found == [None] * len(parts)
            last = seen.end()
            assert (last is None) == (fault is None)
            assert (seen.lines, seen.size) == (2, end)


def test_a_line_without_end_is_refused_before_it_fills_memory(monkeypatch):
    monkeypatch.setattr(resource_lines, "LINE_AT_MOST", 10)
    seen = resource_lines.ResourceLines("")
    assert seen.add(b"x" * 10) is None
    fault = seen.add(b"x")
    assert fault is not None
    assert not fault.cut_off


def test_a_file_larger_than_allowed_is_refused_with_the_setting_to_change(site):
    site.settings["largest_file_gb"] = 1e-7
    with pytest.raises(IngestError, match=r"HF-329.*largest_file_gb"):
        site.export()
    site.settings["largest_file_gb"] = 1
    site.export(resume=True)


def test_a_disk_is_not_filled_to_its_end(site, monkeypatch):
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage(fetched_folder.LEAST_FREE_BYTES - 1))
        with pytest.raises(IngestError, match=r"HF-311.*--resume"):
            site.export()
    site.export(resume=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_disk_that_is_full_leaves_what_can_be_gone_on_with(site):
    site.fhir.faults["GET /files/Patient.ndjson"] = [cut] * 5
    with pytest.raises(IngestError, match="HF-333"):
        site.export()
    part = site.out / "Patient.0001.ndjson.part"
    part.symlink_to("/dev/full")
    with pytest.raises(ConfigError, match=r"HF-105\]: export: no space left.*--resume"):
        site.export(resume=True)
    part.unlink()
    site.export(resume=True)
    assert (site.out / "Patient.0001.ndjson").read_bytes() == site.fhir.files["Patient.ndjson"]


def test_an_unknown_client_and_a_clock_that_is_wrong_are_told_apart(site):
    site.settings["client_id"] = "stranger"
    with pytest.raises(IngestError, match=r"HF-330.*invalid_client \(no\); .*fhir-key --show"):
        site.export()
    site.settings["client_id"] = "healthfm"
    site.fhir.clock_ahead_s = 3600
    with pytest.raises(IngestError, match=r"HF-330.*clock is 3\d+ s behind the server's.*NTP"):
        site.export()
    site.fhir.clock_ahead_s = -3600
    with pytest.raises(IngestError, match=r"HF-330.*clock is 36\d\d s ahead of the server's"):
        site.export()


def test_a_key_of_an_algorithm_that_the_server_does_not_take_is_said_before_it_is_used(site):
    site.fhir.smart = {"token_endpoint_auth_signing_alg_values_supported": ["RS384"]}
    with pytest.raises(IngestError, match=r"HF-330.*takes RS384; ES384.*--algorithm"):
        site.export()
    assert site.fhir.used == set()


def test_a_key_that_others_may_read_is_not_used(site):
    (site.folder / "fhir.key").chmod(0o640)
    with pytest.raises(TrustError, match=r"HF-802.*chmod 600"):
        site.export()
    assert site.fhir.calls == []


FILES = {
    "missing": ({"client_id": None}, r"HF-327.*client_id is missing"),
    "unknown": ({"colour": "red"}, r"HF-327.*colour is not known"),
    "clear": ({"url": "http://fhir.hospital/r4"}, r"HF-327.*http, and not to this machine"),
    "no_address": ({"url": "https://:99999/"}, r"HF-327.*url is no address"),
    "password": ({"url": "https://a:b@fhir.hospital/"}, r"HF-327.*url is no address"),
    "host": ({"hosts": ["https://login"]}, r"HF-327.*hosts has something"),
    "token_elsewhere": ({"token_url": "https://login/token"}, r'HF-332.*add "login" to hosts'),
    "type": ({"types": ["../x"]}, r"HF-327.*types.0 does not fit"),
    "group": ({"group": "a/b"}, r"HF-327.*group does not fit"),
    "ca": ({"ca": "nowhere.pem"}, r"HF-327.*no file of certificates"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_server_file_with_a_mistake_is_told_where(site, case):
    change, told = FILES[case]
    site.settings = {k: v for k, v in (site.settings | change).items() if v is not None}
    with pytest.raises(IngestError, match=told):
        site.export()
    assert site.fhir.calls == []


def test_a_server_file_that_others_may_change_is_refused(site, capsys):
    site.file.chmod(0o664)
    path = site.folder / "fhir.toml"
    assert main(["fhir-export", str(path), "--out", str(site.out)]) == 4
    assert "HF-327" in capsys.readouterr().err
    assert site.fhir.calls == []


def test_a_certificate_of_another_authority_is_refused_at_once(site):
    del site.settings["ca"]
    with pytest.raises(IngestError, match=r"HF-328.*certificate is not trusted.* ca in"):
        site.export()
    assert site.fhir.calls == []


def test_a_server_that_is_not_there_is_asked_a_few_times(site):
    with listening(FhirServer({}), None) as port:
        pass
    site.settings["url"] = f"http://127.0.0.1:{port}/fhir"
    slept: list[float] = []
    with pytest.raises(IngestError, match=r"HF-328.*connection was refused"):
        site.export(slept=slept)
    assert slept == [1, 2, 4]


def test_this_machine_may_be_asked_in_the_clear(site):
    with listening(site.fhir, None) as port:
        site.fhir.base = f"http://127.0.0.1:{port}"
        site.settings["url"] = f"{site.fhir.base}/fhir"
        site.export()
    assert ExportState.read(site.out).phase == "whole"


def test_two_exports_do_not_write_one_folder(site):
    with (
        fetched_folder.private_folder(site.out, resume=False),
        pytest.raises(IngestError, match=r"HF-334.*another export"),
    ):
        site.export()


def test_a_state_that_is_damaged_is_told(site):
    site.fhir.faults["GET /files/Patient.ndjson"] = [cut] * 5
    with pytest.raises(IngestError, match="HF-333"):
        site.export()
    (site.out / "export.state").write_text("{")
    with pytest.raises(IngestError, match=r"HF-334.*damaged"):
        site.export(resume=True)


def test_no_secret_is_in_the_state_or_said(site, capsys):
    site.fhir.changed = lambda m: (
        m | {"output": [one | {"url": one["url"] + "?sig=secret"} for one in m["output"]]}
    )
    site.fhir.faults["GET /files/Patient.ndjson"] = [says(404)]
    assert main(["fhir-export", str(site.file), "--out", str(site.out)]) == 4
    told = capsys.readouterr()
    written = (site.out / "export.state").read_text()
    (token,) = tokens_of(site.fhir)
    for text in (told.out, told.err, written):
        assert "secret" not in text
        assert token not in text
    assert json.loads(written)["phase"] == "fetching"
    assert Path(site.out / "export.state").stat().st_mode & 0o077 == 0


def test_disk_errors_other_than_a_full_one_are_told_as_they_are():
    folder = fetched_folder.FetchedFolder(Path("x"), None, 1, print)
    error = folder._disk(OSError(errno.EIO, "Input/output error"))
    assert isinstance(error, ConfigError)
    assert (error.number, error.seen) == (107, "input/output error")
