"""What a finished simulation prints: its tables, what they leave out, and the notes."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from healthfm_core.evaluation.report import terminal_tables
from healthfm_simulations.simulation_run import SimulationResult


def printed(result: SimulationResult) -> Iterator[Table | str]:
    """Yield the tables and sentences, in order."""
    yield terminal_tables.arms_table(result.rows, seeds=result.seeds, remarks=result.remarks)
    yield from terminal_tables.subset_tables(
        result.rows, seeds=result.seeds, remarks=result.remarks
    )
    yield from terminal_tables.task_tables(result.secondary)
    if (course := terminal_tables.course_table(result.context.course)) is not None:
        yield course
    yield from terminal_tables.contrasts(result.rows)
    yield from result.notes


def as_text(result: SimulationResult, width: int = 100) -> str:
    """Return all of it as plain text."""
    page = io.StringIO()
    console = Console(
        file=page, width=width, highlight=False, force_terminal=False, force_jupyter=False
    )
    for part in printed(result):
        console.print(part)
    return page.getvalue().strip("\n")
