"""What each site brought to a run so far: how often it answered, how fast, with which figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from healthfm_server.page.curves import FIRST, written
from healthfm_server.page.run_history import RECENT, RunHistory

MOST_FIGURES: Final = 3


@dataclass(frozen=True)
class SiteTotal:
    """One site's.

    Attributes:
        site: Its name.
        taken: Rounds in which its update was taken.
        asked: Rounds in which it was asked.
        answer_s: Mean seconds until its answer, over the last rounds; None where not counted.
        figures: Its newest figures, in the order of `SiteTotals.names`.
    """

    site: str
    taken: int
    asked: int
    answer_s: float | None
    figures: tuple[str, ...]


@dataclass(frozen=True)
class SiteTotals:
    """All sites'.

    Attributes:
        names: Of the figures.
        sites: By name.
    """

    names: tuple[str, ...]
    sites: tuple[SiteTotal, ...]


def site_totals(history: RunHistory) -> SiteTotals:
    """Return what each site brought to a run."""
    names = [
        name for prefix in FIRST for name in sorted(history.site_figures) if name.startswith(prefix)
    ]
    shown = tuple(names[:MOST_FIGURES])
    return SiteTotals(shown, tuple(_total(history, site, shown) for site in sorted(history.sites)))


def _total(history: RunHistory, site: str, names: tuple[str, ...]) -> SiteTotal:
    taken, asked = history.share_answered(site)
    recent = range(max(0, len(history.rounds) - RECENT), len(history.rounds))
    times = [seconds for at in recent if (seconds := history.answer_s(at, site)) is not None]
    figures = tuple(written(_newest(history, name, site)) for name in names)
    return SiteTotal(site, taken, asked, sum(times) / len(times) if times else None, figures)


def _newest(history: RunHistory, name: str, site: str) -> float:
    values = history.site_figures[name].get(site, ())
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)
