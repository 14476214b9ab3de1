"""How numbers and names are written, on the page and in the terminal."""

from __future__ import annotations

import math
from typing import Final

from healthfm_core.evaluation.metrics.metric_rows import MINUS, MetricRow

SUBSET_NAMES: Final = {"overall": "overall", "repeat": "repeats", "new_onset": "new onsets"}
NOTHING: Final = "–"
TWO_DAYS_S: Final = 2 * 86400
"""Up to there durations are written in hours."""


def subset_name(subset: str) -> str:
    """Write a subset's name; ``ehr+wearable/new_onset`` is restricted inputs, then the subset."""
    if subset in SUBSET_NAMES:
        return SUBSET_NAMES[subset]
    inputs, _, rest = subset.partition("/")
    text = arm_name(inputs).replace("+", " + ")
    return f"{text}, {SUBSET_NAMES.get(rest, rest)}" if rest else text


def inputs_of(subset: str) -> str:
    """Return the inputs that a subset of rows was given: ``all``, or as its name begins."""
    first = subset.partition("/")[0]
    return "all" if first in SUBSET_NAMES else first


def number(value: float, *, signed: bool = False, digits: int = 3) -> str:
    """Write 0.1432 as ``.143`` and −0.02 as ``−.020``; a dash where there is no number."""
    if not math.isfinite(value):
        return NOTHING
    text = f"{abs(value):.{digits}f}"
    text = text[1:] if text.startswith("0.") else text
    negative = value < 0 and float(f"{abs(value):.{digits}f}") > 0
    return ("−" if negative else "+" if signed else "") + text


def interval(row: MetricRow) -> str:
    """Write a row's interval as ``.131 to .155``."""
    if not math.isfinite(row.low):
        return ""
    signed = row.is_difference
    return f"{number(row.low, signed=signed)} to {number(row.high, signed=signed)}"


def bracketed(row: MetricRow) -> str:
    """Write a row as ``.143 [.131, .155]``, a difference with its signs."""
    value, low, high = (number(x, signed=row.is_difference) for x in (row.value, row.low, row.high))
    return f"{value} [{low}, {high}]" if math.isfinite(row.low) else value


def arm_name(arm: str) -> str:
    """Write an arm's name, ``federated - local`` with a true minus sign."""
    return arm.replace(MINUS, " − ").replace("_", " ")


def count(n: int, k: int) -> str:
    """Write a number of people; below the threshold `k` only that it is below."""
    return f"< {k}" if 0 < n < k else f"{n:,}".replace(",", "\u202f")


def span(days: float) -> str:
    """Write a horizon as ``90 days`` or ``2 years``."""
    years, rest = divmod(days, 365)
    if years >= 1 and rest == 0:
        return "1 year" if years == 1 else f"{years:g} years"
    return f"{days:g} days"


def inputs_name(inputs: str) -> str:
    """Write modalities joined by ``+`` as ``ehr + wearable``."""
    return inputs.replace("+", " + ")


def duration(seconds: float) -> str:
    """Write seconds as ``42 s``, ``3 min 20 s`` or ``6 days 3 h``."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < TWO_DAYS_S:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def size(n_bytes: float) -> str:
    """Write bytes as ``760 kB`` or ``1.3 GB``, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.3g} TB"
