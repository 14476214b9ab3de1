"""TLS at the gateway: it tells the application who calls, and the audit log who was refused."""

from __future__ import annotations

import ssl
from asyncio import Transport
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from healthfm_server.deploy.audit_log import AuditLog

PEER: Final = "healthfm.peer"
"""Key of the ASGI scope under which a `Peer` stands; absent where no certificate was shown."""


@dataclass(frozen=True)
class Peer:
    """The holder of a certificate that the handshake found good.

    Attributes:
        name: Its common name: the site.
        serial: Its serial number, as `ssl` writes it.
    """

    name: str
    serial: str


class GatewayTLSContext(ssl.SSLContext):
    """A server's context that asks for a client's certificate and follows its files.

    A caller without a certificate gets through, and the application refuses it. A certificate that
    the study's root did not sign, that is expired or revoked, fails in the handshake.

    After each change of the files a new context serves the handshakes that follow. A context that
    reads more files keeps the old ones: a retired root would still be trusted, and of two
    revocation lists made within one second OpenSSL uses the first that it read.
    """

    _files: tuple[Path, Path]
    _seen: tuple[int, int]
    _now: ssl.SSLContext

    @classmethod
    def of(cls, identity: Path, trust: Path, log: AuditLog | None = None) -> GatewayTLSContext:
        """Return a context over the server's key with chain, and the roots with their lists.

        Each handshake that fails because of the other side's certificate is noted in `log`.
        """
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context._files = identity, trust
        context._seen = 0, 0
        if log is not None:
            context.sslobject_class = _audited(log)
        context.follow()
        return context

    def follow(self) -> bool:
        """Read the files again if they changed, for later handshakes; return whether they did."""
        stamps = self._files[0].stat().st_mtime_ns, self._files[1].stat().st_mtime_ns
        if stamps == self._seen:
            return False
        fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        fresh.minimum_version = ssl.TLSVersion.TLSv1_2
        fresh.verify_mode = ssl.CERT_OPTIONAL
        fresh.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        fresh.set_alpn_protocols(["http/1.1"])
        fresh.sslobject_class = self.sslobject_class
        fresh.load_cert_chain(self._files[0])
        fresh.load_verify_locations(self._files[1])
        self._now = fresh
        self._seen = stamps
        return True

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection, as asyncio does for each, with the files as they are now."""
        return self._now.wrap_bio(*args, **options)


def _audited(log: AuditLog) -> type[ssl.SSLObject]:
    class Audited(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLCertVerificationError as error:
                log.note_refusal("handshake refused", {"reason": error.verify_message})
                raise

    return Audited


class PeerProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with the other side's certificate in the ASGI scope."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Note the certificate of the connection."""
        peer = peer_of(transport.get_extra_info("peercert") or {})
        if peer is not None:
            self.app = _with_peer(self.app, peer)
        super().connection_made(transport)


def peer_of(certificate: dict[str, Any]) -> Peer | None:
    """Return the holder of a certificate as `ssl` describes it; None where there is none."""
    names = {key: value for part in certificate.get("subject", ()) for key, value in part}
    name = names.get("commonName")
    return Peer(name, certificate["serialNumber"]) if name else None


def _with_peer(app: Any, peer: Peer) -> Any:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope[PEER] = peer
        await app(scope, receive, send)

    return call
