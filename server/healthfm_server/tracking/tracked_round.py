"""A round's row of history as numbers for a tracker, under the names they have in the history."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

SCORES: Final = "tuning_"
"""How the names begin of what the sites found on their tuning people before they trained."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")


@dataclass(frozen=True)
class TrackedRound:
    """One round for a tracker.

    Attributes:
        number: Of the round.
        ended_ms: When it ended, in milliseconds since 1970. The history has durations and no clock:
            it is counted back from the file's last change.
        figures: Metric → number, of the round.
        scores: Metric → number, of the model that the round began with.
        is_again: Whether another row of this round was read before: a run that was resumed did the
            round once more.
    """

    number: int
    ended_ms: int
    figures: Mapping[str, float]
    scores: Mapping[str, float]
    is_again: bool = False

    def steps(self) -> Iterator[tuple[int, Mapping[str, float]]]:
        """Yield (rounds in the model, metrics): the sites score a model before they train on it."""
        if self.scores:
            yield self.number - 1, self.scores
        yield self.number, self.figures


def figures_of(
    row: Mapping[str, Any], *, by_site: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Return a row's (figures, scores): the round's own, and those of the model it began with.

    Args:
        row: Of `healthfm_server.round_history`.
        by_site: Whether sites' own figures are among them, as ``site/<name>/<metric>``.
    """
    found: dict[str, float] = {
        "round_seconds": row.get("seconds", math.nan),
        "sites_asked": len(row.get("asked", ())),
        "sites_answered": len(row.get("answered", ())),
    }
    found |= {f"bytes_{way}": count for way, count in row.get("bytes", {}).items()}
    if "privacy" in row:
        found["privacy_epsilon_of_sums"] = row["privacy"]["epsilon"]
    found |= row.get("metrics", {})
    sites = row.get("site_metrics", {}) if by_site else {}
    told = {f"site/{site}/{name}": v for site, own in sites.items() for name, v in own.items()}
    known = {name: float(v) for name, v in (found | told).items() if _is_figure(name, v)}
    scores = {name: v for name, v in known.items() if name.split("/")[-1].startswith(SCORES)}
    return {name: v for name, v in known.items() if name not in scores}, scores


def _is_figure(name: str, value: Any) -> bool:
    """Whether it is a finite number under a name that every tracker takes."""
    return (
        _NAME.fullmatch(name) is not None
        and isinstance(value, int | float)
        and math.isfinite(value)
    )
