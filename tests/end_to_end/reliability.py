"""What became of injected faults, and the page that tells it: docs/reliability.md."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.end_to_end.deployed import REPOSITORY
from tests.end_to_end.faults import FAULTS, KILLS

PAGE = REPOSITORY / "docs" / "reliability.md"
RESULTS = REPOSITORY / "benchmarks" / "results" / "chaos.json"
STORM = "storm"
"""Name of a run in which every kind of process is killed."""


@dataclass
class Outcome:
    """What became of one injection.

    Attributes:
        fault: Its name.
        at_round: Rounds that were complete when it hit.
        finished: Whether the run finished by itself.
        again_s: From the fault to the next complete round, or to the end of the run; of a storm,
            from the first moment of the run to its end.
        submissions: How often the run was submitted, 1 where nothing was lost at the coordinator.
        missing: Rounds that are not on disk.
        set_aside: What was left out of a round, by site and reason.
        hit: In a storm, what was killed, and after which round.
        rounds: Of the run.
    """

    fault: str
    at_round: int
    finished: bool
    again_s: float
    submissions: int
    missing: list[int]
    set_aside: list[str] = field(default_factory=list)
    hit: list[str] = field(default_factory=list)
    rounds: int = 0

    @property
    def whole(self) -> bool:
        """Whether the run finished with every round done."""
        return self.finished and not self.missing


def kept(but: set[str]) -> list[Outcome]:
    """Return what earlier injections came to, without those of the faults named."""
    if not RESULTS.is_file():
        return []
    outcomes = [Outcome(**given) for given in json.loads(RESULTS.read_text("utf-8"))]
    return [outcome for outcome in outcomes if outcome.fault not in but]


def write(outcomes: list[Outcome]) -> None:
    """Write docs/reliability.md, and the figures it is made from."""
    RESULTS.parent.mkdir(exist_ok=True)
    text = json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n"
    RESULTS.write_text(text, "utf-8")
    PAGE.write_text(page(outcomes), "utf-8")


def page(outcomes: list[Outcome]) -> str:
    """Return the page."""
    rows = [_row(name, [o for o in outcomes if o.fault == name]) for name in FAULTS]
    storms = [o for o in outcomes if o.fault == STORM]
    template = (Path(__file__).parent / "reliability.md").read_text("utf-8")
    return template.format(table="\n".join(filter(None, rows)), storms=_storms(storms))


def _row(name: str, found: list[Outcome]) -> str:
    if not found:
        return ""
    slowest = max(o.again_s for o in found)
    middle = sorted(o.again_s for o in found)[len(found) // 2]
    again = max(o.submissions for o in found) - 1
    aside = sum(len(o.set_aside) for o in found)
    lost = "no round" if all(not o.missing for o in found) else "rounds"
    cost = f"; {aside} times a site's part of a round" if aside else ""
    return (
        f"| {FAULTS[name].said} | {sum(o.whole for o in found)} of {len(found)} "
        f"| {middle:.0f} ({slowest:.0f}) | {again} | {lost}{cost} |"
    )


def _storms(found: list[Outcome]) -> str:
    if not found:
        return "This was not run."
    kills = Counter(hit.split()[0] for o in found for hit in o.hit)
    each = ", ".join(f"{name} {kills[name]}" for name in KILLS)
    seconds = sorted(o.again_s for o in found)
    rounds = "/".join(str(n) for n in sorted({o.rounds for o in found}))
    aside = sum(len(o.set_aside) for o in found)
    return (
        f"{sum(o.whole for o in found)} of {len(found)} runs of {rounds} rounds finished by "
        f"themselves with every round done, after {kills.total()} kills ({each}). A run took "
        f"{seconds[len(seconds) // 2]:.0f} s, the longest {seconds[-1]:.0f} s, and was submitted "
        f"{max(o.submissions for o in found)} times at most; {aside} times a site's part of a "
        f"round was missed."
    )
