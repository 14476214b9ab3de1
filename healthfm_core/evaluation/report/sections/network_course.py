"""What it took each arm to be as good as a target, in a simulated network: cells and a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from healthfm_core.evaluation.report.wording import NOTHING, arm_name, duration, number, size
from healthfm_core.evaluation.time_to_accuracy import CourseRow

HEADS = ("arm", "best", "as good after", "time", "bytes", "rounds", "their time", "their bytes")


def course_table(rows: Sequence[CourseRow]) -> list[tuple[str, ...]]:
    """Return the heads and a line per arm; empty without a simulated network."""
    return [HEADS, *map(_line, rows)] if rows else []


def caption(rows: Sequence[CourseRow]) -> str:
    """Return what the table is about, in a sentence; empty without a simulated network."""
    if not rows:
        return ""
    if not rows[0].metric:
        return "No round was scored, so no target was set: federation.evaluate_every is 0."
    metric = rows[0].metric.removeprefix("tuning_").replace("_", " ").replace("auroc", "AUROC")
    wanted = f"{number(rows[0].target)} {metric} on tuning people"
    return f"When an arm's model was first as good as {wanted}."


def _line(row: CourseRow) -> tuple[str, ...]:
    reached = row.round is not None
    return (
        arm_name(row.arm),
        number(row.best) if math.isfinite(row.best) else NOTHING,
        f"round {row.round}" if reached else NOTHING,
        duration(row.seconds) if reached else NOTHING,
        size(row.bytes) if reached else NOTHING,
        str(row.rounds),
        duration(row.all_seconds),
        size(row.all_bytes),
    )
