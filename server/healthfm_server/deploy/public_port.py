"""The public port's listener: it accepts, lets a caller begin TLS, and ends who is too slow.

uvicorn speaks HTTP on each connection. It has a time-out for an idle connection, and none for a
handshake, a head or a body; nor does it know a caller's address before TLS. So connections are
accepted here, and asyncio's own `connect_accepted_socket` makes them TLS with a time-out.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, cast

import uvicorn

from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.caller_limits import Caller, CallerLimits, Callers, address_key
from healthfm_server.deploy.gateway_tls import Peer, PeerProtocol

GOODBYE_S: Final = 10.0
"""For the other side's end of TLS."""
SWEEP_S: Final = 1.0
PAUSE_S: Final = 1.0
"""Before connections are accepted again where the process has no file descriptor left."""
BACKLOG: Final = 2048
MOST_DESCRIPTORS: Final = 65536
ACCEPTED_AT_ONCE: Final = 64
HANDSHAKE: Final = b"\x16"
"""First byte of every TLS handshake."""
UNACKNOWLEDGED_MS: Final = 300_000
"""A connection whose other side acknowledges nothing for so long is dead."""

_log = logging.getLogger(__name__)


class PublicPort:
    """Accepts connections for a server of uvicorn's.

    Args:
        server: Running, without a listener of its own.
        tls: Makes a connection TLS.
        log: Where refusals are counted.
        limits: How many, how fast.
        is_site: Whether a certificate's holder is an admitted site.
    """

    def __init__(
        self,
        server: uvicorn.Server,
        tls: ssl.SSLContext,
        log: AuditLog,
        limits: CallerLimits,
        is_site: Callable[[Peer], bool],
    ) -> None:
        self._server = server
        self._tls = tls
        self._log = log
        self._is_site = is_site
        self._loop = asyncio.get_running_loop()
        self.callers = Callers(limits, self._loop.time())
        self._protocols: dict[Caller, PeerProtocol] = {}
        self._listeners: list[socket.socket] = []
        self._shakes: set[asyncio.Task[None]] = set()

    def remember(self, host: str, at: str) -> None:
        """Note that a site called from an address before this process began, `at` in ISO 8601."""
        with suppress(ValueError):
            ago = datetime.now(UTC) - datetime.fromisoformat(at)
            self.callers.site_was_at(address_key(host), self._loop.time() - ago.total_seconds())

    def listen(self, host: str, port: int) -> None:
        """Take connections from now on.

        Raises:
            OSError: The address cannot be listened on.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in {(info[0], info[4]) for info in found}:
            listener = socket.create_server(address, family=family, backlog=BACKLOG)
            listener.setblocking(False)
            self._listeners.append(listener)
            self._loop.add_reader(listener, self._accept, listener)

    async def sweep(self) -> None:
        """End who is too slow, for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._loop.time()
            for caller in self.callers:
                reason = self._overdue(caller, now)
                if reason is not None:
                    self._end(caller, "connection ended", reason)

    def close(self) -> None:
        """Take no more connections, and end those that have not begun HTTP."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        for caller in self.callers:
            if caller not in self._protocols:
                self._forget(caller)
                caller.close()

    def _overdue(self, caller: Caller, now: float) -> str | None:
        if caller.stage == "silent":
            late = now - caller.since_s > self.callers.limits.times.silent_s
            return "no handshake begun" if late else None
        protocol = self._protocols.get(caller)
        return None if protocol is None else protocol.overdue(now)

    def _end(self, caller: Caller, event: str, reason: str) -> None:
        who = {"from": caller.address, "site": caller.site, "reason": reason}
        self._log.note_refusal(event, who)
        self._forget(caller)
        caller.ended = True
        caller.close()

    def _forget(self, caller: Caller) -> None:
        self.callers.forget(caller)
        self._protocols.pop(caller, None)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no file descriptor is left
                _log.warning("no connection can be accepted: %s", error)
                self._loop.remove_reader(listener)
                self._loop.call_later(PAUSE_S, self._accept_again, listener)
                return
            self._take(connection, address_key(address[0]))

    def _accept_again(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener, self._accept, listener)

    def _take(self, connection: socket.socket, address: str) -> None:
        now = self._loop.time()
        if not self.callers.takes(address, now):
            who = {"from": address, "site": "", "reason": "too many connections"}
            self._log.note_refusal("connection refused", who)
            _reset(connection)
            return
        _prepare(connection)
        caller = Caller(address, now, lambda: self._drop(connection))
        self._let_go(self.callers.add(caller, now))
        if not caller.ended:
            self._loop.add_reader(connection, self._first_byte, caller, connection)

    def _let_go(self, gone: list[Caller]) -> None:
        for caller in gone:
            self._end(caller, "connection ended", "made room for another")

    def _drop(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection)
        _reset(connection)

    def _first_byte(self, caller: Caller, connection: socket.socket) -> None:
        try:
            first = connection.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if first != HANDSHAKE:
            if first:
                self._end(caller, "connection ended", "not TLS")
            else:
                self._forget(caller)
                caller.close()
            return
        wait_s = self.callers.turn_s(caller, self._loop.time())
        if wait_s is None:
            self._end(caller, "connection refused", "too many handshakes")
            return
        self._loop.remove_reader(connection)
        shake = self._loop.create_task(self._shake(caller, connection, wait_s))
        self._shakes.add(shake)
        shake.add_done_callback(self._shakes.discard)
        caller.close = lambda: _cancel(shake)
        self._let_go(self.callers.speaks(caller, self._loop.time()))

    async def _shake(self, caller: Caller, connection: socket.socket, wait_s: float) -> None:
        """Make a connection TLS when it has its turn, and give it to HTTP."""
        made = False
        try:
            await asyncio.sleep(wait_s)
            more_s = self.callers.turn_of_all_s(caller, self._loop.time())
            if more_s is None:
                self._end(caller, "connection refused", "too many handshakes")
                return
            await asyncio.sleep(more_s)
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(caller),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self.callers.limits.times.handshake_s,
                ssl_shutdown_timeout=GOODBYE_S,
            )
            made = True
        except ssl.SSLCertVerificationError as error:
            self._end(caller, "handshake refused", error.verify_message)
        except ssl.SSLError as error:
            self._end(caller, "handshake refused", error.reason or "it is no TLS of ours")
        except ConnectionAbortedError:
            self._end(caller, "connection ended", "handshake too slow")
        except (OSError, asyncio.CancelledError):
            caller.ended = True  # it went away, or had to make room
        finally:
            if not made:
                self._forget(caller)
                connection.close()

    def _protocol(self, caller: Caller) -> PeerProtocol:
        make = cast("Callable[..., PeerProtocol]", self._server.config.http_protocol_class)
        protocol = make(
            config=self._server.config,
            server_state=self._server.server_state,
            app_state=self._server.lifespan.state,
        )
        protocol.times = self.callers.limits.times
        protocol.when_made = lambda peer: self._made(caller, protocol, peer)
        protocol.when_lost = lambda: self._forget(caller)
        return protocol

    def _made(self, caller: Caller, protocol: PeerProtocol, peer: Peer | None) -> None:
        if caller.ended:  # just now, to make room
            protocol.abort()
            return
        caller.close = protocol.abort
        self._protocols[caller] = protocol
        if peer is not None and self._is_site(peer):
            protocol.known = True
            self._let_go(self.callers.is_site(caller, peer.name, self._loop.time()))


def raise_descriptors() -> int:
    """Let this process have as many open files as it may, up to 65,536; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _cancel(shake: asyncio.Task[None]) -> None:
    shake.cancel()


def _prepare(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)


def _reset(connection: socket.socket) -> None:
    """Close a connection and keep nothing of it, not even what it has to wait for."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
