"""Before and after a supervisor starts: are the ports free, is the folder no copy, does it last.

A supervisor starts what cannot run again and again, and shows it as running in between: so whoever
starts it looks at what stands in the way first, and at how often a process has ended.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from healthfm_core.errors import RunError

PORT_PATIENCE_S: Final = 10.0
"""For processes of an earlier start to let go of a port."""
PLACE: Final = "place"
"""File beside the supervisor's, with the folder in which it was started last."""
LOOKED_BACK: Final = timedelta(minutes=2)
LOOPING: Final = 3
"""A process that ended so often in that time does not last."""
_TAIL_BYTES: Final = 64 * 1024
_EXITED: Final = re.compile(r"^(\d+-\d+-\d+ \d+:\d+:\d+),\d+ \w+ exited: (\S+) ", re.MULTILINE)


def refuse_taken_port(host: str, port: int, do: str, patience_s: float = PORT_PATIENCE_S) -> None:
    """Return when an address can be listened on.

    Args:
        host: Its address on this machine.
        port: Its port.
        do: What to do where another program has it.
        patience_s: How long an earlier start's processes may still have it.

    Raises:
        RunError: It cannot be listened on (HF-721).
    """
    until = time.monotonic() + patience_s
    while (error := _listening_error(host, port)) is not None:
        if error.errno != errno.EADDRINUSE or time.monotonic() > until:
            taken = error.errno == errno.EADDRINUSE
            seen = "another program listens there" if taken else error.strerror or "it is refused"
            where = f"port {port} of {host}"
            raise RunError(721, where=where, seen=seen, wanted="a port of our own", do=do)
        time.sleep(0.2)


def can_listen(host: str, port: int) -> bool:
    """Return whether an address of this machine is free to be listened on."""
    return _listening_error(host, port) is None


def _listening_error(host: str, port: int) -> OSError | None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server((str(address[0]), port), family=family).close()
    except OSError as error:
        return error
    return None


def refuse_copy(folder: Path, mark: str) -> None:
    """Refuse to start a copy of a folder beside its original: both would be the same to others.

    Args:
        folder: The supervisor's, in the folder that may be a copy.
        mark: File below the latter that no two made by themselves have alike.

    Raises:
        RunError: It is one, and the original is there still (HF-724).
    """
    here, file = folder.resolve().parent, folder / PLACE
    there = Path(file.read_text("utf-8")) if file.is_file() else here
    ours, theirs = here / mark, there / mark
    beside = theirs.is_file() and not os.path.samefile(ours, theirs)
    if beside and ours.read_bytes() == theirs.read_bytes():
        raise RunError(
            724,
            where=str(here),
            seen=f"it is a copy of {there}, which is there still",
            wanted="one of the two, or others cannot tell which they speak to",
            do="Start the original, or move it away first",
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(str(here), "utf-8")


def recent_ends(log: Path, names: Collection[str]) -> Counter[str]:
    """Return how often each process has ended by itself of late, by the supervisor's log."""
    if not log.is_file():
        return Counter()
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        tail = file.read().decode("utf-8", "replace")
    since = datetime.now() - LOOKED_BACK
    return Counter(
        name
        for at, name in _EXITED.findall(tail)
        if name in names and datetime.fromisoformat(at) > since
    )


def last_words(log: Path) -> str:
    """Return the last line that a process wrote, for a person to read."""
    if not log.is_file():
        return "it wrote nothing"
    lines = log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:300] if said else "it wrote nothing"
