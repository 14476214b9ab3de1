"""A real mail server and a real webhook on loopback, with certificates of their own."""

from __future__ import annotations

import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.deploy.serving import free_port

HOST = "127.0.0.1"


@dataclass
class Mailbox:
    """What a mail server took; `refuses` is what it answers instead."""

    messages: list[EmailMessage] = field(default_factory=list)
    refuses: str = ""

    async def handle_DATA(self, server, session, envelope) -> str:
        if self.refuses:
            return self.refuses
        found = message_from_bytes(envelope.content, policy=default)
        assert isinstance(found, EmailMessage)
        self.messages.append(found)
        return "250 taken"


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return a server's context, and the file with which it is checked."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    public, both = folder / "ca.pem", folder / "server.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    both.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + public.read_bytes()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, public


class _Server(Controller):
    """Offers STARTTLS, and takes mail of one account over it alone."""

    def factory(self) -> SMTP:
        with warnings.catch_warnings():
            # Over TLS from the first byte on it does not see that there is TLS.
            warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")
            return SMTP(self.handler, **self.SMTP_kwargs)


@contextmanager
def mail_server(
    context: ssl.SSLContext, password: str, *, tls: bool = False
) -> Iterator[tuple[int, Mailbox]]:
    """Yield a server's port and what it takes; the account is ``healthfm``."""

    def login(server, session, envelope, mechanism, given) -> AuthResult:
        sound = isinstance(given, LoginPassword) and given == LoginPassword(
            b"healthfm", password.encode()
        )
        return AuthResult(success=sound, handled=False)

    box = Mailbox()
    usual = {"authenticator": login, "auth_required": True, "auth_require_tls": not tls}
    offered = {} if tls else {"tls_context": context, "require_starttls": True}
    server = _Server(
        box,
        hostname=HOST,
        port=free_port(),
        ssl_context=context if tls else None,
        ready_timeout=60,
        **usual,
        **offered,
    )
    server.start()
    try:
        assert server.server is not None
        yield server.server.sockets[0].getsockname()[1], box
    finally:
        server.stop()


@dataclass
class Hook:
    """What a webhook got, and what it answers."""

    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: int = 204


@contextmanager
def webhook_server(context: ssl.SSLContext) -> Iterator[tuple[str, Hook]]:
    """Yield a webhook's URL and what it gets."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            hook.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(hook.answers)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = HTTPServer((HOST, 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://{HOST}:{server.server_port}/hook", hook
    finally:
        server.shutdown()
        server.server_close()
