"""A hospital's proxy: HTTPS CONNECT with a password, and a list of who went where."""

from __future__ import annotations

import base64
import socket
import socketserver
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.end_to_end.shaped_line import ShapedLine, pump


class _Tunnel(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.request.recv(4096)
            if not piece or len(head) > 65536:
                return
            head += piece
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if method != "CONNECT" or fields.get("proxy-authorization") != self.server.password:
            self.server.refused += 1
            self.request.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        if time.monotonic() < self.server.closed_until:
            return
        host, _, port = target.rpartition(":")
        self.server.tunnels.append(target)
        self.server.open.append(self.request)
        try:
            far = socket.create_connection((host, int(port)))
        except OSError:
            self.request.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        with far:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            if self.server.lines is None:
                ways = (_pump, (far, self.request)), (_pump, (self.request, far))
            else:
                down, up = self.server.lines
                ways = (pump, (far, self.request, down)), (pump, (self.request, far, up))
            back = threading.Thread(target=ways[0][0], args=ways[0][1], daemon=True)
            back.start()
            ways[1][0](*ways[1][1])
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
    except OSError:
        pass  # the other end is gone: so is the tunnel
    finally:
        for end in (source, sink):
            with suppress(OSError):  # it is closed already
                end.shutdown(socket.SHUT_RDWR)


class Proxy(socketserver.ThreadingTCPServer):
    """The proxy; `tunnels` are the targets it let through, `refused` counts the others.

    With `lines` (down to the site, up from it) it is as slow as these.
    """

    daemon_threads = True
    allow_reuse_address = True

    lines: tuple[ShapedLine, ShapedLine] | None = None

    def __init__(self, port: int, user: str, password: str) -> None:
        super().__init__(("", port), _Tunnel)
        self.password = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.tunnels: list[str] = []
        self.refused = 0
        self.closed_until = 0.0
        self.open: list[socket.socket] = []

    def cut(self, seconds: float) -> None:
        """Cut every tunnel, and let none through for a while."""
        self.closed_until = time.monotonic() + seconds
        for tunnel in self.open:
            with suppress(OSError):  # it is closed already
                tunnel.shutdown(socket.SHUT_RDWR)
        self.open.clear()


def proxy_file(folder: Path, values: dict[str, str]) -> str:
    """Return a file with the proxy's address and password, as `--proxy-file` takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "proxy-address"
    path.touch(mode=0o600)
    path.write_text(f"http://user:secret@{values['HOST']}:{values['PROXY_PORT']}\n")
    return str(path)


@contextmanager
def proxy(port: int, user: str, password: str):
    """Run a proxy on loopback."""
    with Proxy(port, user, password) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
