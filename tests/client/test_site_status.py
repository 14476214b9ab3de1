"""What a site says of its own connection, by what its node noted."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.runtime import flower_processes
from healthfm_client.runtime.study_answers import AnswerNotes, StudyAnswers
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site_status import connection_of, site_status
from healthfm_core.privacy.ledger import Ledger
from tests import enrolled
from tests.client.test_site_control import command

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
RUNS = {"node": "RUNNING pid 1", "worker": "RUNNING pid 2"}


@pytest.fixture
def home(tmp_path):
    _, sites = enrolled.three(tmp_path)
    home = SiteHome(sites[0].home)
    home.settings_file.write_text("stores: [{path: nowhere}]")
    home.process.mkdir()
    return home


def answered(home, at, since=None):
    said = {"at": at.isoformat(), "since": (since or at).isoformat()}
    (home.process / "answered.json").write_text(json.dumps(said))


def refused(home, at, reason):
    note = {"at": at.isoformat(timespec="seconds"), "reason": reason}
    (home.process / "refused.json").write_text(json.dumps(note))


def test_a_site_is_connected_while_the_study_answers(home):
    since = NOW - timedelta(hours=3)
    answered(home, NOW - timedelta(seconds=4), since)
    found = connection_of(home, RUNS, NOW)
    assert (found.state, found.since, found.do) == ("connected", "2026-11-24T09:00:00+00:00", "")
    later = connection_of(home, RUNS, NOW + timedelta(seconds=30))
    assert (later.state, later.since) == ("silent", "2026-11-24T11:59:56+00:00")
    assert "the study does not answer" in later.sentence


def test_the_later_of_an_answer_and_a_refusal_counts(home):
    answered(home, NOW - timedelta(seconds=60))
    refused(home, NOW - timedelta(seconds=5), "TrustError[HF-805]: the certificate was revoked")
    found = connection_of(home, RUNS, NOW)
    assert found.state == "refused"
    assert "HF-805" in found.sentence
    answered(home, NOW - timedelta(seconds=1))
    assert connection_of(home, RUNS, NOW).state == "connected"


def test_without_processes_or_after_leaving_that_is_told(home):
    answered(home, NOW)
    assert connection_of(home, {}, NOW).state == "stopped"
    home.set_state("left")
    assert connection_of(home, RUNS, NOW).state == "left"


def test_a_process_that_ends_again_and_again_is_told(home):
    loops = {**RUNS, "node": "ENDS AGAIN AND AGAIN (7 times in two minutes): no such store"}
    assert "7 times in two minutes" in connection_of(home, loops, NOW).sentence


def test_a_node_notes_each_second_and_counts_from_its_last_gap(tmp_path):
    at = {"s": 0.0}
    notes = AnswerNotes(tmp_path, lambda: at["s"], now=lambda: NOW + timedelta(seconds=at["s"]))
    for second in (0.0, 0.5, 3.0, 6.0):
        at["s"] = second
        notes.answered()
    known = StudyAnswers.read(tmp_path)
    assert (known.since, known.at) == (NOW, NOW + timedelta(seconds=6))
    at["s"] = 6.4
    notes.answered()
    assert StudyAnswers.read(tmp_path) == known
    at["s"] = 100.0
    notes.answered()
    assert StudyAnswers.read(tmp_path).since == NOW + timedelta(seconds=100)
    assert [path.name for path in tmp_path.iterdir()] == ["answered.json"]
    assert StudyAnswers.read(tmp_path / "nowhere") is None


def test_a_note_that_cannot_be_written_ends_no_connection(tmp_path):
    AnswerNotes(tmp_path / "nowhere").answered()


def test_every_call_of_flower_s_node_that_is_answered_is_noted(monkeypatch):
    told = []
    with flower_processes._with_certificate(ssl.create_default_context(), lambda: told.append(1)):
        made = flower_processes.connection_module.FleetHttpClient.from_server_address(
            "127.0.0.1:1", False, None, ()
        )
        answer = SimpleNamespace(content=b"")
        monkeypatch.setattr(
            made,
            "_send",
            lambda context: SimpleNamespace(raise_for_status=lambda: None, content=answer.content),
        )
        request = SimpleNamespace(SerializeToString=lambda deterministic: b"")
        reply = type("Reply", (), {"ParseFromString": lambda self, data: None})
        made._unary_unary(path="/x", rpc_method="x", request=request, response_type=reply)
        assert told == [1]

        def fails(context):
            raise ConnectionError

        monkeypatch.setattr(made, "_send", fails)
        with pytest.raises(ConnectionError):
            made._unary_unary(path="/x", rpc_method="x", request=request, response_type=reply)
        assert told == [1]
        made.close()


def test_the_status_reads_a_long_log_from_its_end(home, monkeypatch):
    for number in range(5):
        home.log().append("train", {"round": str(number), "bytes": 7})
    monkeypatch.setattr("healthfm_core.trust.chained_log.ChainedLog.entries", None)
    told = site_status(home, RUNS)
    assert (told["lines_in_log"], told["last_left"][20:]) == (5, "train")
    assert told["last_refused"] is None
    assert told["processes"] == RUNS


def test_runs_without_noise_are_counted_whatever_they_are_called(home, tmp_path):
    ledger = Ledger(home.path / "ledger.jsonl")
    home.policy.write_text("privacy: {ledger: ledger.jsonl}")
    assert site_status(home, RUNS)["runs_without_noise"] is None
    ledger.note_unprotected("1", '"event": "unprotected"')
    ledger.note_unprotected("2", "unprotected")
    assert site_status(home, RUNS)["runs_without_noise"].startswith("2: ")


def test_the_command_says_it_in_a_line(home, capsys):
    assert command(home.path, "status") == 0
    said = capsys.readouterr().out
    assert "stopped. This site's processes do not run. Start them: healthfm-client join." in said
