"""A site's ledger as its administrator reads it: by study, in all, what is left; with a plot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Final, Self

from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_core.errors import ConfigError
from healthfm_core.privacy.accounting import (
    PRV_MECHANISMS_AT_MOST,
    Accountant,
    epsilon,
    merge_steps,
)
from healthfm_core.privacy.ledger import LedgerEntry, spent_mechanisms

_WIDTH: Final = 640
_HEIGHT: Final = 220
_LEFT: Final = 44
_BASE: Final = 180


@dataclass(frozen=True)
class StudyCost:
    """What one study cost.

    Attributes:
        name: As its coordinator called it.
        run: The run's id.
        begun: Its first line, seconds since 1970.
        ended: Its last.
        rounds: Rounds reserved.
        steps: Steps taken, or reserved and not closed.
        open: Reservations that were never closed; they count in full.
        epsilon: Of this study alone; None where it trained without noise.
        epsilon_after: Of everything up to its end.
    """

    name: str
    run: str
    begun: float
    ended: float
    rounds: int
    steps: int
    open: int
    epsilon: float | None
    epsilon_after: float


@dataclass(frozen=True)
class LedgerReport:
    """What a ledger says.

    Attributes:
        path: The file.
        lines_verified: How many lines it has.
        delta: δ that ε is counted at.
        epsilon: Of everything together.
        epsilon_max: The site's limit, if it has one.
        studies: In the order they began.
        last_hash: Hash of the last line, worth keeping elsewhere.
    """

    path: str
    lines_verified: int
    delta: float
    epsilon: float
    epsilon_max: float | None
    studies: tuple[StudyCost, ...]
    last_hash: str

    @classmethod
    def of(cls, rules: SitePrivacy) -> Self:
        """Return what the site's ledger says.

        Raises:
            ConfigError: The policy names none (HF-103).
            PrivacyError: It is damaged, or cannot be read (HF-602, HF-603).
        """
        ledger = rules.open_ledger()
        if ledger is None:
            raise ConfigError(
                103,
                where="privacy.ledger",
                seen="the policy names no ledger",
                wanted="a file that keeps count",
                do="Add privacy.ledger to site.yaml; site.example.yaml explains it",
            )
        entries = ledger.entries()
        return cls(
            path=str(ledger.path),
            lines_verified=len(entries),
            delta=rules.delta,
            epsilon=epsilon(spent_mechanisms(entries), rules.delta),
            epsilon_max=rules.epsilon_max,
            studies=tuple(_studies(entries, rules.delta)),
            last_hash=entries[-1].hash if entries else "",
        )

    @property
    def left(self) -> float | None:
        """ε that is left; None without a limit. It is no sum: costs add up to less than that."""
        return None if self.epsilon_max is None else max(0.0, self.epsilon_max - self.epsilon)

    @property
    def unprotected(self) -> int:
        """How many studies trained without noise, which no ε covers."""
        return sum(study.epsilon is None for study in self.studies)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {**asdict(self), "left": self.left, "unprotected": self.unprotected}

    @property
    def warning(self) -> str:
        """What is to be read before every ε; empty where each run had noise."""
        if not self.unprotected:
            return ""
        names = ", ".join(sorted({s.name[:40] for s in self.studies if s.epsilon is None}))
        return (
            f"NOT PROTECTED: {self.unprotected} trained without noise ({names}). No ε covers "
            "those; every figure here leaves them out."
        )

    def lines(self) -> Iterator[str]:
        """Yield the table and what it comes to, line by line."""
        if self.warning:
            yield self.warning
            yield ""
        yield f"{'study':20s} {'first':10s} {'last':10s} {'rounds':>6s} {'steps':>7s} {'ε':>8s}"
        for study in self.studies:
            cost = "no noise" if study.epsilon is None else f"{study.epsilon:.2f}"
            dates = f"{_day(study.begun)} {_day(study.ended)}"
            yield f"{study.name[:20]:20s} {dates} {study.rounds:6d} {study.steps:7d} {cost:>8s}"
        yield ""
        yield from self.conclusion()

    def conclusion(self) -> Iterator[str]:
        """Yield what the table comes to, a sentence each."""
        limit = "no limit is set" if self.epsilon_max is None else f"of {self.epsilon_max:g}"
        left = "" if self.left is None else f"; {self.left:.2f} is left"
        yield f"All together: ε {self.epsilon:.2f} {limit}{left} (δ {self.delta:g})."
        yield "Costs of several studies add up to less than their sum."
        still = sum(study.open for study in self.studies)
        if still:
            yield f"{still} rounds were begun and never closed; they count in full."
        yield f"{self.lines_verified} lines verified. Keep the last hash elsewhere:"
        yield self.last_hash


def _studies(entries: Sequence[LedgerEntry], delta: float) -> Iterator[StudyCost]:
    with_all = merge_steps(spent_mechanisms(entries))
    accountant: Accountant = "prv" if len(with_all) <= PRV_MECHANISMS_AT_MOST // 2 else "rdp"
    for run in dict.fromkeys(entry.study for entry in entries):
        own = [entry for entry in entries if entry.study == run]
        mine = spent_mechanisms(own)
        until = entries[: own[-1].number + 1]
        reserved = {e.number for e in own if e.event == "reserve"}
        closed = {e.reserve for e in own if e.event == "spend"}
        bare = any(e.event == "unprotected" for e in own)
        yield StudyCost(
            name=own[0].name,
            run=run,
            begun=own[0].time,
            ended=own[-1].time,
            rounds=len(reserved),
            steps=sum(part.steps for part in mine),
            open=len(reserved - closed),
            epsilon=None if bare else epsilon(mine, delta),
            epsilon_after=epsilon(spent_mechanisms(until), delta, accountant),
        )


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def report_page(report: LedgerReport) -> str:
    """Return a page of one's own with the table, the plot and the sentences; nothing is fetched."""
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{escape(cell)}</td>"
            for cell in (
                study.name,
                study.run,
                _day(study.begun),
                _day(study.ended),
                str(study.rounds),
                str(study.steps),
                "no noise" if study.epsilon is None else f"{study.epsilon:.2f}",
                f"{study.epsilon_after:.2f}",
            )
        )
        + "</tr>"
        for study in report.studies
    )
    sentences = "".join(f"<p>{escape(line)}</p>" for line in report.conclusion())
    words = escape(report.warning)
    warning = f'<p class="warning" role="alert">{words}</p>' if words else ""
    return _PAGE.format(warning=warning, rows=rows, sentences=sentences, plot=_plot(report))


def _plot(report: LedgerReport) -> str:
    """Return ε after each study as steps, under the site's limit, as SVG."""
    ends = [study.epsilon_after for study in report.studies]
    top = 1.1 * max([*ends, report.epsilon_max or 0.0, 1.0])
    wide = (_WIDTH - _LEFT - 10) / max(1, len(ends))

    def y(value: float) -> float:
        return _BASE - (_BASE - 12) * value / top

    path, words = f"M{_LEFT},{y(0):.1f}", _text(4, _BASE + 4, "0", "start")
    for n, (study, end) in enumerate(zip(report.studies, ends, strict=True)):
        x = _LEFT + n * wide
        path += f"V{y(end):.1f}H{x + wide:.1f}"
        words += _text(x + wide / 2, _BASE + 16, study.name[: max(3, int(wide / 8))])
        words += _text(x + wide / 2, y(end) - 5, f"{end:.2f}")
    lines = _line("axis", _BASE)
    if report.epsilon_max is not None:
        lines += _line("limit", y(report.epsilon_max))
        words += _text(4, y(report.epsilon_max) + 4, f"ε {report.epsilon_max:g}", "start")
    title = "<title>ε of all studies together, after each of them</title>"
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img"'
    return f'<svg {box}>{title}{lines}<path class="spent" d="{path}"/>{words}</svg>'


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(kind: str, y: float) -> str:
    return f'<path class="{kind}" d="M{_LEFT},{y:.1f}H{_WIDTH - 10}"/>'


_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Privacy spent at this site</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; color: #1c2430 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .25rem .5rem; border-bottom: 1px solid #d8dee6 }}
svg text {{ font-size: 12px; fill: #46505c }}
.spent {{ fill: none; stroke: #1f5fa8; stroke-width: 2 }}
.limit {{ stroke: #b3261e; stroke-dasharray: 6 4 }}
.warning {{ border: 2px solid #b3261e; padding: .5rem; font-weight: 600 }}
.axis {{ stroke: #8a94a0 }}
</style>
<h1>Privacy spent at this site</h1>
{warning}
<p>ε bounds what anybody can learn from all these studies together about whether one person's
record was in them, whatever else they know. Smaller is stronger; it only ever grows.</p>
{plot}
<table><tr><th>study</th><th>run</th><th>first</th><th>last</th><th>rounds</th><th>steps</th>
<th>ε alone</th><th>ε of all so far</th></tr>{rows}</table>
{sentences}
</html>
"""
