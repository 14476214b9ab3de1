"""A progress bar in the output of a notebook's cell, over all the runs of a simulation."""

from __future__ import annotations

import sys
import time
from html import escape
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from rich.console import Console


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows what is displayed."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class NotebookProgressBar:
    """Shows in one cell output how much of a simulation is done and how long the rest will take.

    Args:
        console: Not written to: the output is the cell's own.
        total: Units of the whole simulation, as of `RunProgressBar`.
    """

    def __init__(self, console: Console, total: float) -> None:
        del console
        self._total, self._before, self._done = total, 0.0, 0.0
        self._name, self._shown = "", (-1, "")
        self._began = time.monotonic()
        self._handle: Any = None

    def __enter__(self) -> Self:
        ipython = import_module("IPython.display")  # here: only a notebook has it
        self._handle = ipython.display(self._page(), raw=True, display_id=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._name = "done" if kind is None else "stopped"
        self._draw()

    def show_progress(self, name: str, units: float) -> None:
        """Show run `name` with `units` of it done, on top of the runs that are finished."""
        self._name, self._done = name, self._before + units
        self._draw()

    def finish(self, units: float) -> None:
        """Count a run of `units` as finished."""
        self._before += units
        self._done = self._before
        self._draw()

    def _draw(self) -> None:
        """Send what is shown, where it has changed by a percent or in its name."""
        now = (self._percent(), self._name)
        if self._handle is not None and now != self._shown:
            self._shown = now
            self._handle.update(self._page(), raw=True)

    def _percent(self) -> int:
        return 100 if not self._total else min(100, int(100 * self._done / self._total))

    def _page(self) -> dict[str, str]:
        percent = self._percent()
        text = " ".join(filter(None, (self._name, f"{percent} %", self._left())))
        bar = f'<progress max="100" value="{percent}" style="width:60%"></progress>'
        return {"text/plain": text, "text/html": f"<div>{bar} {escape(text)}</div>"}

    def _left(self) -> str:
        if not 0 < self._done < self._total or self._name == "stopped":
            return ""
        took = time.monotonic() - self._began
        return f"about {took * (self._total / self._done - 1):.0f} s left"
