"""A bad link: ``python -m tests.end_to_end.link --delay-ms 100 --loss 0.01``, until it is killed.

It wants a network of its own (`tests.end_to_end.alone`). Packets to `FAR` go through a device of
the kernel's into this process, which loses some, holds the others, and hands them back with the
addresses changed round: so a connection to `FAR` reaches this machine's own listeners, over real
packets of a real TCP. Sums of addresses stay, and with them the checksums.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

NEAR, FAR = "10.78.0.1", "10.78.0.2"
DEVICE = "far"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def ip(words: str) -> None:
    """Run ``ip``."""
    subprocess.run(["ip", *words.split()], check=True)


def opened() -> int:
    """Return a new device, up, as a file descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    ip(f"addr add {NEAR}/24 dev {DEVICE}")
    ip(f"link set {DEVICE} up")
    return tun


def carry(tun: int, delay_s: float, loss: float, chance: random.Random) -> None:
    """Carry packets for ever."""
    waiting: list[tuple[float, int, bytes]] = []
    for number in range(sys.maxsize):
        left_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        if select.select([tun], [], [], left_s)[0]:
            packet = os.read(tun, 65536)
            if packet[0] >> 4 == 4 and chance.random() >= loss:
                turned = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
                heapq.heappush(waiting, (time.monotonic() + delay_s, number, turned))
        while waiting and waiting[0][0] <= time.monotonic():
            os.write(tun, heapq.heappop(waiting)[2])


@contextmanager
def bad_link(delay_ms: float, loss: float) -> Iterator[None]:
    """Put a bad link between this machine and `FAR`, which else is this machine itself."""
    words = ["--delay-ms", str(delay_ms), "--loss", str(loss)]
    ip(f"addr del {FAR}/32 dev lo")
    carrier = subprocess.Popen([sys.executable, "-m", "tests.end_to_end.link", *words])
    try:
        yield
    finally:
        carrier.kill()
        carrier.wait()
        ip(f"addr add {FAR}/32 dev lo")


def main() -> None:
    """Carry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="each way")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets, each way")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    carry(opened(), given.delay_ms / 1000, given.loss, random.Random(given.seed))


if __name__ == "__main__":
    main()
