"""The pages without a browser: what they say, to whom, and that names stay text."""

from __future__ import annotations

import html
import json
import re
import threading

import pytest

from healthfm_core.local_page.live_updates import LivePages
from healthfm_core.local_page.page_access import API
from healthfm_server.page.curves import MOST_LINES, MOST_POINTS, curves_of
from healthfm_server.page.matrix import WINDOW
from healthfm_server.page.round_cells import SiteState
from healthfm_server.page.run_history import RunHistory
from tests.page.made_study import (
    EVIL,
    NODES,
    add_round,
    make_study,
    order_run,
    served_page,
    set_online,
    wait_for,
)
from tests.page.test_study_api import running

EVERYBODY = sorted(NODES.values())


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


@pytest.fixture
def page(study):
    with served_page(study) as asking:
        asking.page.view.processes = running
        yield asking


def plain(text):
    """Return what a person reads, with single spaces."""
    body = text.partition("<main")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def cells(text, site):
    """Return what the matrix says of a site, round by round."""
    row = re.search(
        rf'<tr id="row-\d+"[^>]*><th[^>]*>{re.escape(site)}\b.*?</th>(.*?)</tr>', text, re.S
    )
    marks = re.findall(r"<td.*?</td>", row[1], re.S)
    return [" ".join(re.sub(r"<[^>]+>", " ", mark).split()) for mark in marks]


def test_a_run_shows_who_did_what_in_each_round_and_who_is_waited_for(study, page):
    order = order_run(study)
    add_round(order, 1, late=["west"])
    add_round(order, 2, refused=["south"])
    wait_for(order, "answers", "3", [NODES["south"], NODES["west"]], EVERYBODY)
    set_online(study, connected=["north", "south"], taken=["south"])
    text = page.browser().get("/runs/first").text
    assert cells(text, "north") == [
        "✓ answered: after 3 s",
        "✓ answered: after 3 s",
        "✓ answered",
    ]
    assert cells(text, "south") == [
        "✓ answered: after 4 s",
        "✕ refused: its update is not finite",
        "▸ computing",
    ]
    assert cells(text, "west") == [
        "◷ late: it did not answer in time",
        "✓ answered: after 4 s",
        "! offline",
    ]
    said = plain(text)
    assert "running 2 of 5 rounds" in said
    assert "round 3: 1 of 3 sites answered" in said
    assert "AUROC on tuning people: 0.51 in round 1, 0.52 in round 2" in text


def test_a_site_whose_name_is_a_script_shows_as_text(tmp_path):
    study = make_study(tmp_path / "study", {EVIL: 7, "south": 2**63 + 5})
    order = order_run(study)
    add_round(order, 1, asked=(EVIL, "south"), late=[EVIL], alarms=[f"{EVIL}: 3"])
    store = add_round(order, 2, asked=(EVIL, "south"))
    store.note("set aside", round=2, site=EVIL, reason=EVIL)
    study.audit("test").note(EVIL, {"site": EVIL, EVIL: EVIL})
    (study.path / "requests").mkdir()
    (study.path / "requests" / f"{EVIL.replace('/', '')}.zip").write_bytes(b"")
    wait_for(order, "answers", "3", [7], [7, 2**63 + 5])
    with served_page(study) as page:
        page.page.view.processes = running
        client = page.browser()
        for path in ("/", "/runs/first", "/log"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "<script>" not in answer.text
            assert html.escape(EVIL) in answer.text, path
        missing = client.get(f"/runs/{EVIL.replace('/', '%2F')}")
        assert (missing.status_code, "<script>" in missing.text) == (404, False)
        told = page.bearer(study.tokens.add("ada", "viewer")).get(f"{API}/runs/first")
        events = json.dumps(told.json())
        assert EVIL in json.loads(events)["waits_for"]["sites"]


def test_what_may_be_changed_is_offered_to_the_coordinator_alone(study, page):
    add_round(order_run(study), 1)
    viewer = page.browser(study.tokens.add("ada", "viewer"))
    own = page.browser()
    for path, offered in (("/", "/revoke"), ("/runs/first", "/pause"), ("/", '"launch"')):
        assert offered in own.get(path).text
        assert offered not in viewer.get(path).text


def test_many_rounds_are_shown_a_window_at_a_time(study, page):
    order = order_run(study, rounds=100)
    for number in range(1, WINDOW + 4):
        add_round(order, number)
    client = page.browser()
    newest = client.get("/runs/first").text
    assert len(cells(newest, "north")) == WINDOW
    (earlier,) = re.findall(r'href="(runs/first\?until=3)"', newest)
    first = client.get(f"/{earlier}").text
    assert len(cells(first, "north")) == 3
    assert f"until={WINDOW + 3}" in first


def test_a_page_without_runs_and_sites_says_so(tmp_path):
    study = make_study(tmp_path / "study", {})
    with served_page(study) as page:
        said = plain(page.browser().get("/").text)
    assert "No run has been ordered yet." in said
    assert "No site has been admitted yet." in said
    assert "The study is down." in said


def test_a_change_is_sent_and_what_did_not_change_is_not(study, page):
    order = order_run(study)
    add_round(order, 1)
    client = page.browser()
    with client.stream("GET", "/runs/first/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        first = {}
        while "run-events" not in first:
            part = json.loads(next(lines)[6:])
            first[part["id"]] = part
        assert {"said", "run-state", "row-0", "row-1", "row-2"} <= set(first)
        RunHistory(order.folder).look()
        add_round(order, 2, late=["south"])
        part = json.loads(next(lines)[6:])
        assert part["id"] == "run-state"
        assert "2 of 5 rounds" in plain(f"<main>{part['html']}")
        rows = []
        while len(rows) < 3:
            part = json.loads(next(lines)[6:])
            rows += [part["html"]] if part["id"].startswith("row-") else []
        assert ["late" in row for row in rows] == [False, True, False]


def test_a_stream_ends_when_its_session_does(study, page):
    order_run(study)
    client = page.browser(study.tokens.add("ada", "viewer"))
    with client.stream("GET", "/live") as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        study.tokens.revoke("ada")
        assert "event: over" in list(lines)
    assert page.page.views.live.streams == 0


def test_however_many_look_a_page_is_rendered_once_in_a_second():
    live, rendered = LivePages(), []

    def render():
        rendered.append(1)
        return {"a": "b"}

    threads = [threading.Thread(target=live.parts, args=("key", render)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rendered) == 1
    live.parts("another", render)
    assert len(rendered) == 2


def test_a_history_is_read_once_and_keeps_a_byte_a_cell(study):
    order = order_run(study)
    for number in range(1, 4):
        add_round(order, number, late=["west"] if number == 2 else ())
    history = RunHistory(order.folder)
    history.look()
    assert [history.cell(at, "west") for at in range(3)] == [
        SiteState.ANSWERED,
        SiteState.LATE,
        SiteState.ANSWERED,
    ]
    assert history.share_answered("west") == (2, 3)
    assert history.share_answered("nobody") == (0, 0)
    version = history.version
    history.look()
    assert history.version == version
    with (order.folder / "history.jsonl").open("a") as file:
        file.write('{"round": 4, "seco')
    history.look()
    assert (history.rounds, history.version) == ([1, 2, 3], version)
    with (order.folder / "history.jsonl").open("a") as file:
        file.write('nds": 1.0, "asked": ["new"]}\n')
    history.look()
    assert history.rounds == [1, 2, 3, 4]
    assert history.cell(3, "new") == SiteState.LATE
    assert history.cell(0, "new") == SiteState.NOT_ASKED


def test_the_range_of_many_sites_is_drawn_where_a_round_is_shown(study):
    order, sites = order_run(study, rounds=1000), [f"site-{n}" for n in range(MOST_LINES + 1)]
    for number in range(1, 2 * MOST_POINTS + 2):
        add_round(order, number, asked=tuple(sites))
    history = RunHistory(order.folder)
    history.look()
    (curve,) = (one for one in curves_of(history) if one.name == "tuning_auroc")
    points = [tuple(map(float, pair.split(","))) for pair in curve.band.split()]
    assert len(points) == 2 * len(curve.mean.split())
    there, back = points[: len(points) // 2], points[len(points) // 2 :]
    assert [x for x, _ in there] == [x for x, _ in reversed(back)]
    assert there[-1][0] == float(curve.mean.split()[-1].split(",")[0])
    assert curve.sites == ()


def test_the_matrix_says_what_each_site_brings_and_how_many_moved_each_modality(study, page):
    order = order_run(study)
    add_round(order, 1)
    add_round(order, 2, late=["west"])
    said = page.browser().get("/runs/first").text
    assert re.search(r'class="name">north <span class="faint">[^<]*ehr', said)
    moved = said.partition('id="matrix-moved"')[2].partition("</tbody>")[0]
    assert re.findall(r"</span> (\w+)</th>", moved) == ["ehr"], "a modality, and no other group"
    assert re.findall(r"<td>(\d+)</td>", moved) == ["3", "2"]
