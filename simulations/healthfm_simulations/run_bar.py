"""One progress bar with an ETA over all the runs of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RunBar(Protocol):
    """Hears how far a simulation is, and shows it while it is entered."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        ...

    def show_progress(self, name: str, units: float) -> None:
        """Show run `name` with `units` of it done, on top of the runs that are finished."""
        ...

    def finish(self, units: float) -> None:
        """Count a run of `units` as finished."""
        ...


MakeBar = Callable[[Console, float], RunBar]
"""Makes a bar for a console, and the units of the whole experiment."""


class RunProgressBar:
    """Shows how much of the whole experiment is done and when it will end.

    The unit is people trained on per round, so that runs of different sizes count as they cost.

    Args:
        console: Where to; not a terminal, it prints nothing but what the caller prints.
        total: Units of the whole experiment.
    """

    def __init__(self, console: Console, total: float) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<28.28}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)
        self._before = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show_progress(self, name: str, units: float) -> None:
        """Show run `name` with `units` of it done, on top of the runs that are finished."""
        self._progress.update(self._task, description=name, completed=self._before + units)

    def finish(self, units: float) -> None:
        """Count a run of `units` as finished."""
        self._before += units
        self._progress.update(self._task, completed=self._before)
