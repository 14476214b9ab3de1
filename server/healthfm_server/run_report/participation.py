"""Who took part in a run, counted over its rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from healthfm_core.evaluation.report.report_context import SiteParticipation
from healthfm_core.row_reading import rows_backwards
from healthfm_server.page.round_cells import SiteState
from healthfm_server.page.run_history import RECENT, RunHistory

EVENTS_READ: Final = 20_000
"""Newest events that are looked through for reasons."""
MOST_REASONS: Final = 8
EPSILON: Final = "privacy_epsilon"


def participation(history: RunHistory, folder: Path) -> list[SiteParticipation]:
    """Return what each site did, by name.

    Args:
        history: The run's rounds.
        folder: The run's, for the reasons in its events.
    """
    reasons = _reasons(folder)
    return [_of_site(history, site, reasons.get(site, ())) for site in sorted(history.sites)]


def _of_site(history: RunHistory, site: str, reasons: Sequence[str]) -> SiteParticipation:
    counts = history.counts(site)
    recent = range(max(0, len(history.rounds) - RECENT), len(history.rounds))
    times = [seconds for at in recent if (seconds := history.answer_s(at, site)) is not None]
    told = [e for e in history.site_figures.get(EPSILON, {}).get(site, ()) if math.isfinite(e)]
    held_back = counts[SiteState.HELD_BACK]
    return SiteParticipation(
        site=site,
        asked=sum(counts.values()) - counts[SiteState.NOT_ASKED],
        answered=counts[SiteState.ANSWERED] + held_back,
        held_back=held_back,
        late=counts[SiteState.LATE],
        refused=counts[SiteState.REFUSED],
        answer_s=sum(times) / len(times) if times else None,
        epsilon=max(told, default=None),
        reasons=reasons,
    )


def _reasons(folder: Path) -> Mapping[str, Sequence[str]]:
    """Return site → why it was left out, each reason once, the newest first."""
    found: dict[str, list[str]] = {}
    for event in islice(rows_backwards(folder / "events.log"), EVENTS_READ):
        if event.get("event") == "set aside":
            of_site = found.setdefault(str(event.get("site", "")), [])
            reason = str(event.get("reason", ""))
            if reason not in of_site and len(of_site) < MOST_REASONS:
                of_site.append(reason)
    return found
