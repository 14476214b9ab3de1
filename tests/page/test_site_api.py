"""The site's API: what the page shows, described as it is; and the page's own process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.__main__ import main
from healthfm_client.page import site_page_process
from healthfm_client.page.command_looks import CommandLook
from healthfm_client.page.site_actions import EFFECTS
from healthfm_core.local_page.page_access import API
from tests.page.made_site import (
    EVIL,
    RUNNING,
    add_lines,
    ask,
    connect,
    contract,
    make_site,
    served_site,
    spend,
)
from tests.page.test_study_api import misfits

RUN = "0" * 16


@pytest.fixture
def home(tmp_path):
    return make_site(tmp_path)


@pytest.fixture
def page(home):
    with served_site(home, RUNNING) as asking:
        yield asking


@pytest.fixture
def program(page):
    return page.bearer(page.page.token)


def read(client, path):
    answer = client.get(f"{API}{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_status_is_the_one_that_the_command_prints(home, program, capsys, monkeypatch):
    monkeypatch.setattr("healthfm_client.site_status.processes_of", lambda home: RUNNING)
    ask(home)
    add_lines(home)
    assert main(["status", "--json", "--site", str(home.path)]) == 0
    assert json.loads(capsys.readouterr().out) == read(program, "/status")


@pytest.mark.parametrize("state", ["open", "paused", "left"])
@pytest.mark.parametrize("met", ["connected", "silent", "refused", "stopped"])
def test_each_state_of_a_site_is_told(home, page, program, state, met):
    home.set_state(state)
    if met == "connected":
        connect(home)
    if met == "refused":
        note = {"at": "2999-01-01T00:00:00+00:00", "reason": "TrustError[HF-805]: it was revoked"}
        (home.process / "refused.json").write_text(json.dumps(note))
    if met == "stopped":
        page.page.view.processes = lambda now=False: {}
    told = read(program, "/status")
    assert told["state"] == state
    assert told["connection"]["state"] == ("left" if state == "left" else met)


def test_a_program_answers_a_run_by_what_it_read(home, page, program):
    ask(home)
    told = read(program, f"/runs/{RUN}")
    assert told["facts"]["reads"]["people_by_modality"] == {"ehr": 8}
    wrong = program.post(f"{API}/runs/first/approve", json={"digest": "0" * 32})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "HF-509")
    for body in ("{", "{}", '{"digest": 3}', '{"digest": "x", "further": 1}', '{"a": "b"}'):
        said = program.post(f"{API}/runs/first/approve", content=body)
        assert (said.status_code, said.json()["code"]) == (400, "HF-831"), body
    wish = {"digest": told["digest"], "further": True}
    said = program.post(f"{API}/runs/first/approve", json=wish).json()
    assert said == {"run": RUN, "called": "first", "answer": "approved", "further": True}
    assert program.post(f"{API}/runs/none/deny", json=wish).status_code == 404
    told = read(program, f"/runs/{RUN}")
    assert program.post(f"{API}/runs/{RUN}/deny", json={"digest": told["digest"]}).is_success
    assert read(program, "/runs")["runs"][0]["answer"] == "denied"


def test_a_program_pauses_and_resumes_and_its_cookie_is_none(home, page, program):
    assert program.post(f"{API}/pause").json() == {"state": "paused"}
    assert program.post(f"{API}/resume").json() == {"state": "open"}
    client = page.browser()
    (cookie,) = client.cookies.jar
    shown = {"cookie": f"{cookie.name}={cookie.value}"}
    assert page.client().post(f"{API}/pause", headers=shown).status_code == 401
    assert home.state() == "open"


def test_a_program_asks_for_another_link_which_works_once(page, program):
    secret = program.post(f"{API}/links").json()["secret"]
    assert page.browser(secret).get("/").status_code == 200
    assert page.client().post("/sign-in", data={"token": secret}).status_code == 401
    assert page.client().post("/sign-in", data={"token": page.page.token}).status_code == 401


def test_what_left_is_told_a_part_at_a_time(home, program):
    add_lines(home, 5)
    first = read(program, "/left?limit=2&outcome=left")
    assert [line["n"] for line in first["lines"]] == [5, 4]
    second = read(program, f"/left?limit=9&outcome=left&before={first['earlier']}")
    assert [line["n"] for line in second["lines"]] == [3, 2, 1]
    assert read(program, "/left/3")["round"] == "3"
    missing = program.get(f"{API}/left/99")
    assert (missing.status_code, missing.json()["code"]) == (404, "HF-510")


def test_answers_are_as_they_are_described(home, page, program):
    ask(home)
    add_lines(home)
    spend(home)
    connect(home)
    described = read(program, "/openapi.json")
    schemas = described["components"]["schemas"]
    reads = {path: m for path, m in described["paths"].items() if "get" in m}
    assert len(reads) == 10
    for path, methods in reads.items():
        told = program.get(path.replace("{run}", RUN).replace("{number}", "1")).json()
        answer = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert list(misfits(told, answer, schemas, path)) == []
    changes = {path for path, methods in described["paths"].items() if "post" in methods}
    assert {f"{API}/{deed}" for deed in EFFECTS} <= changes
    for path in changes:
        path = path.replace("{run}", RUN)
        assert page.client().post(path).status_code == 401


def test_a_look_is_taken_once_kept_and_taken_again_when_it_is_of_something_else(tmp_path):
    of = {"key": "one"}
    words = ["--version"]
    look = CommandLook("v", lambda: words, tmp_path, lambda: of["key"])
    look.start()
    look.start()
    wait_for(look)
    assert look.as_json()["trouble"].startswith("it ended with 0")
    assert not look.as_json()["running"]
    kept = CommandLook("v", lambda: words, tmp_path, lambda: of["key"])
    assert kept.result == look.result
    of["key"] = "two"
    told = kept.as_json()
    assert (told["current"], told["running"]) == (False, True)
    wait_for(kept)
    assert kept.is_current
    kept.close()
    kept.start()
    assert not kept.is_running
    (tmp_path / "looks" / "v.json").write_text("damaged")
    assert CommandLook("v", lambda: words, tmp_path).result is None


def wait_for(look):
    while look.is_running:
        time.sleep(0.01)


def test_a_look_that_is_at_work_ends_with_the_page(home):
    (home.path / "site.yaml").unlink()
    os.mkfifo(home.path / "site.yaml")  # whoever reads it waits
    look = CommandLook("p", lambda: ["privacy", str(home.policy), "--json"], home.process)
    look.start()
    look.close()
    assert not (home.process / "looks" / "p.json").exists()


def test_the_page_is_served_once_and_gives_another_link_when_asked_again(home, tmp_path):
    words = [sys.executable, "-m", "healthfm_client", "page", "--site", str(home.path)]
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/started\n')
    browser.chmod(0o700)
    about = {**os.environ, "BROWSER": str(browser), "DISPLAY": ":0"}
    with subprocess.Popen(
        [*words, "--port", "0"], stdout=subprocess.PIPE, text=True, env=about
    ) as p:
        try:
            said = [p.stdout.readline() for _ in range(2)]
            link = said[1].strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/sign-in#[\w-]{43}", link)
            again = subprocess.run(
                [*words, "--no-browser"], capture_output=True, text=True, check=True, env=about
            )
            other = again.stdout.splitlines()[1].strip()
            assert other.partition("#")[0] == link.partition("#")[0]
            assert other != link
            started = (tmp_path / "started").read_text().strip()
            opener = home.process / "open-page.html"
            assert started == opener.resolve().as_uri()  # and no secret, which ps would show
            assert link in opener.read_text()
            for name in ("open-page.html", "page.json", "page.lock", "page.log"):
                assert (home.process / name).stat().st_mode & 0o077 == 0, name
            url, _, secret = other.partition("/sign-in#")
            sign_in = httpx.post(f"{url}/sign-in", data={"token": secret}, trust_env=False)
            assert sign_in.status_code == 303
        finally:
            p.send_signal(signal.SIGINT)
            p.wait()
    assert not (home.process / "page.json").exists()
    assert not opener.exists()


def test_a_port_that_is_taken_gives_way_unless_it_was_named(home, monkeypatch):
    with site_page_process.listener(0) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(site_page_process, "PORT", port)
        with site_page_process._listening(None) as other:
            assert other.getsockname()[1] != port
        assert main(["page", "--site", str(home.path), "--port", str(port)]) == 8
    assert not (home.process / "page.json").exists()


def test_a_page_of_somebody_elses_site_is_none(tmp_path):
    assert main(["page", "--site", str(tmp_path)]) == 9


def test_names_of_a_site_that_are_html_show_as_text(tmp_path):
    home = make_site(tmp_path)
    enrolment = home.path / "enrolment.json"
    raw = json.loads(enrolment.read_text())
    enrolment.write_text(json.dumps({**raw, "site": EVIL}))
    ask(home, contract())
    with served_site(home, {"node": EVIL, EVIL: "RUNNING"}) as page:
        text = page.browser().get("/").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
