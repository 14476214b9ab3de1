"""What may be changed from the page and the API: by whom, confirmed, and as the commands do it."""

from __future__ import annotations

import zipfile

import pytest

from healthfm_core.local_page.page_access import API
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import SiteKeys
from healthfm_server.__main__ import main
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.page.openapi import description
from healthfm_server.study_setup.connected_nodes import wait_for_nodes
from tests.deploy.serving import Site
from tests.page.made_study import make_study, order_run, served_page
from tests.page.page_client import location
from tests.page.test_page_security import form_secret


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


@pytest.fixture
def page(study):
    with served_page(study) as asking:
        yield asking


def noted(study, event):
    """Return who did it to what, of the newest line of the audit log."""
    row = study.audit("test").rows(event)[-1]
    return {key: row[key] for key in ("run", "site", "sites", "by") if key in row}


def sent(client, path, **fields):
    """Send the form that a page shows."""
    return client.post(path, data={"form": form_secret(client.get(path).text), **fields})


def test_a_run_is_paused_resumed_and_stopped_by_a_form_that_asks_first(study, page):
    order = order_run(study)
    client = page.browser()
    for action, wanted in (("pause", "paused"), ("resume", "running"), ("stop", "stopped")):
        assert f"{action.capitalize()} run first?" in client.get(f"/runs/first/{action}").text
        before = order.wanted
        assert client.post(f"/runs/first/{action}", data={}).status_code == 400
        assert order.wanted == before
        answer = sent(client, f"/runs/first/{action}")
        assert location(client, answer) == "/runs/first"
        assert order.wanted == wanted
        assert noted(study, f"run {action}") == {"run": "first", "by": "this-machine"}


def test_a_run_is_ordered_for_the_sites_that_were_chosen(study, page):
    client = page.browser()
    settings = "model=tiny\nfederation.rounds=3\n"
    answer = sent(client, "/launch", name="mine", settings=settings, sites=["south", "north"])
    assert location(client, answer) == "/runs/mine"
    order = RunOrder.find(study.runs, "mine")
    assert (order.sites, order.nodes) == (("north", "south"), None)
    assert order.config().federation.rounds == 3
    details = {"run": "mine", "sites": ["north", "south"], "by": "this-machine"}
    assert noted(study, "run ordered") == details


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"settings": "federation.round=3"}, "HF-101"),
        ({"settings": "seed=${oc.env:HOME}"}, "HF-831"),
        ({"settings": "mine/study.yaml"}, "HF-831"),
        ({"name": "../outside"}, "HF-810"),
        ({"name": "first"}, "HF-704"),
        ({"sites": "nobody"}, "HF-811"),
        ({"sites": "west"}, "HF-833"),
    ],
)
def test_what_cannot_be_ordered_is_said_and_what_was_written_stays(study, page, fields, code):
    order_run(study)
    study.sites.revoke("west")
    answer = sent(page.browser(), "/launch", **fields)
    assert (answer.status_code, code in answer.text) == (400, True)
    assert [order.name for order in RunOrder.all(study.runs)] == ["first"]
    if "settings" in fields:
        assert fields["settings"] in answer.text


def test_a_program_orders_and_changes_runs_with_a_coordinator_s_token_alone(study, page):
    grace = page.bearer(study.tokens.add("grace", "coordinator"))
    ada = page.bearer(study.tokens.add("ada", "viewer"))
    wish = {"name": "mine", "settings": ["model=tiny"], "sites": ["north"]}
    assert ada.post(f"{API}/runs", json=wish).status_code == 403
    assert page.client().post(f"{API}/runs", json=wish).status_code == 401
    (cookie,) = page.browser().cookies.jar
    shown = {"cookie": f"{cookie.name}={cookie.value}"}  # a cookie is no token
    assert page.client().post(f"{API}/runs", json=wish, headers=shown).status_code == 401
    assert grace.post(f"{API}/runs", json=wish).json() == {"run": "mine", "wanted": "running"}
    assert noted(study, "run ordered")["by"] == "grace"
    assert grace.post(f"{API}/runs/mine/pause").json() == {"run": "mine", "wanted": "paused"}
    assert grace.post(f"{API}/runs/none/pause").status_code == 404
    for wrong in ("{", "[]", '{"nodes": 3}', '{"sites": "north"}', '{"sites": [1]}'):
        answer = grace.post(f"{API}/runs", content=wrong)
        assert (answer.status_code, answer.json()["code"]) == (400, "HF-831"), wrong


def test_every_change_is_refused_to_a_viewer_and_described(study, page):
    order_run(study)
    ada = page.bearer(study.tokens.add("ada", "viewer"))
    browser = page.browser(study.tokens.add("eve", "viewer"))
    changes = [path for path, methods in description()["paths"].items() if "post" in methods]
    assert len(changes) == 8
    for path in changes:
        assert ada.post(path.replace("{name}", "first")).status_code == 403
    for path in ("/launch", "/runs/first/stop", "/sites/north/revoke", "/requests/a.zip"):
        assert browser.get(path).status_code == 403
        assert browser.post(path, data={}).status_code == 403
    assert browser.get("/kits/north").status_code == 403
    assert RunOrder.find(study.runs, "first").wanted == "running"


def test_a_site_is_shut_out_after_a_confirmation(tmp_path, study, page):
    Site(study, tmp_path / "east", "east")
    client = page.browser()
    assert "Revoke site east?" in client.get("/sites/east/revoke").text
    assert client.get("/sites/nobody/revoke").status_code == 404
    assert not study.sites.site("east").revoked
    assert sent(client, "/sites/east/revoke").status_code == 303
    assert study.sites.site("east").revoked
    assert noted(study, "site revoked") == {"site": "east", "by": "this-machine"}


def test_a_site_is_admitted_by_the_ten_words_that_it_reads(tmp_path, study, page):
    keys = SiteKeys.create(tmp_path / "keys")
    (study.path / "requests").mkdir()
    waiting = study.path / "requests" / "east-1.zip"
    waiting.write_bytes(make_request(keys, "east", study.settings.url, ["ehr"]))
    client = page.browser()
    assert 'href="requests/east-1.zip"' in client.get("/").text
    asked = client.get("/requests/east-1.zip").text
    words = read_request(waiting.read_bytes()).words
    assert "Admit east?" in asked
    assert words not in asked  # whoever does not telephone cannot copy them
    wrong = sent(client, "/requests/east-1.zip", name="east", words=" ".join(["zoo"] * 10))
    assert (wrong.status_code, "HF-809" in wrong.text) == (400, True)
    assert words not in wrong.text
    assert "east" not in study.sites.sites()
    done = sent(client, "/requests/east-1.zip", name="east", words=words, most_subjects="40")
    assert (done.status_code, study.authority().words in done.text) == (200, True)
    assert study.sites.site("east").most_subjects == 40
    assert not waiting.exists()
    assert client.get("/kits/east").content[:2] == b"PK"
    assert client.get("/kits/nobody").status_code == 404
    assert client.get("/requests/east-1.zip").status_code == 400


def test_a_program_admits_a_site_by_the_words_that_somebody_heard(tmp_path, study, page):
    keys = SiteKeys.create(tmp_path / "keys")
    (study.path / "requests").mkdir()
    waiting = study.path / "requests" / "east-1.zip"
    waiting.write_bytes(make_request(keys, "east", study.settings.url, ["ehr"]))
    words = read_request(waiting.read_bytes()).words
    client = page.bearer(study.tokens.add("eve", "coordinator"))
    path = f"{API}/requests/east-1.zip/admit"
    wrong = client.post(path, json={"name": "east", "words": " ".join(["zoo"] * 10)})
    assert (wrong.status_code, wrong.json()["code"], words in wrong.text) == (400, "HF-809", False)
    for fields in ({"name": "east"}, {"name": "east", "words": words, "most_subjects": True}):
        refused = client.post(path, json=fields)
        assert (refused.status_code, refused.json()["code"]) == (400, "HF-831")
    few = client.post(path, json={"name": "east", "words": words, "most_subjects": 0})
    assert (few.status_code, few.json()["code"]) == (400, "HF-831")
    viewer = page.bearer(study.tokens.add("ada", "viewer"))
    assert viewer.post(path, json={"name": "east", "words": words}).status_code == 403
    assert "east" not in study.sites.sites()
    done = client.post(path, json={"name": "east", "words": words, "most_subjects": 40})
    assert (done.status_code, done.json()["state"]) == (201, "admitted")
    assert study.sites.site("east").most_subjects == 40
    assert noted(study, "site admitted") == {"site": "east", "by": "eve"}
    assert zipfile.is_zipfile(done.json()["kit"])


def test_the_command_takes_sites_by_name(study, capsys):
    words = ["run", "--study", str(study.path), "--name", "mine", "--sites", "north,south"]
    assert main([*words, "model=tiny"]) == 0
    assert "run mine is ordered for north, south" in capsys.readouterr().out
    assert RunOrder.find(study.runs, "mine").sites == ("north", "south")
    words[words.index("mine")] = "other"
    words[-1] = "north,nobody"
    assert main(words) != 0
    assert "HF-811" in capsys.readouterr().err
    assert len(list(RunOrder.all(study.runs))) == 1


def test_a_run_for_some_nodes_begins_without_the_others(study, tmp_path):
    config = order_run(study).config().federation

    class Grid:
        def get_node_ids(self):
            return [7, 11, 13]

    found = wait_for_nodes(Grid(), 2, config, 60.0, lambda: False, tmp_path, frozenset({7, 13}))
    assert found == [7, 13]
