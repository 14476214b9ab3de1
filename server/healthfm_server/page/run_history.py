"""A run's history as the page keeps it in memory: a byte a cell, four a figure.

Rows are read once, as they are added: with 200 sites a row of the file has a hundred kilobytes.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from healthfm_core.modalities.registry import modality_names
from healthfm_core.row_reading import RowFollower
from healthfm_server.page.round_cells import SiteState, closed_state

KEPT: Final = ("loss", "tuning_", "privacy_")
"""How the metrics begin that are kept of every round; the API has all, from the file."""
REASONS_OF: Final = 64
"""Rounds, the newest, of which each site's reason is in memory."""
RECENT: Final = 10
"""Rounds by whose time the end is expected."""


class MovedGroup(msgspec.Struct):
    """What of a group of parameters is read."""

    sites: int = 0


class HistoryRow(msgspec.Struct):
    """What of a row is read; see `round_history.history_row`."""

    round: int
    seconds: float = 0.0
    asked: list[str] = []
    answered: list[str] = []
    set_aside: dict[str, str] = {}
    outliers: dict[str, str] = {}
    groups: dict[str, MovedGroup] = {}
    metrics: dict[str, float] = {}
    site_metrics: dict[str, dict[str, float]] = {}
    site_seconds: dict[str, float] = {}
    privacy: dict[str, Any] = {}
    bytes: dict[str, int] = {}
    alarms: list[str] = []


class RunHistory:
    """The rounds of a run so far; `look` reads what is new.

    Args:
        folder: The run's.

    Attributes:
        rounds: Numbers of the rounds, in order.
        seconds: What each took.
        sites: Every site that was asked in any round, in the order they came.
        figures: Metric → its mean over the sites, of each round; NaN where there is none.
        site_figures: Metric → site → its own, of each round.
        moved: Modality → how many sites moved its encoder, of each round.
        privacy: What the rounds cost so far, where their sums carry noise.
        bytes: ``down`` and ``up``, of arrays, in all rounds together; empty where not counted.
        alarms: Of the newest round.
        version: Another number whenever something was read.
    """

    def __init__(self, folder: Path) -> None:
        self.version = 0
        self._follower = RowFollower(folder / "history.jsonl", keeps_places=True)
        self._decoder = msgspec.json.Decoder(HistoryRow)
        self._modalities = frozenset(modality_names())
        self._clear()

    def _clear(self) -> None:
        self.rounds: list[int] = []
        self.seconds = array("f")
        self.sites: dict[str, int] = {}
        self.figures: dict[str, array[float]] = {}
        self.site_figures: dict[str, dict[str, array[float]]] = {}
        self.moved: dict[str, array[int]] = {}
        self.privacy: dict[str, Any] = {}
        self.bytes: dict[str, int] = {}
        self.alarms: list[str] = []
        self._taken, self._asked = array("L"), array("L")
        self._cells: list[bytes] = []
        self._lines: list[int] = []
        self._last: dict[str, Any] | None = None
        self._reasons: dict[int, dict[str, str]] = {}
        self._site_seconds: dict[int, dict[str, float]] = {}

    def look(self) -> None:
        """Read what is new."""
        read = 0
        for line in self._follower.new_lines():
            if self._follower.began_anew and not read:
                self._clear()
            read += 1
            with suppress(msgspec.DecodeError):  # a kill cut it short, and the next one is whole
                self._add(self._decoder.decode(line), len(self._follower.places) - 1)
        if self._follower.began_anew and not read:
            self._clear()
        self.version += bool(read) or self._follower.began_anew

    def _add(self, row: HistoryRow, line: int) -> None:
        for site in row.asked:
            self.sites.setdefault(site, len(self.sites))
        cells, answered = bytearray(len(self.sites)), set(row.answered)
        for site in row.asked:
            reason, held = row.set_aside.get(site), site in row.outliers
            cells[self.sites[site]] = closed_state(site in answered, reason, held)
            self._count(self.sites[site], cells[self.sites[site]])
        self._cells.append(bytes(cells))
        self._lines.append(line)
        self._last = None
        self.rounds.append(row.round)
        self.seconds.append(row.seconds)
        self._reasons[row.round] = row.set_aside | row.outliers
        self._site_seconds[row.round] = row.site_seconds
        for kept in (self._reasons, self._site_seconds):
            while len(kept) > REASONS_OF:
                kept.pop(next(iter(kept)))
        for way, count in row.bytes.items():
            self.bytes[way] = self.bytes.get(way, 0) + count
        for group, told in row.groups.items():
            if group in self._modalities:
                of_group = self.moved.setdefault(group, array("L"))
                of_group.extend([0] * (len(self.rounds) - 1 - len(of_group)))
                of_group.append(told.sites)
        self._add_figures(row)
        self.privacy, self.alarms = row.privacy or self.privacy, row.alarms

    def _add_figures(self, row: HistoryRow) -> None:
        at = len(self.rounds) - 1
        for name, value in row.metrics.items():
            if name.startswith(KEPT):
                _put(self.figures.setdefault(name, array("f")), at, value)
        for site, metrics in row.site_metrics.items():
            for name, value in metrics.items():
                if name.startswith(KEPT):
                    of_metric = self.site_figures.setdefault(name, {})
                    _put(of_metric.setdefault(site, array("f")), at, value)

    def cell(self, at: int, site: str) -> SiteState:
        """Return what a site did in the round at a place of `rounds`."""
        column, cells = self.sites.get(site), self._cells[at]
        if column is None or column >= len(cells):
            return SiteState.NOT_ASKED
        return SiteState(cells[column])

    def moved_by(self, modality: str, at: int) -> int:
        """Return how many sites moved a modality's encoder in the round at a place of `rounds`."""
        counts = self.moved.get(modality, ())
        return counts[at] if at < len(counts) else 0

    def reason(self, at: int, site: str) -> str:
        """Return why, where something is noted of one of the newest rounds."""
        return self._reasons.get(self.rounds[at], {}).get(site, "")

    def answer_s(self, at: int, site: str) -> float | None:
        """Return after how many seconds a site's answer was there, of one of the newest rounds."""
        return self._site_seconds.get(self.rounds[at], {}).get(site)

    def share_answered(self, site: str) -> tuple[int, int]:
        """Return in how many rounds a site's update was taken, and in how many it was asked."""
        column = self.sites.get(site)
        return (0, 0) if column is None else (self._taken[column], self._asked[column])

    def counts(self, site: str) -> Counter[SiteState]:
        """Return in how many rounds a site did what."""
        column = self.sites.get(site)
        if column is None:
            return Counter()
        return Counter(SiteState(cells[column]) for cells in self._cells if column < len(cells))

    def _count(self, column: int, cell: int) -> None:
        while len(self._asked) <= column:
            self._asked.append(0)
            self._taken.append(0)
        self._asked[column] += 1
        self._taken[column] += cell in (SiteState.ANSWERED, SiteState.HELD_BACK)

    def round_s(self) -> float | None:
        """Return the mean time of the last rounds, in seconds; None before the first."""
        recent = self.seconds[-RECENT:]
        return sum(recent) / len(recent) if recent else None

    def last_row(self) -> dict[str, Any]:
        """Return the newest row whole; empty before the first."""
        if self._lines and self._last is None:
            self._last = self._row(len(self._lines) - 1)
        return self._last or {}

    def rows(self, after: int, limit: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of the rounds after `after`, whole, `limit` at most."""
        places = [at for at, number in enumerate(self.rounds) if number > after][:limit]
        yield from map(self._row, places)

    def _row(self, at: int) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self._follower.line(self._lines[at]))
        return row


def figures_at(figures: Mapping[str, array[float]], at: int) -> dict[str, float]:
    """Return the figures of one round, without those that it has not."""
    found = {name: values[at] for name, values in figures.items() if at < len(values)}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _put(values: array[float], at: int, value: float) -> None:
    while len(values) < at:
        values.append(math.nan)
    values.append(value)
