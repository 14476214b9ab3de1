"""Who took part in a real federation's rounds, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from healthfm_core.evaluation.report.report_context import ReportContext, SiteParticipation
from healthfm_core.evaluation.report.wording import NOTHING, duration

MOST_REASONS = 3


@dataclass(frozen=True)
class ParticipationLine:
    """One site's line.

    Attributes:
        site: Its name.
        cells: Rounds asked, taken, held back, late, refused; seconds; ε where any site tells it.
        reasons: Why it was left out.
    """

    site: str
    cells: tuple[str, ...]
    reasons: tuple[str, ...]


def tells_epsilon(context: ReportContext) -> bool:
    """Whether a site told what its people have spent."""
    return any(site.epsilon is not None for site in context.participation)


def participation_lines(context: ReportContext) -> Sequence[ParticipationLine]:
    """Return a line per site."""
    with_epsilon = tells_epsilon(context)
    return [_line(site, with_epsilon=with_epsilon) for site in context.participation]


def _line(site: SiteParticipation, *, with_epsilon: bool) -> ParticipationLine:
    counts = (site.asked, site.answered, site.held_back, site.late, site.refused)
    after = NOTHING if site.answer_s is None else duration(site.answer_s)
    epsilon = NOTHING if site.epsilon is None else f"{site.epsilon:.2f}"
    cells = (*(str(number) for number in counts), after, *((epsilon,) if with_epsilon else ()))
    return ParticipationLine(site.site, cells, tuple(site.reasons[:MOST_REASONS]))
