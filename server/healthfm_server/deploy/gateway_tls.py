"""TLS and HTTP at the gateway: who calls, by the certificate, and who is too slow."""

from __future__ import annotations

import ssl
from asyncio import Transport
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from healthfm_server.deploy.caller_limits import TimeLimits

PEER: Final = "healthfm.peer"
"""Key of the ASGI scope under which a `Peer` stands; absent where no certificate was shown."""
BUFFER_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Peer:
    """The holder of a certificate that the handshake found good.

    Attributes:
        name: Its common name: the site.
        serial: Its serial number, as `ssl` writes it.
        root: Common name of the root that signed it.
    """

    name: str
    serial: str
    root: str = ""


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
    def of(cls, identity: Path, trust: Path) -> GatewayTLSContext:
        """Return a context over the server's key with chain, and the roots with their lists."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context._files = identity, trust
        context._seen = 0, 0
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
        fresh.load_cert_chain(self._files[0])
        fresh.load_verify_locations(self._files[1])
        self._now = fresh
        self._seen = stamps
        return True

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection, as asyncio does for each, with the files as they are now."""
        return self._now.wrap_bio(*args, **options)


class PeerProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with the other side's certificate in the ASGI scope.

    Attributes:
        known: Whether the other side is an admitted site: its connection outlives an error.
        when_made: Is told the certificate's holder, None where there was no certificate.
        when_lost: Is told that the connection has ended.
        times: How long the other side may take.
    """

    known = False
    times = TimeLimits()
    when_made: Callable[[Peer | None], None] | None = None
    when_lost: Callable[[], None] | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Note the certificate of the connection."""
        peer = peer_of(transport.get_extra_info("peercert") or {})
        self.app = self._with_peer(self.app, peer)
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        self._made_s = self._taken_s = self.loop.time()
        self._head_s: float | None = None
        self._received = self._unsent = 0
        self._window = self._made_s, 0
        if self.when_made is not None:
            self.when_made(peer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so."""
        super().connection_lost(exc)
        if self.when_lost is not None:
            self.when_lost()

    def data_received(self, data: bytes) -> None:
        """Note when a head begins and how much of a body has come."""
        before = self.cycle
        if self._head_s is None:
            self._head_s = self.loop.time()
        self._received += len(data)
        super().data_received(data)
        if self.cycle is not before or self.conn.their_state is h11.SEND_BODY:
            self._head_s = None

    def resume_writing(self) -> None:
        """Note that something of an answer was taken."""
        super().resume_writing()
        self._taken_s = self.loop.time()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, once its last answer is on its way."""
        if self.transport.get_write_buffer_size():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def overdue(self, now_s: float) -> str | None:
        """Return why the other side is too slow, None where it is not; asked every second."""
        if self._answer_stands_still(now_s):
            return "answer not read"
        if self._body_crawls(now_s):
            return "body too slow"
        if self.cycle is not None and not self.cycle.response_complete:
            return None
        if self._head_s is not None:
            return "head too slow" if now_s - self._head_s > self.times.head_s else None
        patience_s = self.timeout_keep_alive if self.known else self.times.first_request_s
        asked = self.cycle is not None
        return None if asked or now_s - self._made_s <= patience_s else "nothing asked"

    def _answer_stands_still(self, now_s: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._taken_s = now_s
        self._unsent = unsent
        return now_s - self._taken_s > self.times.answer_s

    def _body_crawls(self, now_s: float) -> bool:
        from_s, before = self._window
        if self.conn.their_state is not h11.SEND_BODY or self.flow.read_paused:
            self._window = now_s, self._received  # no body, or it is the SuperLink that is slow
            return False
        if now_s - from_s < self.times.body_s:
            return False
        self._window = now_s, self._received
        return self._received - before < self.times.body_bytes

    def _with_peer(self, app: Any, peer: Peer | None) -> Any:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            if peer is not None:
                scope[PEER] = peer

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    if status in (401, 403) or (status >= 400 and not self.known):
                        headers = [*message.get("headers", ()), (b"connection", b"close")]
                        message = {**message, "headers": headers}
                await send(message)

            await app(scope, receive, answer)

        return call


def peer_of(certificate: dict[str, Any]) -> Peer | None:
    """Return the holder of a certificate as `ssl` describes it; None where there is none."""
    name, root = (
        {key: value for part in certificate.get(whose, ()) for key, value in part}.get("commonName")
        for whose in ("subject", "issuer")
    )
    return Peer(name, certificate["serialNumber"], root or "") if name else None
