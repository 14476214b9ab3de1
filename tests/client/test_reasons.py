"""A refusal reaches whoever reads it with its reason, and does not bury what left."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from healthfm_client.__main__ import main
from healthfm_client.doctor import connectivity
from healthfm_client.egress.repeated_refusals import RepeatedRefusals
from healthfm_client.runtime.refused_connection import RefusedConnection, note_refusal
from healthfm_client.site.site_folder import JoinSettings, StoreChoice
from healthfm_client.site_status import site_status
from healthfm_core.error_codes import CODES
from healthfm_core.errors import TrustError
from healthfm_core.trust.authority import Authority
from healthfm_server.deploy.caller_limits import CallerLimits
from healthfm_server.study_setup.contract_signer import ContractSigner
from tests.client.test_connectivity import Server, site
from tests.deploy.serving import Site, free_port, gateway_served
from tests.deploy.test_supervised_start import make_study

WAITS = {"run": "7", "round": "statistics", "refused": 503, "reason": "HF-503: run a", "bytes": 0}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path):
    front = Server(authority := Authority.create(tmp_path / "authority", "heart"), tmp_path / "s")
    made = site(authority, tmp_path / "site", front.port)
    made.write_settings(JoinSettings(stores=(StoreChoice(path=tmp_path),), port=free_port()))
    made.process.mkdir()
    made.front = front
    yield made
    front.close()


def test_a_day_of_retries_while_a_person_is_waited_for_is_one_line(tmp_path):
    memory = RepeatedRefusals(tmp_path / "refusals.json")
    minutes = [NOON + timedelta(minutes=n) for n in range(1440)]
    lines = [memory.repeats("query.statistics", WAITS, now) for now in minutes]
    assert [line for line in lines if line is not None] == [0]
    again = RepeatedRefusals(tmp_path / "refusals.json")  # after a restart
    assert again.repeats("query.statistics", WAITS, NOON + timedelta(days=1)) == 1439
    assert again.repeats("query.statistics", {**WAITS, "reason": "HF-503: run b"}, NOON) == 0


def test_what_leaves_and_what_is_refused_for_another_reason_has_a_line_each(tmp_path):
    memory = RepeatedRefusals(tmp_path / "refusals.json")
    for facts in ({"run": "7", "records": {}, "bytes": 9}, {**WAITS, "refused": 612}):
        assert [memory.repeats("train", facts, NOON) for _ in range(3)] == [0, 0, 0]


def test_status_does_not_call_a_refusal_what_left(home):
    home.log().append("query.statistics", {"run": "7", "records": {}, "bytes": 9})
    home.log().append("query.prepare", WAITS)
    facts = site_status(home)
    assert facts["last_left"].endswith("query.statistics")
    assert facts["last_refused"].endswith("query.prepare: 503")
    assert facts["lines_in_log"] == 2


@pytest.mark.parametrize("wrong", ["clock", "unknown"])
def test_why_the_connection_is_refused_is_in_the_nodes_log_and_the_sites_status(home, wrong):
    if wrong == "clock":
        home.front.ahead_s = 3600.0
    else:
        home.front.known = ""
    code = {"clock": "HF-409", "unknown": "HF-811"}[wrong]
    assert code in note_refusal(home)
    assert code in site_status(home)["connection_refused"]
    later = datetime.now(UTC) + timedelta(minutes=3)
    assert RefusedConnection.recent(home, later) is None


def test_a_revoked_site_is_told_that_it_may_be_revoked(tmp_path):
    study = make_study(tmp_path / "study")
    north = Site(study, tmp_path / "north", "north")
    study.sites.revoke("north")
    authority = study.authority()
    authority.revoke("north")
    study.publish(authority)
    served = gateway_served(study, study.background_audit("gateway"), CallerLimits())
    with served, north.client() as client, pytest.raises(TrustError, match="HF-805") as refused:
        connectivity._hello(client, study.settings.url, None)
    assert "Ask the coordinator whether this site was revoked" in str(refused.value)


def test_a_mistyped_kit_is_a_path_to_check_and_no_key_to_restore(home, tmp_path, capsys):
    for command in ("enroll", "join"):
        words = [command, "--site", str(home.path), "--kit", str(tmp_path / "nosuch.zip")]
        assert main(words) != 0
        printed = capsys.readouterr().err
        assert "HF-107" in printed
        assert "nosuch.zip" in printed
        assert "backup" not in printed


def test_a_node_is_called_by_its_sites_name(tmp_path):
    study = make_study(tmp_path / "study")
    Site(study, tmp_path / "north", "north")
    signer = ContractSigner.of(study.path, "first")
    assert signer.name_of(study.sites.site("north").node_id) == "north"
    assert signer.name_of(5) == "node 5"
    assert ContractSigner().name_of(5) == "node 5"


def test_no_error_tells_a_coordinator_to_type_what_only_a_simulation_takes():
    only = [n for n, code in CODES.items() if "resume=true" in code.do]
    assert only
    assert all("simulation" in CODES[number].do for number in only)


def test_the_memory_of_refusals_is_readable(tmp_path):
    RepeatedRefusals(tmp_path / "refusals.json").repeats("query.prepare", WAITS, NOON)
    (kept,) = json.loads((tmp_path / "refusals.json").read_text()).values()
    assert kept == {"at": NOON.isoformat(), "unlogged": 0}
