"""`up` and `join` say what stands in the way, and claim success only where something answers."""

from __future__ import annotations

import shutil
import socket
import sys

import pytest

from healthfm_client.__main__ import main as client
from healthfm_client.commands import join
from healthfm_client.runtime.site_supervision import supervision as site_supervision
from healthfm_client.site.site_folder import JoinSettings, StoreChoice
from healthfm_core.errors import RunError
from healthfm_core.supervised_start import recent_ends, refuse_copy, refuse_taken_port
from healthfm_core.supervision import Program, Supervision
from healthfm_core.trust.authority import Authority
from healthfm_server.__main__ import main as server
from healthfm_server.deploy import study_supervision
from healthfm_server.deploy.caller_limits import CallerLimits
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.deploy.study_supervision import supervision
from tests.client.test_connectivity import Server, site
from tests.deploy.serving import free_port, gateway_served
from tests.deploy.test_supervision import eventually

SLEEPS = "import signal; print('up', flush=True); signal.pause()"
ENDS = "import sys, time; time.sleep(1.5); sys.exit('the port is taken')"


@pytest.fixture
def taken():
    """A port of loopback on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(refuse_taken_port, "__defaults__", (0.0,))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def make_study(folder, **ports):
    free = {"port": free_port(), "superlink_port": free_port()}
    settings = StudySettings(
        study="demo", hosts=("127.0.0.1",), bind="127.0.0.1", **{**free, **ports}
    )
    return StudyFolder.create(folder, settings)


@pytest.mark.parametrize("which", ["port", "superlink_port"])
def test_up_refuses_a_port_that_another_program_has_and_starts_nothing(
    tmp_path, taken, which, capsys
):
    study = make_study(tmp_path / "study", **{which: taken})
    assert server(["up", "--study", str(study.path)]) != 0
    printed = capsys.readouterr().err
    assert f"HF-721]: port {taken} of 127.0.0.1: another program listens there" in printed
    assert "study.yaml" in printed
    assert not supervision(study).runs()


def test_a_copied_study_does_not_start_beside_its_original(tmp_path):
    study = make_study(tmp_path / "study")
    study_supervision.refuse_to_start_beside(study)
    copy = tmp_path / "copy"
    shutil.copytree(study.path, copy)
    with pytest.raises(RunError, match=r"HF-724.*copy of .*study, which is there still"):
        study_supervision.refuse_to_start_beside(StudyFolder.open(copy))
    study_supervision.refuse_to_start_beside(study)
    shutil.rmtree(study.path)  # it was moved
    study_supervision.refuse_to_start_beside(StudyFolder.open(copy))
    refuse_copy(copy / "process", "secret/control")


def test_a_copy_neither_sees_nor_stops_the_originals_processes(tmp_path):
    original = Supervision(
        tmp_path / "one" / "process", [Program("it", [sys.executable, "-c", SLEEPS])], {}
    )
    original.start()
    try:
        shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("*.sock"))
        copy = Supervision(tmp_path / "two" / "process", original.programs, {})
        assert (copy.runs(), copy.states()) == (False, {})
        copy.stop()
        assert original.runs()
    finally:
        original.stop()


def test_a_process_that_ends_again_and_again_is_not_told_as_running(tmp_path):
    supervised = Supervision(
        tmp_path / "process", [Program("it", [sys.executable, "-c", ENDS])], {}
    )
    supervised.start()
    try:
        state = eventually(lambda: told_as_ending(supervised))
        assert state.endswith("in two minutes): the port is taken")
        with pytest.raises(RunError, match=r"HF-721.*process it.*the port is taken.*it\.log"):
            supervised.wait_until_running()
    finally:
        supervised.stop()


def told_as_ending(supervised):
    state = supervised.states().get("it", "")
    return state if state.startswith("ENDS") else None


def test_what_ended_long_ago_and_what_was_told_to_end_is_not_counted(tmp_path):
    log = tmp_path / "supervisord.log"
    log.write_text(
        "2020-01-01 00:00:00,000 INFO exited: it (exit status 1; not expected)\n"
        "2999-01-01 00:00:00,000 WARN exited: it (exit status 1; not expected)\n"
        "2999-01-01 00:00:00,000 INFO stopped: it (exit status 0)\n"
    )
    assert recent_ends(log, ["it"]) == {"it": 1}


def test_another_programs_port_is_not_taken_for_the_gateway_and_the_studys_own_is(tmp_path, taken):
    study = make_study(tmp_path / "study")
    assert not study_supervision._is_our_gateway(study, ("127.0.0.1", taken))
    assert not study_supervision._is_our_superlink(study, ("127.0.0.1", free_port()))
    other = make_study(tmp_path / "other")
    with gateway_served(other, other.background_audit("gateway"), CallerLimits()) as (_, _):
        address = ("127.0.0.1", other.settings.port)
        assert study_supervision._is_our_gateway(other, address)
        assert not study_supervision._is_our_gateway(study, address)


@pytest.fixture
def authority(tmp_path):
    return Authority.create(tmp_path / "authority", "heart")


@pytest.fixture
def joined(authority, tmp_path, monkeypatch):
    """A site ready to join, whose processes only sleep; and its study's front."""
    front = Server(authority, tmp_path / "server")
    home = site(authority, tmp_path / "site", front.port)
    for folder in ("data", "metadata"):
        (tmp_path / "store" / folder).mkdir(parents=True)
    stores = (StoreChoice(path=tmp_path / "store"),)
    home.write_settings(JoinSettings(stores=stores, port=free_port()))
    supervised = Supervision(home.process, [Program("node", [sys.executable, "-c", SLEEPS])], {})
    monkeypatch.setattr(join, "supervision", lambda _: supervised)
    yield home, front
    front.close()
    supervised.stop()


def test_join_says_that_a_site_takes_part_once_the_study_has_answered_it(joined, capsys):
    home, _ = joined
    assert client(["join", "--site", str(home.path)]) == 0
    assert "site north takes part in heart" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["down", "unknown", "clock"])
def test_join_claims_nothing_where_the_study_does_not_answer_it(joined, wrong, capsys):
    home, front = joined
    if wrong == "down":
        front.close()
    elif wrong == "unknown":
        front.known = ""
    else:
        front.ahead_s = 3600.0
    assert client(["join", "--site", str(home.path)]) != 0
    printed = capsys.readouterr()
    code = {"down": "HF-408", "unknown": "HF-811", "clock": "HF-409"}[wrong]
    assert code in printed.err
    assert "takes part" not in printed.out
    assert "they go on trying" in printed.out or wrong == "down"


def test_join_refuses_a_port_that_another_program_has(joined, taken, capsys):
    home, _ = joined
    assert client(["join", "--site", str(home.path), "--port", str(taken)]) != 0
    assert "HF-721" in (printed := capsys.readouterr().err)
    assert "join with another port: --port PORT" in printed
    assert not join.supervision(home).runs()


def test_join_after_leaving_says_what_to_do_instead_of_taking_part(joined, capsys):
    home, _ = joined
    home.set_state("left")
    assert client(["join", "--site", str(home.path)]) != 0
    assert "HF-508" in (printed := capsys.readouterr()).err
    assert "healthfm-client resume, then healthfm-client join" in printed.err
    assert "takes part" not in printed.out
    home.set_state("paused")
    assert client(["join", "--site", str(home.path)]) == 0
    assert "it is paused and answers nothing until" in capsys.readouterr().out


def test_a_sites_own_processes_are_those_that_its_supervisor_starts(joined):
    home, _ = joined
    assert [program.name for program in site_supervision(home).programs] == ["node", "worker"]
