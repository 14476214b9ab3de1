"""Scans a coordinator from a site's network: ``python -m tests.end_to_end.scan FOLDER``.

It wants a network of its own (`tests.end_to_end.alone`). In that it makes a second one, a site's,
with a cable between the two; starts a coordinator here; and from there tries every TCP port of the
coordinator's address. It prints the public port and those that answered, as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.deployed import Shell, free_ports

HERE, THERE = "10.77.0.1", "10.77.0.2"
SCAN = """
import json, socket, sys
found = []
for port in range(1, 65536):
    with socket.socket() as probe:
        probe.settimeout(2.0)
        if probe.connect_ex((sys.argv[1], port)) == 0:
            found.append(port)
print(json.dumps(found))
"""


def ip(words: str, *, before: tuple[str, ...] = ()) -> None:
    """Run ``ip``."""
    subprocess.run([*before, "ip", *words.split()], check=True)


@contextmanager
def site_network() -> Iterator[tuple[str, ...]]:
    """Make a network with a cable to this one; yield what to put before a command in it."""
    with subprocess.Popen(["unshare", "--net", "--", "sleep", "600"]) as other:
        try:
            while os.readlink(f"/proc/{other.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                time.sleep(0.01)
            inside = ("nsenter", "--target", str(other.pid), "--net", "--")
            ip("link add here type veth peer name there")
            ip(f"link set there netns {other.pid}")
            ip(f"addr add {HERE}/24 dev here")
            ip("link set here up")
            ip(f"addr add {THERE}/24 dev there", before=inside)
            ip("link set there up", before=inside)
            yield inside
        finally:
            other.kill()


def main() -> None:
    """Set up, scan, print, take down."""
    port, superlink = free_ports(2)
    shell = Shell(Path(sys.argv[1]), {})
    with site_network() as inside:
        shell.run(
            f"healthfm-server init study --name scanned --host {HERE} --port {port} "
            f"--superlink-port {superlink}"
        )
        try:
            shell.run("healthfm-server up --study study")
            command = [*inside, sys.executable, "-c", SCAN, HERE]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        finally:
            shell.run("healthfm-server down --study study")
    sys.stdout.write(json.dumps({"public": port, "found": json.loads(done.stdout)}) + "\n")


if __name__ == "__main__":
    main()
