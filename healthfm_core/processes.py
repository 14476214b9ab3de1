"""How many processes can work at a time, and what one does whose parent is gone."""

from __future__ import annotations

import os
import signal
from multiprocessing import parent_process
from threading import Thread


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def follow_the_parent() -> None:
    """Leave interruptions (Ctrl-C) to the parent, and end at once when it has ended.

    To be called in a process of `multiprocessing`, first. A pool's processes outlive a parent that
    is killed otherwise, and go on writing.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
