"""The privacy budget over the years, as a curve that only grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

WIDTH: Final = 420
LEFT: Final = 46
RIGHT: Final = 10
TOP: Final = 14
BASE: Final = 170
MOST_YEARS: Final = 6


@dataclass(frozen=True)
class BudgetCurve:
    """What a picture of it holds, in its own units.

    Attributes:
        path: Of the steps, as SVG's ``d``.
        limit: Height of the limit; None: there is none.
        ticks: Height and text of each line.
        years: Place and text of each year's beginning.
        words: The same in a sentence, for who does not see it.
    """

    path: str
    limit: float | None
    ticks: list[tuple[float, str]]
    years: list[tuple[float, str]]
    words: str


def budget_curve(report: Mapping[str, Any]) -> BudgetCurve:
    """Return ε of all studies together after each of them, over time.

    Args:
        report: `LedgerReport.to_json`, with a study at least.
    """
    studies, most = report["studies"], report["epsilon_max"]
    first, last = studies[0]["begun"], max(study["ended"] for study in studies)
    span = max(last - first, 86400.0)
    top = 1.1 * max([study["epsilon_after"] for study in studies] + [most or 0.0, 1e-3])

    def x(at: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (at - first) / span, 1)

    def y(value: float) -> float:
        return round(BASE - (BASE - TOP) * value / top, 1)

    path = f"M{x(first)},{y(0)}"
    for study in sorted(studies, key=lambda one: one["ended"]):
        path += f"H{x(study['ended'])}V{y(study['epsilon_after'])}"
    ticks = [(y(value), f"{value:.3g}") for value in (0.0, top / 2.2, top / 1.1)]
    limit = "no limit" if most is None else f"of {most:g} that site.yaml permits"
    spent = studies[-1]["epsilon_after"]
    words = f"From {_day(first)} to {_day(last)} ε grew to {spent:.2f}, {limit}."
    return BudgetCurve(
        path, None if most is None else y(most), ticks, _years(first, last, x), words
    )


def _years(first: float, last: float, x: Any) -> list[tuple[float, str]]:
    """Return the beginnings of years between two times, six at most; else the first day."""
    years = range(_date(first).year + 1, _date(last).year + 1)
    shown = list(years)[:: max(1, -(-len(years) // MOST_YEARS))]
    found = [(x(datetime(year, 1, 1, tzinfo=UTC).timestamp()), str(year)) for year in shown]
    return found or [(x(first), _day(first))]


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _day(seconds: float) -> str:
    return f"{_date(seconds):%Y-%m-%d}"
