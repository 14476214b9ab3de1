"""A small FHIR server over real TLS: SMART Backend Services, $export, files, and faults on order.

It checks what a client signs with `cryptography` alone, and shares no code with the client.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

CLIENT = "healthfm"
TIME = "2026-11-23T02:00:00.000Z"
Fault = Callable[["Handler", bytes], bool]
"""Answers in place of the server and returns True, or False to have it answer as usual."""


def number(text: str) -> int:
    return int.from_bytes(decoded(text), "big")


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verified(assertion: str, jwks: dict) -> dict:
    """Return the claims of a JWT that a key of `jwks` signed; ValueError of another one."""
    head64, claims64, signature64 = assertion.split(".")
    head, claims = json.loads(decoded(head64)), json.loads(decoded(claims64))
    signature, signed = decoded(signature64), f"{head64}.{claims64}".encode()
    (key,) = [one for one in jwks["keys"] if one["kid"] == head["kid"]]
    if head["typ"] != "JWT" or head["alg"] != key["alg"]:
        raise ValueError("another algorithm")
    try:
        if key["kty"] == "EC":
            point = ec.EllipticCurvePublicNumbers(
                number(key["x"]), number(key["y"]), ec.SECP384R1()
            )
            r, s = (int.from_bytes(signature[at : at + 48], "big") for at in (0, 48))
            if len(signature) != 96:
                raise ValueError("another length")
            point.public_key().verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA384()))
        else:
            public = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key()
            public.verify(signature, signed, padding.PKCS1v15(), SHA384())
    except InvalidSignature as error:
        raise ValueError("another signature") from error
    return claims


@dataclass
class Call:
    """What was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass
class FhirServer:
    """What the server has, whom it knows, and what it was asked."""

    files: dict[str, bytes]
    """Path below /files → content; the type is what stands before the first dot or hyphen."""
    jwks: dict = field(default_factory=dict)
    base: str = ""
    requires_token: bool = True
    waits: int = 2
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    """METHOD /path → what happens there instead, once each, in this order."""
    calls: list[Call] = field(default_factory=list)
    jobs: set[str] = field(default_factory=set)
    polled: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    tokens: set[str] = field(default_factory=set)
    scopes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    assertions: list[str] = field(default_factory=list)
    clock_ahead_s: float = 0.0
    expires_in: float = 300
    changed: Callable[[dict], dict] = lambda manifest: manifest
    smart: dict = field(default_factory=lambda: {"capabilities": ["permission-v2"]})
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, path: str) -> int:
        return sum(call.method == method and call.path == path for call in self.calls)

    def token_refused(self, form: dict[str, str]) -> str:
        """Why a request for a token is wrong, '' where it is right."""
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        if form.get("grant_type") != "client_credentials":
            return "unsupported_grant_type"
        self.assertions.append(form.get("client_assertion", ""))
        try:
            claims = verified(form["client_assertion"], self.jwks)
        except (KeyError, ValueError):
            return "invalid_client"
        now = time.time() + self.clock_ahead_s
        right = form.get("client_assertion_type") == kind
        right &= claims["iss"] == claims["sub"] == CLIENT
        right &= claims["aud"] == f"{self.base}/token"
        right &= now < claims["exp"] <= now + 300
        right &= claims["jti"] not in self.used
        self.used.add(claims["jti"])
        return "" if right else "invalid_client"

    def manifest(self, query: dict[str, str]) -> dict:
        listed = []
        for name, content in sorted(self.files.items()):
            kind = name.partition(".")[0].partition("-")[0]
            lines = sum(bool(line.strip()) for line in content.split(b"\n"))
            one = {"type": kind, "url": f"{self.base}/files/{name}", "count": lines}
            listed.append(one)
        kinds = {"errors": "error", "deleted": "deleted"}
        by = defaultdict(list)
        for one in listed:
            by[kinds.get(one["url"].rpartition(".")[2], "output")].append(one)
        return self.changed(
            {"transactionTime": TIME, "request": "?", "requiresAccessToken": self.requires_token}
            | {"output": by["output"], "error": by["error"], "deleted": by["deleted"]}
        )


class Handler(BaseHTTPRequestHandler):
    """Answers as the specification has it, unless a fault is due."""

    protocol_version = "HTTP/1.1"
    server: Listener

    def log_message(self, *_: object) -> None: ...

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + self.server.fhir.clock_ahead_s, usegmt=True)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, status: int, said: object, **headers: str) -> None:
        self.reply(status, json.dumps(said).encode(), Content_Type="application/json", **headers)

    def do_GET(self) -> None:
        self.asked()

    do_POST = do_DELETE = do_GET

    def asked(self) -> None:
        fhir, parts = self.server.fhir, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.command, parts.path, query, headers)
        with fhir.lock:
            fhir.calls.append(call)
            due = fhir.faults[f"{self.command} {parts.path}"]
            fault = due.pop(0) if due else None
        if fault is None or not fault(self, body):
            self.usual(call, body)

    def usual(self, call: Call, body: bytes) -> None:
        fhir = self.server.fhir
        if call.path == "/fhir/.well-known/smart-configuration":
            self.json(200, {"token_endpoint": f"{fhir.base}/token"} | fhir.smart)
        elif call.path == "/token":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            refused = fhir.token_refused(form)
            if refused:
                self.json(400, {"error": refused, "error_description": "no"})
                return
            token = base64.b64encode(hashlib.sha256(form["client_assertion"].encode()).digest())
            fhir.tokens.add(token.decode())
            fhir.scopes.append(form["scope"])
            given = {"access_token": token.decode(), "token_type": "bearer", "scope": "x"}
            self.json(200, given | {"expires_in": fhir.expires_in})
        elif call.path.startswith("/files/"):
            self.file(call)
        elif call.token not in fhir.tokens:
            self.json(401, outcome("login"))
        elif call.path.endswith("/$export"):
            self.export(call)
        elif call.path.startswith("/jobs/"):
            self.job(call)
        else:
            self.json(404, outcome("not-found"))

    def export(self, call: Call) -> None:
        fhir = self.server.fhir
        right = call.headers.get("prefer") == "respond-async"
        right &= call.headers.get("accept") == "application/fhir+json"
        right &= call.query.get("_outputFormat") == "application/fhir+ndjson"
        if not right or call.path not in ("/fhir/Patient/$export", "/fhir/Group/g-1/$export"):
            self.json(400, outcome("invalid"))
            return
        job = f"/jobs/{len(fhir.jobs) + 1}"
        fhir.jobs.add(job)
        self.reply(202, Content_Location=f"{fhir.base}{job}")

    def job(self, call: Call) -> None:
        fhir = self.server.fhir
        if call.path not in fhir.jobs:
            self.json(404, outcome("not-found"))
        elif call.method == "DELETE":
            fhir.jobs.discard(call.path)
            self.reply(202)
        elif fhir.polled[call.path] < fhir.waits:
            fhir.polled[call.path] += 1
            done = f"{50 * fhir.polled[call.path]} % done"
            self.reply(202, X_Progress=done, Retry_After="0")
        else:
            self.json(200, fhir.manifest(call.query))

    def file(self, call: Call) -> None:
        fhir = self.server.fhir
        if fhir.requires_token and call.token not in fhir.tokens:
            self.json(401, outcome("expired"))
        else:
            content = fhir.files[call.path.removeprefix("/files/")]
            self.reply(200, content, Content_Type="application/fhir+ndjson")


class Listener(ThreadingHTTPServer):
    """A port of the server's."""

    daemon_threads = True
    fhir: FhirServer

    def handle_error(self, *_: object) -> None:
        """A client that was killed, or that refuses to go on, is no fault of the server's."""


def outcome(code: str, said: str = "", severity: str = "error") -> dict:
    issue = {"severity": severity, "code": code} | ({"diagnostics": said} if said else {})
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def cut(handler: Handler, body: bytes) -> bool:
    """Send half of a file and end the connection."""
    content = handler.server.fhir.files[handler.path.removeprefix("/files/")]
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    handler.close_connection = True
    return True


def says(status: int, said: object = "", **headers: str) -> Fault:
    """Return a fault that answers so."""

    def fault(handler: Handler, body: bytes) -> bool:
        text = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        handler.reply(status, text, **headers)
        return True

    return fault


def forgets_tokens(handler: Handler, body: bytes) -> bool:
    """Let all tokens end, then answer as usual."""
    handler.server.fhir.tokens.clear()
    return False


class Held:
    """A fault that says when it is reached and waits until it is let go."""

    def __init__(self, *, half: bool = False) -> None:
        self.reached, self.go_on, self.half = threading.Event(), threading.Event(), half

    def __call__(self, handler: Handler, body: bytes) -> bool:
        if self.half:
            content = handler.server.fhir.files[handler.path.removeprefix("/files/")]
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[: len(content) // 2])
            handler.wfile.flush()
        self.reached.set()
        self.go_on.wait(600)
        handler.close_connection = True
        return True


@contextmanager
def listening(fhir: FhirServer, context: ssl.SSLContext | None) -> Iterator[int]:
    """Serve on a free port of this machine, and give it."""
    with Listener(("127.0.0.1", 0), Handler) as listener:
        listener.fhir = fhir
        if context is not None:
            listener.socket = context.wrap_socket(
                listener.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield listener.server_address[1]
        finally:
            listener.shutdown()
            thread.join()


def authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a throwaway authority; return its certificate's file, and TLS for 127.0.0.1."""
    folder.mkdir(parents=True, exist_ok=True)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hospital CA")])
    root = _certificate(root_name, root_name, root_key.public_key(), root_key, is_root=True)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fhir")])
    leaf = _certificate(name, root_name, key.public_key(), root_key, is_root=False)
    (folder / "ca.pem").write_bytes(root.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "leaf.pem").write_bytes(pem + leaf.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem")
    return folder / "ca.pem", context


def _certificate(
    name: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_root: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    own = x509.SubjectKeyIdentifier.from_public_key(public)
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .add_extension(own, critical=False)
        .add_extension(above, critical=False)
        .sign(signer, SHA256())
    )
