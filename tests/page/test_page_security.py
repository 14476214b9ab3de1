"""The page on loopback: who gets in, and what a hostile page or site cannot do."""

from __future__ import annotations

import json
import re

import pytest

from healthfm_core.local_page.page_access import API
from healthfm_core.local_page.page_sessions import LINK_S, LONGEST_S
from tests.page.made_study import make_study, order_run, served_page


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


@pytest.fixture
def page(study):
    with served_page(study) as asking:
        yield asking


def form_secret(text):
    return re.search(r'name="form" value="([^"]+)"', text)[1]


def test_a_link_signs_in_once_and_gives_a_cookie_that_no_script_reads(page):
    client, secret = page.client(), page.page.sessions.link_secret()
    assert client.get("/").status_code == 401
    answer = client.post("/sign-in", data={"token": secret})
    root = answer.headers["location"]
    assert (answer.status_code, len(root)) == (303, len("/s/") + 22 + len("/"))
    cookie = answer.headers["set-cookie"]
    assert f"Path={root};" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert secret not in cookie
    assert client.get(root).status_code == 200
    assert page.client().post("/sign-in", data={"token": secret}).status_code == 401


def test_a_link_that_nobody_opened_ends(page):
    secret = page.page.sessions.link_secret()
    later = page.page.sessions.clock() + LINK_S
    page.page.sessions.clock = lambda: later
    assert page.client().post("/sign-in", data={"token": secret}).status_code == 401


def test_a_session_ends_after_a_day_when_signed_out_and_with_its_token(study, page):
    token = study.tokens.add("ada", "viewer")
    first, second, third = (page.browser(token) for _ in range(3))
    text = first.get("/").text
    assert first.post("/sign-out", data={"form": form_secret(text)}).status_code == 303
    assert first.get("/").status_code == 401
    assert second.get("/").status_code == 200
    study.tokens.revoke("ada")
    assert second.get("/").status_code == 401
    study.tokens.add("ada", "coordinator")
    assert third.get("/").status_code == 401  # another token of the same name
    fourth = page.browser()
    later = page.page.sessions.clock() + LONGEST_S
    page.page.sessions.clock = lambda: later
    assert fourth.get("/").status_code == 401


def test_a_token_that_may_not_look_signs_in_to_nothing(study, page):
    client = page.browser(study.tokens.add("eve", "enrolment"))
    assert client.get("/").status_code == 403


def test_by_another_host_s_name_nothing_is_answered(study, page):
    token = study.tokens.add("ada", "viewer")
    client = page.browser(token)
    for host in ("evil.example:8765", "127.0.0.1.evil.example", "x@127.0.0.1", "[::1", ""):
        assert client.get("/", headers={"host": host}).status_code == 421, host
        headers = {"host": host, "authorization": f"Bearer {token}"}
        assert page.client().get(f"{API}/status", headers=headers).status_code == 421
    for host in ("localhost:1", "127.0.0.1", "[::1]:9"):
        headers = {"host": host, "authorization": f"Bearer {token}"}
        assert page.client().get(f"{API}/status", headers=headers).status_code == 200


def test_a_form_of_another_page_changes_nothing(study, page):
    client = page.browser()
    own = form_secret(client.get("/").text)
    other = form_secret(page.browser().get("/").text)
    assert own != other
    for sent in ({}, {"form": ""}, {"form": other}):
        answer = client.post("/sign-out", data=sent)
        assert (answer.status_code, "HF-832" in answer.text) == (400, True)
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        answer = client.post("/sign-out", data={"form": own}, headers=headers)
        assert answer.status_code == 403, headers
    assert client.get("/").status_code == 200
    headers = {"origin": page.url, "sec-fetch-site": "same-origin"}
    assert client.post("/sign-out", data={"form": own}, headers=headers).status_code == 303


def test_a_browser_is_told_to_load_nothing_from_elsewhere_and_to_frame_nothing(study, page):
    order_run(study)
    own, other = page.browser(), page.client()
    asked = [(own, "/"), (own, "/nothing"), (other, "/"), (other, "/sign-in")]
    for client, path in [*asked, (other, "/static/page.js"), (other, f"{API}/status")]:
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"


def test_no_page_has_a_script_or_style_of_its_own(study, page):
    order_run(study)
    client = page.browser()
    for path in ("/", "/runs/first", "/log", "/launch", "/sign-out"):
        text = client.get(path).text
        own = re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", text)
        assert own == [], path
        assert re.findall(r"(?:href|src|action|data-live)=[\"'](?:\w+:|//)", text) == [], path


def test_a_form_that_is_too_large_or_none_is_refused(page):
    large = page.client().post("/sign-in", content=b"token=" + b"x" * 70_000)
    assert (large.status_code, "HF-831" in large.text) == (400, True)
    none = page.client().post("/sign-in", content=b"\xff\xfe")
    assert (none.status_code, "HF-831" in none.text) == (400, True)


def test_nothing_but_the_page_s_own_files_is_served(page):
    client = page.client()
    assert client.get("/static/coordinator.css").status_code == 200
    for name in ("page_app.py", "..%2fpage_app.py", "%2e%2e%2fstudy.yaml", "__init__.py"):
        assert client.get(f"/static/{name}").status_code == 404


def test_a_session_is_of_its_own_address_and_no_other_session_s(study, page):
    """A browser sends a cookie to all ports of a host, below the cookie's path alone."""
    client = page.browser()
    root = client.base_url.path
    (cookie,) = client.cookies.jar
    assert cookie.path == root
    other = page.browser(study.tokens.add("ada", "viewer"))
    assert other.base_url.path != root
    shown = {"cookie": f"{cookie.name}={cookie.value}"}
    asking = page.client()
    assert asking.get(root, headers=shown).status_code == 200
    for path in ("/", other.base_url.path, "/s/x/", f"{API}/status"):
        assert asking.get(path, headers=shown).status_code == 401, path
    assert root.split("/")[2] not in json.dumps(study.audit("test").rows("page refused"))
