"""A run's report on the page and in the API: made by the command, for who may look."""

from __future__ import annotations

import json
import threading
import time

import pytest

from healthfm_core.local_page.page_access import API
from healthfm_server.page import report_pages
from tests.page.made_study import add_round, make_study, order_run, served_page


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


@pytest.fixture
def page(study):
    with served_page(study) as asking:
        yield asking


def test_the_report_may_load_nothing_and_run_no_script_and_roles_hold(study, page):
    order = order_run(study)
    add_round(order, 1)
    viewer = page.bearer(study.tokens.add("ada", "viewer"))
    eve, api = study.tokens.add("eve", "enrolment"), f"{API}/runs/first/report"
    looking = page.browser(study.tokens.add("bob", "viewer"))
    assert page.client().get(api).status_code == 401
    assert page.bearer(eve).get(api).status_code == 403
    assert page.browser(eve).get("runs/first/report").status_code == 403
    told = looking.get("runs/first/report")
    assert "This run goes on: 3 sites, 1 of 5 rounds so far." in told.text
    policy = told.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert "script-src" not in policy
    assert "<script" not in told.text
    values = viewer.get(f"{API}/runs/first/report").json()
    assert values["metrics"]["tuning_auroc"] == pytest.approx(0.51)
    page.page.reports._made.clear()  # the pause between two reports is over
    add_round(order, 2)
    end = time.monotonic() + 600
    while viewer.get(f"{API}/runs/first/report").json()["metrics"]["tuning_auroc"] < 0.515:
        assert time.monotonic() < end, "it is answered as it was, and made anew meanwhile"
        time.sleep(0.1)
    assert 'href="runs/first/report"' in looking.get("runs/first").text


def test_a_report_that_cannot_be_made_is_said_with_its_reason(study, page, monkeypatch):
    order = order_run(study)
    add_round(order, 1)
    (order.folder / "study.json").write_text("{")
    viewer = page.bearer(study.tokens.add("ada", "viewer"))
    told = viewer.get(f"{API}/runs/first/report")
    assert (told.status_code, told.json()["code"]) == (400, "HF-729")
    assert "HF-404" in told.json()["error"]


def test_a_page_that_ends_leaves_no_process_behind(study, monkeypatch):
    add_round(order_run(study), 1)
    began, made = [], report_pages.asyncio.create_subprocess_exec

    async def slow(*command, **options):
        sleep = (command[0], "-c", "import time; time.sleep(600)")
        began.append(await made(*sleep, **options))
        return began[-1]

    monkeypatch.setattr(report_pages.asyncio, "create_subprocess_exec", slow)
    with served_page(study) as page:
        viewer = page.bearer(study.tokens.add("ada", "viewer"))
        asked = threading.Thread(target=lambda: _quietly(viewer), daemon=True)
        asked.start()
        end = time.monotonic() + 600
        while not began:
            assert time.monotonic() < end
            time.sleep(0.05)
    asked.join()
    assert began[0].returncode is not None
    assert json.loads((study.runs / "first" / "order.json").read_text())["wanted"] == "running"


def _quietly(client):
    """Ask, whatever the answer: the server ends meanwhile."""
    try:
        client.get(f"{API}/runs/first/report")
    except Exception:
        return
