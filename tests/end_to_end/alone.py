"""A network of one's own: ``python -m tests.end_to_end.alone COMMAND ...`` runs a command in one.

The command sees a loopback device and nothing else, so what it does needs no name and no other
machine; its mounts are its own too. Where the system forbids that (user namespaces are off), the
command runs as it would have, and what wants a network of its own skips with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ALONE = ["unshare", "--map-root-user", "--net", "--mount", "--"]


def why_not() -> str | None:
    """Return why this system gives no network of one's own, None where it does."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return "unshare (util-linux) or ip (iproute2) is not installed"
    done = subprocess.run(
        [*ALONE, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else f"network namespaces: {done.stderr.strip()}"


def in_one(words: list[str]) -> list[str]:
    """Return a command that runs `words` in a network of its own, loopback up."""
    return [*ALONE, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words]


def devices() -> set[str]:
    """Return the network devices that this process sees."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines}


def attempts() -> dict[str, int]:
    """Return what was tried, in this network, that loopback and TCP have no part in.

    ``no route`` counts connections and datagrams to an address that nothing here leads to,
    ``datagrams`` those sent over UDP, as every question for a name is.
    """
    four = _counters("/proc/net/snmp")
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return {
        "no route": four["Ip"]["OutNoRoutes"] + int(six["Ip6OutNoRoutes"]),
        "datagrams": four["Udp"]["OutDatagrams"] + int(six["Udp6OutDatagrams"]),
    }


def _counters(path: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    lines = Path(path).read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        kind, *keys = names.split()
        found[kind.rstrip(":")] = dict(zip(keys, map(int, values.split()[1:]), strict=True))
    return found


def main() -> None:
    """Become the command, in a network of its own where the system permits it."""
    words, reason = sys.argv[1:], why_not()
    if reason is not None:
        sys.stderr.write(f"Runs in this machine's own network: {reason}\n")
    command = words if reason else in_one(words)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
