"""What people of a study and of a site are told, from the files that tell it."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from healthfm_client.__main__ import main as client
from healthfm_client.runtime import site_notices
from healthfm_client.runtime.refused_connection import FILE as REFUSED
from healthfm_client.site.site_home import SiteHome
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.notices import watch
from healthfm_core.notices.notice_settings import NoticeSettings
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.privacy.ledger import Ledger, PrivacyLimits
from healthfm_core.trust import files
from healthfm_server.__main__ import main as server
from healthfm_server.deploy import study_status as status_module
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.deploy.study_notices import look, study_notices, tell_until
from tests import enrolled
from tests.deploy.serving import PATIENCE_S
from tests.notices.receivers import certificate, webhook_server

SETTINGS = NoticeSettings(stalled_minutes=1)
SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"


@pytest.fixture
def study(tmp_path):
    settings = StudySettings(study="demo", hosts=("127.0.0.1",))
    return StudyFolder.create(tmp_path / "study", settings)


@pytest.fixture
def order(study):
    config = RunConfig.model_validate({"federation": {"rounds": 2}})
    return RunOrder.give(study.runs, "first", config, None)


def note(order, **changed):
    order.note(replace(order.status(), **changed))


def told(study):
    return [(notice.kind, notice.subject) for notice in look(study, SETTINGS)]


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_the_coordinator_is_told_that_a_run_ended_and_why(study, order, state):
    note(order, state="running", flower_run=1)
    assert told(study) == []
    note(order, state=state, reason="the sites share no code")
    (notice,) = look(study, SETTINGS)
    assert (notice.kind, notice.subject) == ("ended", f"run first has {state}")
    assert "after 0 of 2 rounds: the sites share no code" in notice.text


@pytest.mark.parametrize("state", ["paused", "stopped"])
def test_what_a_person_did_is_not_told_to_them(study, order, state):
    note(order, state=state)
    assert told(study) == []


def test_the_coordinator_is_told_what_a_run_waits_for_when_it_lasts(study, order):
    note(order, state="running", flower_run=1)
    wait = {"what": "connections", "phase": "start", "nodes": [], "of": 2, "since": "2026-11-24"}
    (order.folder / "waits-for.json").write_text(json.dumps(wait))
    (notice,) = look(study, SETTINGS)
    assert (notice.kind, notice.subject) == ("stalled", "run first waits for connections")
    assert notice.wait_s == 60.0


def test_the_coordinator_is_told_that_a_run_is_tried_again_and_again(study, order):
    note(order, state="waiting", reason="a site sent nothing")
    (notice,) = look(study, SETTINGS)
    assert (notice.kind, notice.wait_s) == ("stalled", 60.0)
    assert "tried again and again: a site sent nothing" in notice.text


def test_the_coordinator_is_told_of_a_full_disk_and_of_a_certificate_that_ends(study, monkeypatch):
    monkeypatch.setattr(status_module, "FULL_BYTES", 2**80)
    assert told(study) == [("alarm", "the study needs help")]
    status = {"alarms": [], "runs": [], "url": study.settings.url}
    now = datetime.now(UTC)
    for days, kinds in ((29, ["certificate"]), (31, [])):
        ends = now + timedelta(days=days)
        found = study_notices(status, ends, now, SETTINGS)
        assert [notice.kind for notice in found] == kinds


@pytest.fixture
def asked(tmp_path):
    """A site at which a run asks."""
    folder, sites = enrolled.three(tmp_path, require_approval=True)
    with pytest.raises(ProtocolError, match=r"HF-403"):
        enrolled.run(enrolled.Wire(sites), folder, tmp_path / "run")
    return SiteHome(sites[0].home)


def test_the_site_is_told_that_a_run_asks_until_it_is_answered(asked):
    (notice,) = site_notices.look(asked, SETTINGS)
    (request,) = asked.approvals()
    assert notice.kind == "asks"
    assert f"healthfm-client approve {request.called}" in notice.text
    asked.approvals().answer(request.run, "approved")
    assert site_notices.look(asked, SETTINGS) == []


def test_the_site_is_told_that_it_is_not_connected_unless_it_is_paused(asked):
    asked.approvals().answer(next(iter(asked.approvals())).run, "approved")
    at = datetime.now(UTC).isoformat()
    refusal = {"at": at, "reason": "HF-804: the certificate was revoked"}
    files.replace(asked.process / REFUSED, json.dumps(refusal).encode())
    (notice,) = site_notices.look(asked, SETTINGS)
    assert (notice.kind, notice.wait_s) == ("stalled", 60.0)
    assert "revoked" in notice.text
    asked.set_state("paused")
    assert site_notices.look(asked, SETTINGS) == []


def test_the_site_is_told_of_a_certificate_that_was_not_renewed(asked, monkeypatch):
    asked.approvals().answer(next(iter(asked.approvals())).run, "approved")
    ends = asked.kit().certificate.not_valid_after_utc
    for days, kinds in ((31, []), (29, ["certificate"])):
        now = ends - timedelta(days=days)
        monkeypatch.setattr(site_notices, "now_utc", lambda now=now: now)
        assert [notice.kind for notice in site_notices.look(asked, SETTINGS)] == kinds


def test_the_site_is_told_that_its_budget_runs_low_or_cannot_be_counted(asked):
    asked.approvals().answer(next(iter(asked.approvals())).run, "approved")
    rules = {"mode": "dp", "epsilon": 8.0, "epsilon_max": 60.0, "ledger": "ledger.jsonl"}
    asked.policy.write_text(yaml.safe_dump({"privacy": rules}))
    book = Ledger(asked.path / "ledger.jsonl")
    book.reserve("1f", "sepsis", 1, Mechanism(4.0, 0.1, 20), PrivacyLimits(1e-5))
    assert site_notices.look(asked, SETTINGS) == [], "most of ε 60 is left"
    asked.policy.write_text(yaml.safe_dump({"privacy": {**rules, "epsilon_max": 0.5}}))
    site_notices._left.cache_clear()
    (notice,) = site_notices.look(asked, SETTINGS)
    assert notice.kind == "budget"
    assert "of 0.5 is left" in notice.subject
    with (asked.path / "ledger.jsonl").open("a") as file:
        file.write("{}\n")
    (notice,) = site_notices.look(asked, SETTINGS)
    assert (notice.kind, "HF-602" in notice.text) == ("budget", True)


def hooked(folder, tls, url):
    """Return the part ``notices`` with a webhook, its files beside it."""
    (folder / "hook-secret").write_text(SECRET)
    (folder / "hook-secret").chmod(0o600)
    return {"webhook": {"url": url, "secret_file": "hook-secret", "ca_file": str(tls)}}


def test_what_happens_in_a_study_reaches_a_webhook_and_what_had_ended_does_not(
    study, order, tmp_path, monkeypatch, capsys
):
    context, ca = certificate(tmp_path)
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    note(order, state="failed", reason="long ago")
    with webhook_server(context) as (url, hook):
        file = study.path / "study.yaml"
        given = yaml.safe_load(file.read_text()) | {"notices": hooked(study.path, ca, url)}
        file.write_text(yaml.safe_dump(given))
        assert server(["notices", "--study", str(study.path), "--test"]) == 0
        assert capsys.readouterr().out == "webhook: taken\n"
        with telling(study):
            wait_for(lambda: (study.path / watch.FILE).exists())
            note(RunOrder.give(study.runs, "second", order.config(), None), state="finished")
            wait_for(lambda: len(hook.got) > 1)
    subjects = [json.loads(body)["data"]["subject"] for _, body in hook.got]
    assert subjects == ["a test of the notices", "run second has finished"]
    assert server(["notices", "--study", str(study.path)]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("by webhook: asks, ended, ")
    assert second.endswith("run second has finished")


@contextmanager
def telling(study):
    """Tell what happens meanwhile; no thread stays for the next test."""
    stopped = threading.Event()
    teller = threading.Thread(target=tell_until, args=(stopped, study.path))
    teller.start()
    try:
        yield
    finally:
        stopped.set()
        teller.join()


def wait_for(holds):
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.02)):
        if holds():
            return
        pause.wait(0.02)
    raise AssertionError("it did not come about")


def test_a_site_tries_its_channels_and_says_which_does_not_work(asked, tmp_path, capsys):
    context, ca = certificate(tmp_path)
    words = ["notices", "--site", str(asked.path)]
    assert client([*words, "--test"]) != 0
    assert "no channel is set" in capsys.readouterr().err
    with webhook_server(context) as (url, hook):
        given = {"notices": hooked(asked.path, ca, url)}
        asked.policy.write_text(yaml.safe_dump(given))
        assert client([*words, "--test"]) == 0
        hook.answers = 403
        assert client([*words, "--test"]) != 0
    said = capsys.readouterr()
    assert said.out == "webhook: taken\n"
    assert "HF-728" in said.err
    assert "403" in said.err
