"""Rounds × sites: a window of rounds, and beside it the round that is open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from healthfm_server.page.round_cells import SiteState
from healthfm_server.page.run_history import RunHistory
from healthfm_server.page.study_view import SiteNow

WINDOW: Final = 24
"""Rounds that are shown at once."""


@dataclass(frozen=True)
class SiteCell:
    """What a site did in a round.

    Attributes:
        state: What it did.
        said: More of it: why, or after how many seconds; empty where there is no more.
    """

    state: SiteState
    said: str


@dataclass(frozen=True)
class MatrixLine:
    """A site over the rounds of the window.

    Attributes:
        site: Its name.
        modalities: That it brings.
        cells: One for each round.
        now: What it does in the round that is open, or before round 1.
    """

    site: str
    modalities: tuple[str, ...]
    cells: tuple[SiteCell, ...]
    now: SiteCell | None


@dataclass(frozen=True)
class Matrix:
    """The matrix.

    Attributes:
        rounds: Numbers of the closed rounds in the window.
        lines: The sites, by name.
        open_round: Number of the round that is open; None: before round 1, or none is.
        has_now: Whether there is a column of what sites do now.
        earlier: The last round before the window; None where the window is the first.
        later: The last round of the next window; None where this is the last.
        states: Those that occur, for the legend.
        moved: Modality → how many sites moved its encoder in each round; none where it is not told.
    """

    rounds: tuple[int, ...]
    lines: tuple[MatrixLine, ...]
    open_round: int | None
    has_now: bool
    earlier: int | None
    later: int | None
    states: tuple[SiteState, ...]
    moved: Mapping[str, tuple[int, ...]]


def matrix_of(
    history: RunHistory,
    sites: Iterable[str],
    modalities: Mapping[str, Sequence[str]],
    now: Sequence[SiteNow],
    open_round: int | None,
    until: int | None = None,
) -> Matrix:
    """Return the matrix of a run.

    Args:
        history: Its rounds.
        sites: Names that have a line even where they were never asked.
        modalities: Site → those that it brings.
        now: What sites do now; shown beside the last window alone.
        open_round: Number of the round that is open.
        until: The last round of the window; None: the last there is.
    """
    total = len(history.rounds)
    end = total if until is None else sum(number <= until for number in history.rounds)
    start = max(0, end - WINDOW)
    shown = range(start, end)
    is_last = end == total
    doing = {one.site: one for one in now} if is_last else {}
    names = sorted({*sites, *history.sites, *doing})
    lines = tuple(
        MatrixLine(
            name,
            tuple(modalities.get(name, ())),
            tuple(_cell(history, at, name) for at in shown),
            _now(doing[name]) if name in doing else None,
        )
        for name in names
    )
    found = {
        cell.state for line in lines for cell in (*line.cells, *([line.now] if line.now else []))
    }
    return Matrix(
        rounds=tuple(history.rounds[at] for at in shown),
        lines=lines,
        open_round=open_round if is_last else None,
        has_now=bool(doing),
        earlier=history.rounds[start - 1] if start else None,
        later=None if is_last else history.rounds[min(end + WINDOW, total) - 1],
        states=tuple(sorted(found)),
        moved={
            modality: tuple(history.moved_by(modality, at) for at in shown)
            for modality in sorted(history.moved)
        },
    )


def _cell(history: RunHistory, at: int, site: str) -> SiteCell:
    seconds = history.answer_s(at, site)
    timed = "" if seconds is None else f"after {seconds:.0f} s"
    return SiteCell(history.cell(at, site), history.reason(at, site) or timed)


def _now(one: SiteNow) -> SiteCell:
    return SiteCell(one.state, one.reason)
