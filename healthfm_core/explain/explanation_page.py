"""An explanation as one page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import jinja2
import numpy as np

from healthfm_core.explain import drawing
from healthfm_core.explain.occlusion import Contribution
from healthfm_core.explain.person_explanation import Explanation, TargetRisk

DRAWN: Final = 15
"""Single things in the chart."""
LISTED: Final = 25
"""Single things in the table; the others are many and small."""
LONGEST_LABEL: Final = 44
"""Letters of a name in the chart; the table has it whole."""
_FINE_DAYS: Final = 60
"""Records shorter than this are shown by the hour."""
_TEMPLATES: Final = ("healthfm_core.explain", "healthfm_core.evaluation.report")
"""The page's own, and the report's style, so that both look alike."""
_NOT_SINGLE: Final = ("group", "visit")


@dataclass(frozen=True)
class ExplanationRow:
    """A line of a table, as written; `value` is the change in log-odds."""

    name: str
    detail: str
    when: str
    log_odds: str
    risk: str
    value: float

    @property
    def is_shown(self) -> bool:
        """Whether the change is more than 0 as written."""
        return any(digit in "123456789" for digit in self.log_odds)

    @property
    def label(self) -> str:
        """Name and time, for the chart."""
        cut = self.name if len(self.name) <= LONGEST_LABEL else f"{self.name[: LONGEST_LABEL - 1]}…"
        return f"{cut}, {self.when}" if self.when else cut


@dataclass(frozen=True)
class ExplanationSection:
    """One target on the page: its figures and tables."""

    heading: str
    opening: str
    over_time: str
    by_kind: str
    single: str
    groups: tuple[ExplanationRow, ...]
    things: tuple[ExplanationRow, ...]
    visits: tuple[ExplanationRow, ...]
    smaller: int
    unread: int


def explanation_html(explanation: Explanation) -> str:
    """Return the page's HTML: about one person, so it stays at the site."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    heads = explanation.memories
    return environment.get_template("explain.html.j2").render(
        explanation=explanation,
        asked_at=_when(explanation, int(explanation.time_us[explanation.chosen])),
        sections=[_section(explanation, t, f"t{i}") for i, t in enumerate(explanation.targets)],
        memory=drawing.memory_figure(heads) if heads else "",
        remembers=_remembers(explanation),
    )


def _section(explanation: Explanation, target: TargetRisk, name: str) -> ExplanationSection:
    read = [contribution for contribution in target.contributions if contribution.read]
    groups = _rows(
        explanation, [contribution for contribution in read if contribution.part.kind == "group"]
    )
    visits = _largest(
        explanation, [contribution for contribution in read if contribution.part.kind == "visit"]
    )
    single = [contribution for contribution in read if contribution.part.kind not in _NOT_SINGLE]
    things = _largest(explanation, single)
    listed = tuple(row for row in things[:LISTED] if row.is_shown)
    unread = [f for f in target.contributions if not f.read and f.part.kind == "event"]
    return ExplanationSection(
        heading=target.name,
        opening=_opening(explanation, target),
        over_time=drawing.risk_figure(explanation, target, f"{name}-risk"),
        by_kind=drawing.bars_figure([(row.label, row.value) for row in groups], f"{name}-kinds"),
        single=drawing.bars_figure(
            [(row.label, row.value) for row in things[:DRAWN]], f"{name}-single"
        ),
        groups=groups,
        things=listed,
        visits=visits[:DRAWN],
        smaller=len(things) - len(listed),
        unread=len(unread),
    )


def _largest(
    explanation: Explanation, contributions: Sequence[Contribution]
) -> tuple[ExplanationRow, ...]:
    order = sorted(range(len(contributions)), key=lambda i: (-abs(contributions[i].log_odds), i))
    return _rows(explanation, [contributions[i] for i in order])


def _rows(
    explanation: Explanation, contributions: Sequence[Contribution]
) -> tuple[ExplanationRow, ...]:
    return tuple(
        ExplanationRow(
            name=one.part.name,
            detail=one.part.detail,
            when="" if one.part.time_us is None else _when(explanation, one.part.time_us),
            log_odds=_signed(one.log_odds, 3),
            risk=_signed(100 * one.risk, 2),
            value=one.log_odds,
        )
        for one in contributions
    )


def _opening(explanation: Explanation, target: TargetRisk) -> str:
    now = target.risk[explanation.chosen]
    text = f"Risk within {explanation.horizon_days:g} days: {100 * now:.1f} %."
    if explanation.chosen:
        before = target.risk[explanation.chosen - 1]
        text += f" After the visit before it was {100 * before:.1f} %."
    return text


def _remembers(explanation: Explanation) -> str:
    """Say how far back the model's heads look."""
    spans = sorted(head.half_at_days for head in explanation.memories)
    if not spans:
        return ""
    return (
        f"Of {len(spans)} heads, the one that forgets fastest gives half the weight to what is "
        f"{drawing.span(spans[0])} old; the slowest to what is {drawing.span(spans[-1])} old."
    )


def _signed(value: float, digits: int) -> str:
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("−" if value < 0 else "+") + text


def _when(explanation: Explanation, time_us: int) -> str:
    """Write a date, with the time of day where the whole record is short."""
    every = np.append(explanation.time_us, explanation.worn_us)
    fine = np.ptp(every) < _FINE_DAYS * 86_400_000_000
    moment = np.datetime64(time_us, "us")
    return str(moment.astype("datetime64[m]" if fine else "datetime64[D]")).replace("T", " ")
