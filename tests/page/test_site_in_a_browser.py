"""The site's page in a real Chromium: live, by keyboard, without a request to anywhere else."""

from __future__ import annotations

from itertools import product
from urllib.parse import urlsplit

import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_core.trust.authority import Authority
from tests.page.browser import DESK, PHONE, browser
from tests.page.made_site import (
    RUNNING,
    add_lines,
    ask,
    connect,
    contract,
    kit_for,
    make_site,
    served_site,
    spend,
)

RUN = f"/runs/{'0' * 16}"
PAGES = ("/", "/runs", RUN, "/left", "/left/1", "/privacy", "/data", "/doctor", "/leave", "/join")


@pytest.fixture
def home(tmp_path):
    made = make_site(tmp_path)
    ask(made)
    add_lines(made)
    spend(made)
    connect(made)
    return made


@pytest.fixture
def seen(home):
    """A browser that opened the page by its one-time link, and where it is."""
    with served_site(home, RUNNING) as page, browser() as window:
        window.look_like(DESK)
        window.open(f"{page.url}/sign-in#{page.page.sessions.link_secret()}")
        window.until(lambda: window.text("h1") == "north")
        yield window, page.url + window.run("return location.pathname").rstrip("/")


def test_a_run_that_asks_shows_by_itself_and_is_approved_by_keyboard(home, seen):
    window, url = seen
    assert "This site is connected to the study." in window.text()
    ask(home, contract("1" * 16, {"run": "second"}))
    window.until_text("Run second of the study heart asks")
    assert "Run second asks for approval" in window.run(
        "return document.querySelector('#said').textContent"
    )
    window.open(f"{url}/runs/{'1' * 16}")

    def reach(word):
        for _ in range(60):
            window.press("tab")
            if window.run("return document.activeElement.innerText.trim()") == word:
                window.press("enter")
                return
        raise AssertionError(f"{word} is not reached")

    reach("Approve this run")
    window.until_text("approved", ".headline")
    answers = {asked.called: asked.answer for asked in home.approvals()}
    assert answers == {"first": "waiting", "second": "approved"}


def test_nothing_is_asked_of_anywhere_but_the_page_itself(seen):
    window, url = seen
    for path in PAGES:
        window.open(url + path)
        window.until(lambda: window.run("return document.readyState") == "complete")
    asked = {urlsplit(address).netloc for address in window.requested()}
    assert asked == {urlsplit(url).netloc}
    assert window.complaints() == []


def test_a_kit_is_chosen_in_the_browser_and_goes_with_the_form(tmp_path, monkeypatch):
    home = make_site(tmp_path, kit=False, joined=False)
    monkeypatch.setattr("healthfm_client.page.site_actions.prepare", lambda home: iter([]))
    monkeypatch.setattr("healthfm_client.page.site_actions.start", lambda home: None)
    authority = Authority(tmp_path / "authority")
    kit = tmp_path / "north-kit.zip"
    kit.write_bytes(kit_for(home, authority))
    with served_site(home, {}) as page, browser() as window:
        window.open(f"{page.url}/sign-in#{page.page.sessions.link_secret()}")
        window.until_text("Take the kit in and join")
        window.click_link("Take the kit in and join")
        window.until(lambda: window.text("h1") == "Join the study")
        window.write("#kit-file", str(kit))
        window.write("#words", authority.words)
        window.click("form:not(.out) button")
        window.until(home.has_kit)
        window.until(lambda: window.text("h1") == "north")
    assert home.kit().study == "heart"
    assert home.settings().stores[0].path == tmp_path / "stores" / "clinic"


def test_no_page_is_wider_than_the_window_nor_hard_to_read(seen):
    window, url = seen
    for path in PAGES:
        window.open(url + path)
        window.until(lambda: window.run("return document.readyState") == "complete")
        for size, dark in product((PHONE, DESK), (False, True)):
            window.look_like(size, dark)
            wide = window.run("return document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (path, size)
            assert window.hard_to_read() == [], (path, size, dark)
