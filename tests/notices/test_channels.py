"""A notice reaches a real mail server and a real webhook, protected, or says why it does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from healthfm_core.errors import RunError, TrustError
from healthfm_core.notices import channels
from healthfm_core.notices.channels import send_desktop, send_email, send_webhook
from healthfm_core.notices.notice import Notice
from healthfm_core.notices.notice_settings import EmailSettings, NoticeSettings, WebhookSettings
from tests.notices.receivers import HOST, certificate, mail_server, webhook_server

AT = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
NOTICE = Notice("asks 1", "asks", "run first asks for approval", "Run first asks. Zürich – Genève.")
PASSWORD = "correct horse"
SECRET = b"0123456789abcdefghijklmnopqrstuv"


def private(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def tls(tmp_path):
    return certificate(tmp_path)


def email(tmp_path, port, ca, **changed):
    given = {
        "host": HOST,
        "port": port,
        "ca_file": ca,
        "user": "healthfm",
        "password_file": private(tmp_path / "password", f"{PASSWORD}\n"),
        "sender": "healthfm@hospital.example",
        "to": ["office@hospital.example", "it@hospital.example"],
    }
    return EmailSettings.model_validate(given | changed)


def hook(tmp_path, url, ca):
    secret = f"whsec_{base64.b64encode(SECRET).decode()}\n"
    file = private(tmp_path / "secret", secret)
    return WebhookSettings(url=url, secret_file=file, ca_file=ca)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_is_taken_over_a_protected_connection_with_the_account(tmp_path, tls, security):
    context, ca = tls
    with mail_server(context, PASSWORD, tls=security == "tls") as (port, box):
        send_email(email(tmp_path, port, ca, security=security), NOTICE, "HealthFM at a", AT)
    (message,) = box.messages
    assert message["subject"] == "[HealthFM at a] run first asks for approval"
    assert message["to"] == "office@hospital.example, it@hospital.example"
    assert message["auto-submitted"] == "auto-generated"
    assert message["date"].datetime == AT
    assert message.get_content().strip() == NOTICE.text


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ({"ca_file": None}, "certificate verify failed"),
        ({"user": "somebody"}, "535"),
        ({"host": "localhost"}, "not valid for 'localhost'"),
    ],
)
def test_mail_goes_to_no_server_that_is_not_the_one_that_was_meant(tmp_path, tls, changed, seen):
    context, ca = tls
    with mail_server(context, PASSWORD) as (port, box), pytest.raises(RunError, match=seen) as told:
        send_email(email(tmp_path, port, ca, **changed), NOTICE, "HealthFM at a", AT)
    assert told.value.code == "HF-728"
    assert PASSWORD not in str(told.value)
    assert box.messages == []


def test_a_server_that_refuses_is_told(tmp_path, tls):
    context, ca = tls
    with mail_server(context, PASSWORD) as (port, box):
        box.refuses = "552 the mailbox is full"
        with pytest.raises(RunError, match="the mailbox is full"):
            send_email(email(tmp_path, port, ca), NOTICE, "HealthFM at a", AT)


def test_a_password_that_others_may_read_is_not_used(tmp_path, tls):
    context, ca = tls
    with mail_server(context, PASSWORD) as (port, box):
        settings = email(tmp_path, port, ca)
        (tmp_path / "password").chmod(0o644)
        with pytest.raises(TrustError, match="HF-802"):
            send_email(settings, NOTICE, "HealthFM at a", AT)
    assert box.messages == []


def test_a_subject_brings_no_headers(tmp_path, tls):
    context, ca = tls
    crafted = Notice("x", "asks", "a run\r\nBcc: thief@example.org", "text")
    with mail_server(context, PASSWORD) as (port, box):
        send_email(email(tmp_path, port, ca), crafted, "HealthFM at a", AT)
    (message,) = box.messages
    assert message["bcc"] is None
    assert message["subject"] == "[HealthFM at a] a run  Bcc: thief@example.org"


def test_a_webhook_is_signed_over_its_body_and_time(tmp_path, tls):
    context, ca = tls
    with webhook_server(context) as (url, got):
        send_webhook(hook(tmp_path, url, ca), NOTICE, "HealthFM at a", AT)
    ((headers, body),) = got.got
    name, seconds = headers["webhook-id"], headers["webhook-timestamp"]
    assert seconds == str(int(AT.timestamp()))
    signed = hmac.new(SECRET, f"{name}.{seconds}.".encode() + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    content = json.loads(body)
    assert (content["type"], content["timestamp"]) == ("healthfm.asks", AT.isoformat())
    assert content["data"]["subject"] == NOTICE.subject


@pytest.mark.parametrize("answer", [301, 404, 500])
def test_a_webhook_that_takes_nothing_is_told(tmp_path, tls, answer):
    context, ca = tls
    with webhook_server(context) as (url, got):
        got.answers = answer
        with pytest.raises(RunError, match=rf"HF-728.*{answer}"):
            send_webhook(hook(tmp_path, url, ca), NOTICE, "HealthFM at a", AT)


def test_a_webhook_of_an_unknown_certificate_gets_nothing(tmp_path, tls):
    context, _ = tls
    with webhook_server(context) as (url, got), pytest.raises(RunError, match="HF-728"):
        send_webhook(hook(tmp_path, url, None), NOTICE, "HealthFM at a", AT)
    assert got.got == []


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_c2hvcnQ=", "secret", "whsec_%%%"])
def test_a_weak_secret_is_refused(tmp_path, text):
    settings = hook(tmp_path, "https://chat.example/hook", None)
    private(settings.secret_file, text)
    with pytest.raises(TrustError, match=r"HF-802.*base64"):
        send_webhook(settings, NOTICE, "HealthFM at a", AT)


def test_the_desktop_is_told_by_the_program_that_desktops_have(tmp_path, monkeypatch):
    said = tmp_path / "said"
    program = tmp_path / channels.DESKTOP
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {said}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    send_desktop(NOTICE, "HealthFM at a")
    assert said.read_text().splitlines()[1:] == [f"[HealthFM at a] {NOTICE.subject}", NOTICE.text]
    program.write_text("#!/bin/sh\necho no display >&2; exit 1\n")
    with pytest.raises(RunError, match=r"HF-728.*no display"):
        send_desktop(NOTICE, "HealthFM at a")


@pytest.mark.parametrize(
    "given",
    [
        {"email": {"host": "mail.example", "security": "none", "sender": "a@b", "to": ["c@d"]}},
        {"email": {"host": "mail.example", "user": "u", "sender": "a@b", "to": ["c@d"]}},
        {"email": {"host": "mail.example", "sender": "a@b", "to": []}},
        {"webhook": {"url": "http://chat.example/x", "secret_file": "s"}},
        {"webhook": {"url": "ftp://chat.example/x", "secret_file": "s"}},
        {"kinds": ["everything"]},
    ],
)
def test_settings_that_protect_nothing_are_refused(given):
    with pytest.raises(ValidationError):
        NoticeSettings.model_validate(given)


def test_paths_are_those_of_the_folder(tmp_path):
    given = {"webhook": {"url": "https://chat.example/x", "secret_file": "secret"}}
    settings = NoticeSettings.model_validate(given).in_folder(tmp_path)
    assert settings.webhook is not None
    assert settings.webhook.secret_file == tmp_path / "secret"
    assert settings.channels == ("webhook",)
