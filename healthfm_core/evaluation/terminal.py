"""The arms' table for a terminal of 100 columns."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from healthfm_core.evaluation.sections import arms_of
from healthfm_core.evaluation.tables import MetricRow
from healthfm_core.evaluation.wording import SUBSET_NAMES, arm_name, bracketed

NEXT_VISIT = (
    ("overall", "average_precision", "AP"),
    ("repeat", "average_precision", "AP"),
    ("new_onset", "average_precision", "AP"),
    ("new_onset", "auroc", "AUROC"),
)
LABEL = (
    ("overall", "auroc", "AUROC"),
    ("overall", "average_precision", "AP"),
    ("overall", "brier", "Brier"),
    ("overall", "ece", "ECE"),
)


def arms_table(rows: Sequence[MetricRow], *, reference: str = "federated") -> Table:
    """Return a table of arms with 95 % intervals, at most 100 columns wide.

    Args:
        rows: Rows of one task; paired differences are left out.
        reference: The arm put first.
    """
    plain = [row for row in rows if not row.is_difference]
    is_label = all(row.subset != "new_onset" for row in plain)
    columns = LABEL if is_label else NEXT_VISIT
    found = {(row.arm, row.subset, row.metric): row for row in plain}
    people = max((row.n_subjects for row in plain), default=0)
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption=f"95 % intervals over {people} held-out people",
        caption_justify="left",
    )
    table.add_column("arm", max_width=20)
    for subset, _, short in columns:
        head = short if is_label else f"{SUBSET_NAMES[subset]}\n{short}"
        table.add_column(head, justify="right", no_wrap=True)
    for arm in arms_of(plain, reference):
        cells = [found.get((arm, subset, metric)) for subset, metric, _ in columns]
        table.add_row(arm_name(arm), *("–" if row is None else bracketed(row) for row in cells))
    return table


def arms_text(rows: Sequence[MetricRow], *, reference: str = "federated", width: int = 100) -> str:
    """Return `arms_table` as plain text without colours."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, no_color=True, force_terminal=False)
    console.print(arms_table(rows, reference=reference))
    return buffer.getvalue()
