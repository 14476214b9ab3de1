"""How far a long command is, on stderr: a bar at a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from healthfm_client.ingest.pipeline import ShowProgress

LINE_EVERY_S: Final = 30.0


@contextmanager
def progress_bar() -> Iterator[ShowProgress]:
    """Give what shows a stream's progress; what was shown of it goes at the end."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=max(total, 1))

        yield show


def _lines() -> ShowProgress:
    started: dict[str, float] = {}
    said = [time.monotonic()]

    def show(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        start = started.setdefault(what, now)
        if now - said[0] < LINE_EVERY_S or not done:
            return
        said[0] = now
        left = (now - start) / done * max(total - done, 0)
        sys.stderr.write(f"{what}: {done / max(total, 1):.0%}, about {left:.0f} s left\n")

    return show
