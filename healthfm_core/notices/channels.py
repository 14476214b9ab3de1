"""How a notice reaches a person: mail (SMTP), a signed webhook, the desktop.

A webhook is signed as `Standard Webhooks`_ says: HMAC-SHA256 of ``id.timestamp.body`` under the
shared secret, so that whoever receives it can check where it is from and that it is not an old one.

.. _Standard Webhooks: https://www.standardwebhooks.com
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import shutil
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Final

import httpx

from healthfm_core.errors import RunError
from healthfm_core.notices.notice import Notice
from healthfm_core.notices.notice_settings import EmailSettings, NoticeSettings, WebhookSettings
from healthfm_core.trust import files

PATIENCE_S: Final = 20.0
"""For an answer of a mail server or webhook."""
DESKTOP: Final = "notify-send"
"""The freedesktop program that shows a notification."""
SECRET_PREFIX: Final = "whsec_"


def send_email(settings: EmailSettings, notice: Notice, origin: str, at: datetime) -> None:
    """Send a notice as mail.

    Args:
        settings: The server and the addresses.
        notice: What to tell.
        origin: Which study or site tells it; begins the subject.
        at: The message's date.

    Raises:
        RunError: The server did not take it (HF-728).
        TrustError: The password's file is not there, or others may read it (HF-802).
    """
    message = EmailMessage()
    message["From"], message["To"] = settings.sender, ", ".join(settings.to)
    message["Subject"] = _one_line(f"[{origin}] {notice.subject}")
    message["Date"] = format_datetime(at)
    message["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answer
    message.set_content(notice.text + "\n")
    where = f"notices.email, {settings.host}:{settings.port}"
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=PATIENCE_S, context=context
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=PATIENCE_S)
        with server:
            if settings.security == "starttls":
                server.starttls(context=context)
            if settings.user is not None and settings.password_file is not None:
                server.login(settings.user, _secret(settings.password_file, "the mail password"))
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise _not_delivered(where, _said(error)) from error


def send_webhook(settings: WebhookSettings, notice: Notice, origin: str, at: datetime) -> None:
    """Post a notice as JSON: ``type``, ``timestamp`` and ``data``.

    Raises:
        RunError: Nothing there took it (HF-728).
        TrustError: The secret's file is not there, others may read it, or it is not a secret
            (HF-802).
    """
    data = {"from": origin, "subject": notice.subject, "text": notice.text, "key": notice.key}
    content = {"type": f"healthfm.{notice.kind}", "timestamp": at.isoformat(), "data": data}
    body = json.dumps(content, ensure_ascii=False).encode()
    name = hashlib.sha256(f"{origin} {notice.key}".encode()).hexdigest()[:32]
    headers = {"content-type": "application/json"}
    headers |= signature(webhook_secret(settings.secret_file), f"msg_{name}", at, body)
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        with httpx.Client(verify=context, timeout=PATIENCE_S, trust_env=True) as client:
            answer = client.post(settings.url, content=body, headers=headers)
    except (httpx.HTTPError, OSError) as error:
        raise _not_delivered("notices.webhook", _said(error)) from error
    if not answer.is_success:
        raise _not_delivered("notices.webhook", f"the answer is {answer.status_code}")


def signature(secret: bytes, name: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers that sign a webhook's body."""
    seconds = str(int(at.timestamp()))
    signed = hmac.new(secret, f"{name}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def webhook_secret(file: Path) -> bytes:
    """Return the secret in a file: ``whsec_`` and 24 bytes or more as base64.

    Raises:
        TrustError: It is not one, or others may read it (HF-802).
    """
    text = _secret(file, "the webhook's secret")
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not text.startswith(SECRET_PREFIX) or len(secret) < 24:
        raise files.unusable(
            file,
            "it is not a webhook's secret, which is whsec_ and the base64 of 24 bytes or more",
            do=f"Run: (printf whsec_; openssl rand -base64 32) > {file}",
        )
    return secret


def send_desktop(notice: Notice, origin: str) -> None:
    """Show a notice on the desktop of the account that this process runs under.

    Raises:
        RunError: There is no desktop, or nothing that shows it (HF-728).
    """
    program = shutil.which(DESKTOP)
    if program is None:
        raise _not_delivered("notices.desktop", f"there is no program {DESKTOP}")
    words = [program, "--app-name=HealthFM", f"[{origin}] {notice.subject}", notice.text]
    try:
        done = subprocess.run(words, capture_output=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_delivered("notices.desktop", _said(error)) from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:200]
        raise _not_delivered("notices.desktop", said or f"{DESKTOP} ended with {done.returncode}")


def senders(
    settings: NoticeSettings, origin: str
) -> Mapping[str, Callable[[Notice, datetime], None]]:
    """Return how each channel that is set sends a notice."""
    found: dict[str, Callable[[Notice, datetime], None]] = {}
    email, webhook = settings.email, settings.webhook
    if email is not None:
        found["email"] = lambda notice, at: send_email(email, notice, origin, at)
    if webhook is not None:
        found["webhook"] = lambda notice, at: send_webhook(webhook, notice, origin, at)
    if settings.desktop:
        found["desktop"] = lambda notice, at: send_desktop(notice, origin)
    return found


def _secret(file: Path, what: str) -> str:
    return files.read_private(file, what).decode("utf-8", "replace").strip()


def _said(error: Exception) -> str:
    """Return an error in one line; what a server answered is cut."""
    return f"{type(error).__name__}: {_one_line(str(error))[:200]}"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _not_delivered(where: str, seen: str) -> RunError:
    return RunError(728, where=where, seen=seen)
