"""The site's pages without a browser: what they say, and what a coordinator's words cannot do."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from datetime import timedelta
from socket import create_server

import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.__main__ import main
from healthfm_client.page import join_wish
from healthfm_client.page.join_wish import JoinWish
from healthfm_client.runtime import site_control
from healthfm_client.site.site_folder import JoinSettings
from healthfm_core.local_page.page_access import API
from healthfm_core.supervised_start import can_listen
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.request import read_request
from tests.page.made_site import (
    EVIL,
    RUNNING,
    STATED,
    TRICK,
    add_lines,
    ask,
    connect,
    contract,
    kit_for,
    make_site,
    served_site,
    spend,
)
from tests.page.page_client import location
from tests.page.test_page_security import form_secret
from tests.page.test_pages import plain

PAGES = ("/", "/runs", "/left", "/privacy", "/data", "/doctor", "/pause", "/leave", "/join")


@pytest.fixture
def home(tmp_path):
    return make_site(tmp_path)


@pytest.fixture
def page(home):
    with served_site(home, RUNNING) as asking:
        yield asking


def sent(client, path, **fields):
    """Send the form that a page shows."""
    return client.post(path, data={"form": form_secret(client.get(path).text), **fields})


def digest(client, run="0" * 16):
    return re.search(r'name="digest" value="(\w+)"', client.get(f"/runs/{run}").text)[1]


def test_without_the_link_or_the_token_nothing_is_told_and_nothing_done(home, page):
    ask(home)
    nobody = page.client()
    for path in PAGES:
        assert nobody.get(path).status_code in (401, 404)
        assert nobody.get(f"/s/guess{path}").status_code == 401
        assert nobody.post(f"/s/guess{path}", data={}).status_code in (401, 405)
    for path in ("/status", "/runs", "/left", "/privacy", "/doctor", "/openapi.json"):
        assert nobody.get(API + path).status_code == 401
        assert page.bearer("x" * 43).get(API + path).status_code == 401
    for path in ("/pause", "/leave", "/links", f"/runs/{'0' * 16}/approve"):
        assert nobody.post(API + path).status_code == 401
    (asked,) = home.approvals()
    assert (home.state(), asked.answer) == ("open", "waiting")


def test_the_overview_says_whether_the_site_is_connected_and_what_asks(home, page):
    client = page.browser()
    said = plain(client.get("/").text)
    assert "This site is not connected: the study does not answer." in said
    assert "Nothing." in said
    connect(home, since=now_utc() - timedelta(hours=2))
    ask(home)
    page.page.pages.live._known.clear()
    said = plain(client.get("/").text)
    assert "This site is connected to the study." in said
    assert "Run first of the study heart asks since" in said
    assert "nothing has left yet" in said
    assert "clinic: its quality was never checked" in said


def test_a_run_is_told_by_name_and_count_before_it_is_answered(home, page):
    ask(home)
    said = plain(page.browser().get(f"/runs/{'0' * 16}").text)
    for words in STATED.values():
        assert words in said
    assert "clinical records 8 people" in said
    assert "DX 2 DX//A (8), DX//B (8)" in said
    assert "to https://study.example.org:8443" in said
    assert "no count under 3" in said
    assert "4 times the changes of the model after training here" in said
    assert "No noise is added" in said
    assert "training steps 4 (1 a round, of " in said
    assert "asked by this run no ε" in said
    assert "No other run was approved here before." in said


def test_a_run_is_approved_also_for_further_ones_and_denied(home, page):
    ask(home)
    client, run = page.browser(), "0" * 16
    answer = sent(client, f"/runs/{run}", answer="approve", digest=digest(client))
    assert location(client, answer) == f"/runs/{run}"
    (asked,) = home.approvals()
    assert (asked.answer, asked.further) == ("approved", False)
    assert ask(home) == 0
    sent(client, f"/runs/{run}", answer="further", digest=digest(client))
    assert ask(home, contract("1" * 16)) == 0
    assert "Approved by your approval of first" in client.get(f"/runs/{'1' * 16}").text
    sent(client, f"/runs/{run}", answer="deny", digest=digest(client))
    assert ask(home) == 506
    assert ask(home, contract("2" * 16)) == 503
    said = plain(client.get(f"/runs/{'2' * 16}").text)
    assert "Run first, approved on" in said


def test_a_run_that_asks_something_else_by_now_is_not_approved(home, page):
    ask(home)
    client, run = page.browser(), "0" * 16
    read = digest(client)
    ask(home, contract(run, STATED, "federation.rounds=4000"))
    answer = sent(client, f"/runs/{run}", answer="approve", digest=read)
    assert (answer.status_code, "HF-509" in answer.text) == (400, True)
    assert sent(client, f"/runs/{run}", answer="approve").status_code == 400
    (asked,) = home.approvals()
    assert asked.answer == "waiting"


@pytest.mark.parametrize("answer", ["", "yes", "approved"])
def test_an_answer_that_is_none_answers_nothing(home, page, answer):
    ask(home)
    client = page.browser()
    said = sent(client, f"/runs/{'0' * 16}", answer=answer, digest=digest(client))
    assert (said.status_code, "HF-831" in said.text) == (400, True)
    assert client.get("/runs/nothing").status_code == 404
    (asked,) = home.approvals()
    assert asked.answer == "waiting"


@pytest.mark.parametrize("words", [EVIL, TRICK, "'\"><img src=x onerror=alert(1)>"])
def test_a_coordinator_s_words_are_text(home, page, words):
    ask(home, contract("0" * 16, dict.fromkeys(STATED, words)))
    home.log().append("train", {"round": words, "refused": 407, "reason": words, "bytes": 0})
    home.log().append(words, {"run": words, "round": words, "records": {}, "bytes": 0})
    note = {"at": now_utc().isoformat(timespec="seconds"), "reason": words}
    (home.process / "refused.json").write_text(json.dumps(note))
    client = page.browser()
    for path in ("/", "/runs", f"/runs/{'0' * 16}", "/left", "/left/1", "/left/2"):
        text = client.get(path).text
        assert "<script>alert" not in text, path
        assert "<img" not in text, path
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", text), path
    shown = "".join(character for character in words if character.isprintable())
    assert (
        html.escape(shown).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
        in client.get(f"/runs/{'0' * 16}").text
    )


def test_a_run_whose_name_is_none_to_be_typed_is_called_by_its_number(home, capsys):
    for at, name in enumerate(("$(rm -rf ~)", "\x1b[2J", "a b", "../x", "1" * 16, "x" * 64)):
        ask(home, contract(f"{at:016x}", {"run": name}))
    assert [asked.called for asked in home.approvals()] == [f"{at:016x}" for at in range(6)]
    assert main(["requests", "--site", str(home.path)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "approve $(" not in said
    assert main(["approve", "--site", str(home.path), "1" * 16]) != 0  # a name, and no number


def test_terms_that_are_no_terms_do_not_keep_the_page_from_showing(home, page):
    ask(home)
    file = home.state_folder / "runs" / f"{'0' * 16}.json"
    raw = json.loads(file.read_text())
    for facts in ({}, {**raw["facts"], "rounds": "many"}, {**raw["facts"], "leaves": None}):
        file.write_text(json.dumps({**raw, "facts": facts}))
        answer = page.browser().get(f"/runs/{'0' * 16}")
        assert answer.status_code == 200
        assert "Then, 4 times, it sends a model" in answer.text


def test_the_site_is_paused_resumed_and_left_after_a_confirmation(home, page):
    client = page.browser()
    for deed, state in (("pause", "paused"), ("resume", "open"), ("leave", "left")):
        before = home.state()
        assert client.post(f"/{deed}", data={}).status_code == 400
        assert home.state() == before
        assert location(client, sent(client, f"/{deed}")) == "/"
        assert home.state() == state
    page.page.pages.live._known.clear()
    said = plain(client.get("/").text)
    assert "This site has left the study." in said
    assert "Take part again" in said


def test_what_left_is_listed_searched_and_shown_in_full(home, page):
    add_lines(home, 120)
    client = page.browser()
    text = client.get("/left").text
    assert plain(text).count("changes of the model") == 99 + 1  # a kind to choose, and the lines
    (earlier,) = re.findall(r'href="(left\?before=\d+)"', text)
    assert ">20</a>" in client.get(f"/{earlier}").text
    refused = plain(client.get("/left?outcome=refused").text)
    assert "nothing left nobody approved" in refused
    assert "arrays: 1 arrays" not in refused
    said = plain(client.get("/left/7").text)
    assert "Line 7: changes of the model" in said
    assert "arrays backbone/a <f4 4 × 4, 64 bytes abababababababab…" in said
    assert "metrics loss_codes 1.5" in said
    assert "No line is so." in client.get("/left?search=nowhere").text
    assert client.get("/left/9999").status_code == 404
    for wrong in ("since=yesterday", "outcome=maybe", "before=x"):
        assert client.get(f"/left?{wrong}").status_code == 400


def test_a_site_without_a_kit_joins_by_kit_words_and_store(tmp_path, monkeypatch):
    home = make_site(tmp_path, kit=False, joined=False)
    begun = []
    monkeypatch.setattr("healthfm_client.page.site_actions.prepare", lambda home: iter(["ready"]))
    monkeypatch.setattr("healthfm_client.page.site_actions.start", begun.append)
    authority = Authority(tmp_path / "authority")
    kit, store = b64encode(kit_for(home, authority)).decode(), tmp_path / "stores" / "clinic"
    with served_site(home, {}) as page:
        client = page.browser()
        said = client.get("/").text
        assert "This site has made its request and has no kit yet." in said
        assert read_words(home) in said
        asked = client.get("/join").text
        assert str(store) in asked
        assert authority.words not in asked
        wrong = " ".join(["zoo"] * 10)
        for fields, code in (
            ({"kit": kit, "words": wrong, "stores": str(store)}, "HF-809"),
            ({"kit": kit, "words": "", "stores": str(store)}, "HF-809"),
            ({"kit": "", "words": authority.words, "stores": str(store)}, "HF-806"),
            ({"kit": "%%%", "words": authority.words, "stores": str(store)}, "HF-806"),
            ({"kit": kit, "words": authority.words}, "HF-103"),
            ({"kit": kit, "words": authority.words, "other": str(tmp_path)}, "HF-2"),
        ):
            answer = sent(client, "/join", **fields)
            assert (answer.status_code, code in answer.text) == (400, True), fields
            assert authority.words not in answer.text.replace(f'value="{authority.words}"', "")
            assert not home.has_kit()
            assert not home.settings_file.exists()
        answer = sent(client, "/join", kit=kit, words=authority.words, stores=str(store))
        assert location(client, answer) == "/"
    assert [one.path for one in begun] == [home.path]
    assert home.kit().study == "heart"
    assert [one.path for one in home.settings().stores] == [store]


def test_a_site_that_joins_beside_another_takes_a_port_that_is_free(tmp_path, monkeypatch):
    home = make_site(tmp_path, kit=False, joined=False)
    authority = Authority(tmp_path / "authority")
    wish = JoinWish(kit_for(home, authority), authority.words, (tmp_path / "stores" / "clinic",))
    monkeypatch.setattr(join_wish, "can_listen", lambda host, port: False)
    wish.take_in(home)
    port = home.settings().port
    assert port != JoinSettings.model_fields["port"].default
    with create_server(("127.0.0.1", port)):
        assert not can_listen("127.0.0.1", port)
    assert can_listen("127.0.0.1", port)


def test_what_nobody_foresaw_is_a_sentence_and_not_a_blank_page(capfd, home, page, monkeypatch):
    def broken(home):
        raise KeyError("a slip")

    client = page.browser()
    monkeypatch.setattr("healthfm_client.page.site_actions.leave", broken)
    answer = sent(client, "/leave")
    assert answer.status_code == 500
    assert "Something went wrong that nobody foresaw." in answer.text
    assert "a slip" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    told = page.bearer(page.page.token).post("/api/v1/leave", json={})
    assert (told.status_code, "nobody foresaw" in told.json()["error"]) == (500, True)
    assert "a slip" in capfd.readouterr().err


def read_words(home):
    return read_request(home.request.read_bytes()).words


def test_slow_facts_come_from_the_commands_and_are_told_when_they_are_there(home, page):
    add_lines(home)
    spend(home)
    client = page.browser()
    with client.stream("GET", "/live/left") as stream:
        wait_for_text(stream, "4 lines, none changed or taken out")
    with client.stream("GET", "/live/privacy") as stream:
        said = wait_for_text(stream, "lines of the ledger verified")
    assert "of 30 is left" in said
    assert "run-1" in said
    assert "2020-03-01" in said
    lines = home.log().path.read_bytes().replace(b'"bytes":73', b'"bytes":74', 1)
    home.log().path.write_bytes(lines)
    assert location(client, sent_look(client, "/left")) == "/left"
    with client.stream("GET", "/live/left") as stream:
        wait_for_text(stream, "The log is not as it was written")
    assert (home.process / "looks" / "log.json").stat().st_mode & 0o777 == 0o600


def sent_look(client, path):
    return client.post(path, data={"form": form_secret(client.get(path).text)})


def wait_for_text(stream, text):
    """Return what a person reads of the first event that has a text."""
    for line in stream.iter_lines():
        if line.startswith("data: "):
            said = plain(f"<main>{json.loads(line[6:])['html']}")
            if text in said:
                return said
    raise AssertionError(f"the stream ended without {text!r}")


def test_leaving_by_the_page_stops_the_processes_as_the_command_does(home, monkeypatch):
    stopped = []

    class Supervisor:
        config = home.policy

        def runs(self):
            return True

        def stop(self):
            stopped.append(home.state())

    monkeypatch.setattr(site_control, "supervision", lambda home: Supervisor())
    with served_site(home, RUNNING) as page:
        sent(page.browser(), "/leave")
    assert stopped == ["left"]
