"""The page in a real Chromium: live, by keyboard, without a request to anywhere else."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest

from healthfm_server.deploy.run_orders import RunOrder
from tests.page.browser import DESK, PHONE, browser
from tests.page.made_study import (
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
LOOKED_AT = ("/", "/runs/first", "/models", "/log")
PAGES = (*LOOKED_AT, "/launch", "/runs/first/stop", "/sites/north/revoke")


@pytest.fixture
def study(tmp_path):
    made = make_study(tmp_path / "study")
    order = order_run(made)
    for number in (1, 2, 3):
        add_round(order, number, late=["west"] if number == 2 else (), alarms=["Something: 3"])
    wait_for(order, "answers", "4", EVERYBODY, EVERYBODY)
    set_online(made, connected=NODES, taken=NODES)
    return made


@pytest.fixture
def seen(study):
    """A browser that signed in by the one-time link, and the page it shows."""
    with served_page(study) as page, browser() as window:
        page.page.view.processes = running
        window.look_like(DESK)
        window.open(f"{page.url}/sign-in#{page.page.sessions.link_secret()}")
        window.until(lambda: window.text("h1") == "demo")
        yield window, page.url + window.run("return location.pathname").rstrip("/")


def test_a_site_that_does_not_call_any_more_and_a_round_that_ends_show_by_themselves(study, seen):
    window, url = seen
    window.open(f"{url}/runs/first")
    window.until(lambda: "computing" in window.text("#row-2"))
    set_online(study, connected=["north", "south"], taken=NODES)  # as the gateway writes it
    window.until(lambda: "offline" in window.text("#row-2"))
    assert "west is offline" in window.text("#said")
    add_round(RunOrder.find(study.runs, "first"), 4, late=["west"])
    window.until(lambda: "4 of 5 rounds" in window.text("#run-state"))


def test_nothing_is_asked_of_anywhere_but_the_page_itself(seen):
    window, url = seen
    for path in PAGES:
        window.open(url + path)
        window.until(lambda: window.run("return document.readyState") == "complete")
    asked = {urlsplit(address).netloc for address in window.requested()}
    assert asked == {urlsplit(url).netloc}
    assert window.complaints() == []
    assert "#" not in window.run("return location.href")


def test_another_program_of_this_machine_is_not_sent_the_cookie_of_who_visits_it(seen):
    window, url = seen
    heard = []

    class Hostile(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append((self.path, self.headers.get("cookie"), self.headers.get("referer")))
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>hostile</title><img src='/s/guess/'><img src='/inner'>")

        def log_message(self, *about):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as other:
        thread = Thread(target=other.serve_forever)
        thread.start()
        window.run(f"location = 'http://127.0.0.1:{other.server_port}/'")
        window.until(lambda: {"/", "/inner", "/s/guess/"} <= {path for path, *_ in heard})
        other.shutdown()
        thread.join()
    assert {cookie for _, cookie, _ in heard} == {None}
    assert {referer for path, _, referer in heard if path == "/"} == {None}
    window.open(f"{url}/log")
    assert window.text("h1") == "Log"


def test_a_run_is_stopped_with_the_keyboard_alone(study, seen):
    window, url = seen
    window.open(f"{url}/runs/first")

    def reach(word):
        for _ in range(40):
            window.press("tab")
            if window.run("return document.activeElement.innerText.trim()") == word:
                window.press("enter")
                return
        raise AssertionError(f"{word} is not reached")

    reach("Stop")
    window.until(lambda: window.text("h1") == "Stop run first?")
    reach("Stop")
    window.until(lambda: RunOrder.find(study.runs, "first").wanted == "stopped")


@pytest.mark.parametrize("size", [PHONE, (360, 780), DESK], ids=["phone", "small", "desk"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_page_is_wider_than_the_window_nor_hard_to_read(seen, size, dark):
    window, url = seen
    window.look_like(size, dark)
    for path in PAGES:
        window.open(url + path)
        window.until(lambda: window.run("return document.readyState") == "complete")
        wide = window.run("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, path
        assert window.hard_to_read() == [], path
