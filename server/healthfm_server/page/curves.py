"""Learning curves as SVG that a style sheet colours, each with its words."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from healthfm_server.page.run_history import RunHistory

WIDTH: Final = 360
HEIGHT: Final = 180
LEFT: Final = 44
RIGHT: Final = 10
TOP: Final = 10
BOTTOM: Final = 26
MOST_CURVES: Final = 8
MOST_LINES: Final = 12
"""Sites of which each has a line; of more the range is drawn, from a quarter to three quarters."""
MOST_POINTS: Final = 200
NAMED: Final = {
    "tuning_loss": "Loss on tuning people",
    "tuning_auroc": "AUROC on tuning people",
    "tuning_ap": "Average precision on tuning people",
    "tuning_average_precision": "Average precision on tuning people",
}
FIRST: Final = ("tuning_", "loss", "privacy_")
"""The order of the figures."""


@dataclass(frozen=True)
class RoundCurve:
    """One figure over the rounds.

    Attributes:
        name: The metric's.
        title: For a person.
        words: What the picture shows, for whoever does not see it.
        mean: Points of the mean's line, as SVG has them.
        sites: Points of each site's line.
        band: Points of the range between a quarter and three quarters of the sites; may be empty.
        ticks: Height in the picture and its figure.
        first: Number of the first round.
        last: Number of the last.
        table: Round and mean of the newest rounds.
    """

    name: str
    title: str
    words: str
    mean: str
    sites: tuple[str, ...]
    band: str
    ticks: tuple[tuple[float, str], ...]
    first: int
    last: int
    table: tuple[tuple[int, str], ...]


def curves_of(history: RunHistory) -> list[RoundCurve]:
    """Return the curves of a run: what is measured on tuning people first."""
    names = sorted(history.figures, key=lambda name: (_rank(name), name))
    shown = [name for name in names if _finite(history.figures[name])]
    return [_curve(name, history) for name in shown[:MOST_CURVES]]


def _rank(name: str) -> int:
    return next((at for at, prefix in enumerate(FIRST) if name.startswith(prefix)), len(FIRST))


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _curve(name: str, history: RunHistory) -> RoundCurve:
    rounds, mean = history.rounds, history.figures[name]
    own: Mapping[str, array[float]] = history.site_figures.get(name, {})
    each = len(own) <= MOST_LINES
    lows, highs = ([], []) if each else _quartiles(list(own.values()), len(rounds))
    every = _finite([*mean, *lows, *highs, *(v for s in own.values() if each for v in s)])
    low, high = min(every), max(every)
    scale = _Scale(len(rounds), low, high)
    title = NAMED.get(name, name.replace("_", " "))
    back = [(x, y) for x, y in reversed(scale.pairs(lows))]
    return RoundCurve(
        name=name,
        title=title,
        words=_words(title, rounds, mean, len(own)),
        mean=_points(scale.pairs(mean)),
        sites=tuple(_points(scale.pairs(values)) for values in own.values()) if each else (),
        band=_points([*scale.pairs(highs), *back]),
        ticks=tuple((scale.y(value), f"{value:.3g}") for value in _ticks(low, high)),
        first=rounds[0],
        last=rounds[-1],
        table=tuple((rounds[at], written(mean[at])) for at in range(len(mean))[-10:]),
    )


class _Scale:
    def __init__(self, count: int, low: float, high: float) -> None:
        self._count = count
        self._low = low
        self._span = (high - low) or 1.0

    def y(self, value: float) -> float:
        share = (value - self._low) / self._span
        return round(TOP + (1 - share) * (HEIGHT - TOP - BOTTOM), 1)

    def x(self, at: int) -> float:
        share = at / (self._count - 1) if self._count > 1 else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def pairs(self, values: Sequence[float]) -> list[tuple[float, float]]:
        places = _shown(len(values))
        return [(self.x(at), self.y(values[at])) for at in places if math.isfinite(values[at])]


def _shown(count: int) -> list[int]:
    """Return the places of so many rounds that have a point: the last, and evenly before it."""
    step = max(1, math.ceil(count / MOST_POINTS))
    return sorted({*range(0, count, step), count - 1}) if count else []


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in pairs)


def _quartiles(own: Sequence[Sequence[float]], count: int) -> tuple[list[float], list[float]]:
    """Return a quarter and three quarters of the sites in the rounds that are shown, else NaN."""
    lows, highs = [math.nan] * count, [math.nan] * count
    for at in _shown(count):
        found = sorted(v[at] for v in own if at < len(v) and math.isfinite(v[at]))
        if found:
            lows[at], highs[at] = found[len(found) // 4], found[(3 * len(found)) // 4]
    return lows, highs


def _ticks(low: float, high: float) -> list[float]:
    return [low, (low + high) / 2, high] if high > low else [low]


def _words(title: str, rounds: Sequence[int], mean: Sequence[float], sites: int) -> str:
    known = [(rounds[at], value) for at, value in enumerate(mean) if math.isfinite(value)]
    (first, begin), (last, end) = known[0], known[-1]
    low = min(known, key=lambda pair: pair[1])
    high = max(known, key=lambda pair: pair[1])
    beside = f", and the own of {sites} sites" if sites else ""
    return (
        f"{title}: {written(begin)} in round {first}, {written(end)} in round {last}; lowest "
        f"{written(low[1])} in round {low[0]}, highest {written(high[1])} in round {high[0]}; "
        f"mean of the sites{beside}"
    )


def written(value: float) -> str:
    """Return a figure in four digits."""
    return "–" if not math.isfinite(value) else f"{value:.4g}"
