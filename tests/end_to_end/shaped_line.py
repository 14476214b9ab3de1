"""A line of so many bits a second and such a delay, for the bytes that a proxy passes on.

Not the kernel's: netem is not in every kernel. All connections through one line share it, one piece
after the other, and a sender that is quicker than the line has to wait, as behind a full buffer.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

PIECE_BYTES = 8192
BUFFERED_PIECES = 16
"""Of one connection, on their way: 128 kB, as a router's buffer may hold."""


@dataclass
class ShapedLine:
    """One way of a line.

    Attributes:
        mbit_s: What it carries.
        delay_s: What each byte takes besides.
        free_at: When it has carried all that was given to it.
        carried: Bytes so far.
    """

    mbit_s: float
    delay_s: float = 0.0
    free_at: float = 0.0
    carried: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrives_at(self, n_bytes: int) -> float:
        """Take a piece, once the line is free for it, and return when it has arrived."""
        with self._lock:
            begin = max(time.monotonic(), self.free_at)
            self.free_at = begin + 8 * n_bytes / (1e6 * self.mbit_s)
            self.carried += n_bytes
            sent = self.free_at
        time.sleep(max(0.0, sent - time.monotonic()))
        return sent + self.delay_s


def pump(source: socket.socket, sink: socket.socket, line: ShapedLine) -> None:
    """Pass on what comes from `source` until it ends, as the line carries it."""
    pieces: queue.Queue[tuple[float, bytes]] = queue.Queue(BUFFERED_PIECES)
    writer = threading.Thread(target=_deliver, args=(pieces, sink), daemon=True)
    writer.start()
    with suppress(OSError):  # the other end is gone: so is the tunnel
        while piece := source.recv(PIECE_BYTES):
            pieces.put((line.arrives_at(len(piece)), piece))
    pieces.put((0.0, b""))
    writer.join()


def _deliver(pieces: queue.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
    open_still = True
    while (item := pieces.get())[1]:
        at, piece = item
        time.sleep(max(0.0, at - time.monotonic()))
        if open_still:
            try:
                sink.sendall(piece)
            except OSError:
                open_still = False  # what still comes is dropped, so that its sender ends
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
