"""Signing in to the coordinator's page by a real OpenID Connect provider."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from pydantic import ValidationError

from healthfm_core.errors import ConfigError, TrustError
from healthfm_server.deploy.provider_settings import ProviderSettings
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.page import provider_sign_in
from healthfm_server.page.coordinator_page import CoordinatorPage
from healthfm_server.page.provider_sign_in import BACK, PATH
from tests.page.browser import browser
from tests.page.made_study import make_study, served_page
from tests.page.oidc_provider import CLIENT, PASSWORD, SECRET, provider


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    with provider(tmp_path_factory.mktemp("oidc") / "provider") as at:
        yield at


@contextmanager
def page_of(tmp_path, issuer, **about):
    """Yield a study's page whose people sign in by a provider."""
    study = make_study(tmp_path / "study")
    secret = study.path / "secret" / "client"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    settings = {
        "issuer": issuer,
        "client_id": CLIENT,
        "client_secret_file": "secret/client",
        "coordinators": ["research-leads"],
        "viewers": ["research"],
        "label": "Example Hospital’s account",
        **about,
    }
    given = study.settings.model_copy(update={"sign_in": ProviderSettings.model_validate(settings)})
    with served_page(StudyFolder(study.path, given)) as page:
        yield page


@pytest.fixture
def page(tmp_path, issuer):
    with page_of(tmp_path, issuer) as asking:
        yield asking


def at_the_provider(client, page, name):
    """Sign in at the provider; return the address that it sends the browser back to."""
    asked = client.get(f"{page.url}{PATH}/")
    assert asked.status_code == 302, asked.text
    form = client.get(asked.headers["location"], follow_redirects=True)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)[1]
    fields = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": token}
    fields["next"] = httpx.URL(asked.headers["location"]).raw_path.decode()
    answer = client.post(str(form.url), data=fields, headers={"referer": str(form.url)})
    answer = client.get(httpx.URL(str(form.url)).join(answer.headers["location"]))
    assert answer.status_code == 302, answer.text
    assert answer.headers["location"].startswith(f"{page.url}{BACK}?"), answer.headers
    return answer.headers["location"]


def signed_in(client, page, name):
    answer = client.get(at_the_provider(client, page, name))
    assert answer.status_code == 200, answer.text
    return answer, page.url + re.search(r"url=(/s/[^\"]+)\"", answer.text)[1]


def log(page):
    return [(line["event"], line) for line in page.page.study.audit("page").newest(0)]


def test_a_group_of_the_provider_s_is_a_role_here(page):
    client = page.client()
    assert "Sign in with Example Hospital’s account" in client.get("/sign-in").text
    answer, root = signed_in(client, page, "ada")
    assert "oidc:ada, coordinator" in answer.text
    assert client.get(root).status_code == 200
    assert client.get(f"{root}launch").status_code == 200
    viewer = page.client()
    _, root = signed_in(viewer, page, "vera")
    assert viewer.get(root).status_code == 200
    assert viewer.get(f"{root}launch").status_code == 403
    noted = [about for event, about in log(page) if event == "signed in by the provider"]
    assert [(each["user"], each["role"]) for each in noted] == [
        ("oidc:vera", "viewer"),
        ("oidc:ada", "coordinator"),
    ]


def test_who_has_no_such_group_stays_outside(page):
    client = page.client()
    answer = client.get(at_the_provider(client, page, "otto"))
    assert answer.status_code == 403
    assert "HF-835" in answer.text
    assert page.page.sessions.cookie not in client.cookies


def test_a_claim_that_only_userinfo_has_is_asked_there(tmp_path, issuer):
    with page_of(tmp_path, issuer, claim="teams") as page:
        answer, _ = signed_in(page.client(), page, "ada")
        assert "coordinator" in answer.text


def test_what_another_browser_began_ends_in_nobody_s_session(page):
    mine, victim = page.client(), page.client()
    answer = victim.get(at_the_provider(mine, page, "ada"))
    assert answer.status_code == 401
    assert "HF-834" in answer.text
    assert page.page.sessions.cookie not in victim.cookies


def test_a_code_serves_once(page):
    client = page.client()
    back = at_the_provider(client, page, "ada")
    assert client.get(back).status_code == 200
    assert client.get(back).status_code == 401


def test_a_code_of_another_journey_is_not_taken(page):
    """PKCE: what one browser's state began cannot be ended with another's code."""
    mine, other = page.client(), page.client()
    his = parse_qs(urlsplit(at_the_provider(other, page, "ada")).query)
    my = parse_qs(urlsplit(at_the_provider(mine, page, "vera")).query)
    answer = mine.get(BACK, params={"code": his["code"][0], "state": my["state"][0]})
    assert answer.status_code == 401
    assert "HF-834" in answer.text


def test_what_the_provider_refuses_is_told(page):
    answer = page.client().get(BACK, params={"error": "access_denied"})
    assert answer.status_code == 401
    assert "access_denied" in answer.text
    assert "HF-834" in answer.text


def test_a_provider_that_is_down_or_calls_itself_otherwise_is_told(tmp_path, issuer):
    with page_of(tmp_path / "down", "http://127.0.0.1:9/o") as page:
        answer = page.client().get(f"{PATH}/")
        assert answer.status_code == 401
        assert "HF-834" in answer.text
        assert page.browser().get("/").status_code == 200  # the link needs no provider
    with page_of(tmp_path / "other", issuer.replace("127.0.0.1", "localhost")) as page:
        answer = page.client().get(f"{PATH}/")
        assert answer.status_code == 401
        assert f"it calls itself {issuer}" in answer.text


def test_the_wrong_secret_signs_nobody_in(tmp_path, issuer):
    with page_of(tmp_path, issuer) as page:
        study = page.page.study
    study.path.joinpath("secret", "client").write_text("another")
    with served_page(study) as page:
        client = page.client()
        answer = client.get(at_the_provider(client, page, "ada"))
        assert answer.status_code == 401
        assert "invalid_client" in answer.text


def test_in_a_browser_the_journey_ends_on_the_study_s_page(page, issuer):
    with browser() as window:
        window.open(f"{page.url}/sign-in")
        assert window.hard_to_read() == []
        window.click_link("Sign in with Example Hospital’s account")
        window.until(lambda: "/login/" in window.run("return location.href"))
        window.write("#user", "ada")
        window.write("#password", PASSWORD)
        window.click("#go")
        window.until(lambda: window.text("h1") == "demo")
        assert "oidc:ada, coordinator" in window.text("header")
        said = [one for one in window.complaints() if not one.startswith(issuer.removesuffix("/o"))]
        assert said == []


def test_a_signature_that_proves_nothing_is_refused(tmp_path, issuer):
    with page_of(tmp_path, issuer) as page:
        sign_in = ProviderSettings(issuer=issuer, client_id=CLIENT, viewers=("research",))
        made = provider_sign_in.ProviderSignIn(page.page.study, sign_in, page.page, None)
        given = {"issuer": issuer, "id_token_signing_alg_values_supported": ["none", "HS256"]}
        made._provider = SimpleNamespace(load_server_metadata=_answer(given))
        with pytest.raises(Exception, match="it signs by none, HS256 alone"):
            _run(made._check())
        given["id_token_signing_alg_values_supported"] = ["none", "ES256"]
        _run(made._check())
        assert given["id_token_signing_alg_values_supported"] == ["ES256"]


def _answer(value):
    async def answer():
        return value

    return answer


def _run(coroutine):
    import asyncio

    return asyncio.run(coroutine)


def test_without_the_extra_the_page_says_what_to_install(tmp_path, issuer, monkeypatch):
    monkeypatch.setattr(provider_sign_in, "find_spec", lambda name: None)
    with (
        pytest.raises(ConfigError, match=r"HF-108.*pip install 'healthfm\[sign-in\]'"),
        page_of(tmp_path, issuer),
    ):
        pass


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"issuer": "http://login.example"}, "https, or http to this machine"),
        ({"issuer": "login.example"}, "https, or http to this machine"),
        ({"scopes": ["profile"]}, "openid has to be among them"),
        ({"viewers": []}, "nobody may sign in"),
    ],
)
def test_settings_that_protect_nobody_are_refused(about, said):
    usual = {"issuer": "https://login.example", "client_id": "x", "viewers": ["research"]}
    with pytest.raises(ValidationError, match=said):
        ProviderSettings.model_validate({**usual, **about})


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["research", "research-leads"]}, "coordinator"),
        ({"groups": "research"}, "viewer"),
        ({"groups": ["Research"]}, None),
        ({"groups": {"research": True}}, None),
        ({"groups": [["research"]]}, None),
        ({"groups": "research-leads research"}, None),
        ({}, None),
    ],
)
def test_a_role_is_a_value_to_the_letter(claims, role):
    settings = ProviderSettings(
        issuer="https://login.example",
        client_id="x",
        coordinators=("research-leads",),
        viewers=("research",),
    )
    assert settings.role_of(claims) == role


def test_settings_come_from_study_yaml(tmp_path):
    study = make_study(tmp_path / "study")
    file = study.path / "study.yaml"
    about = {"issuer": "https://login.example", "client_id": "x", "viewers": ["research"]}
    file.write_text(f"{file.read_text()}sign_in: {json.dumps(about)}\n")
    assert StudyFolder.open(study.path).settings.sign_in == ProviderSettings.model_validate(about)


def test_a_secret_that_is_not_there_is_asked_of_the_provider_and_of_no_backup(tmp_path):
    study = make_study(tmp_path / "study")
    settings = {"issuer": "https://login.example.org", "client_id": "x", "viewers": ["a"]}
    sign_in = ProviderSettings.model_validate({**settings, "client_secret_file": "nothere"})
    given = study.settings.model_copy(update={"sign_in": sign_in})
    with pytest.raises(TrustError, match=r"HF-802.*the provider gave") as raised:
        CoordinatorPage(StudyFolder(study.path, given))
    assert "backup" not in str(raised.value)
