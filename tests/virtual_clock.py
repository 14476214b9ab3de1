"""A clock that moves only while somebody waits: a deadline passes at once, and none comes early.

Under load a real deadline of a tenth of a second passes before the first reply is looked at. Here
work takes no time, however slow the machine is, and waiting takes all the time that was asked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock


class VirtualClock:
    """What the coordinator uses of `time`.

    Attributes:
        now_s: What it shows; only `sleep` moves it.
    """

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        """Return what it shows, seconds."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Move it."""
        self.now_s += seconds


@contextmanager
def virtual_clock() -> Iterator[VirtualClock]:
    """Let every module of the coordinator wait on a clock of its own."""
    clock = VirtualClock()
    ours = [module for name, module in sys.modules.items() if name.startswith("healthfm_server.")]
    with ExitStack() as patched:
        for module in ours:
            if getattr(module, "time", None) is time:
                patched.enter_context(mock.patch.object(module, "time", clock))
        yield clock
