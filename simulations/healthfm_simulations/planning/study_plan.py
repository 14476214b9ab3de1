"""A plan on one screen: how long a study takes, what takes it, and what other settings would."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from healthfm_core.config import RunConfig
from healthfm_core.config.codec import CodecConfig
from healthfm_core.config.network import SiteSpread
from healthfm_core.evaluation.report.wording import NOTHING, duration, size
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.network.network_grid import OrderCourse
from healthfm_simulations.planning.measured_start import MeasuredStart, SiteKind, measured_start
from healthfm_simulations.planning.message_sizes import MessageSizes
from healthfm_simulations.planning.planned_rounds import PlannedRounds

PLAN_FILE: Final = "plan.json"
AS_ASKED: Final = "these settings"


@dataclass(frozen=True)
class PlanLine:
    """One row of the plan.

    Attributes:
        name: Which settings.
        seconds: All rounds and what comes before them; infinite where they do not end.
        round_s: A middling round.
        closed: Rounds that were closed.
        missed: Rounds that missed their quorum and were begun again.
        answered: Share of the sites asked whose update came in time.
        bytes_per_site: In a round, both ways, on average.
        waited: Rounds that waited until the deadline for sites that did not answer.
        shares: Part of a round → its share of the last update's way, summed over the rounds.
    """

    name: str
    seconds: float
    round_s: float
    closed: int
    missed: int
    answered: float
    bytes_per_site: float
    waited: int
    shares: dict[str, float]

    @classmethod
    def of(cls, name: str, planned: PlannedRounds) -> PlanLine:
        """Return the row of planned rounds."""
        rounds = planned.rounds
        asked = sum(one.asked for one in rounds)
        total = sum(one.bytes_down + one.bytes_up for one in rounds)
        return cls(
            name=name,
            seconds=planned.seconds if planned.ends else math.inf,
            round_s=float(np.median([one.seconds for one in rounds])) if rounds else math.nan,
            closed=len(rounds),
            missed=planned.missed,
            answered=sum(one.answered for one in rounds) / max(1, asked),
            bytes_per_site=total / max(1, asked),
            waited=sum(one.answered < one.asked for one in rounds),
            shares=_shares([one.last for one in rounds if one.last is not None]),
        )

    def what_takes_it(self) -> str:
        """Return the largest shares in words."""
        order = sorted(self.shares, key=lambda part: -self.shares[part])
        said = [f"{PARTS[part]} {self.shares[part]:.0%}" for part in order[:2]]
        return ", ".join(said) if any(self.shares.values()) else NOTHING


def make_plan(config: RunConfig, out: Path, console: Console) -> list[PlanLine]:
    """Make the plan, print it and write it to `out`.

    Raises:
        HealthFMError: The data are not there, or training diverged in the steps that are measured.
    """
    out.mkdir(parents=True, exist_ok=True)
    start = measured_start(config, out / "sites")
    config = with_measured_speed(config, start)
    sites = planned_sites(config, start)
    lines = []
    for name, settings in settings_to_plan(config):
        planned = PlannedRounds(settings, MessageSizes(start, settings), sites)
        planned.run()
        lines.append(PlanLine.of(name, planned))
        if name == AS_ASKED and (sooner := sooner_deadline(settings, planned)) is not None:
            again = PlannedRounds(sooner, MessageSizes(start, sooner), sites)
            again.run()
            name = f"federation.deadline_s={sooner.federation.deadline_s:g}"
            lines.append(PlanLine.of(name, again))
    for line in told(config, start, sites, lines):
        console.print(line)
    written = {"lines": [vars(line) for line in lines], "steps_per_s": start.steps_per_s}
    (out / PLAN_FILE).write_text(json.dumps(written, indent=1, default=str) + "\n", "utf-8")
    return lines


def with_measured_speed(config: RunConfig, start: MeasuredStart) -> RunConfig:
    """Return the settings with a middling computer as quick as this one, and the network on."""
    changes: dict[str, Any] = {"enabled": True}
    if config.plan.measure and config.network.trace is None:
        factor = config.network.steps_per_s.factor
        changes["steps_per_s"] = SiteSpread(median=start.steps_per_s, factor=factor)
    return config.model_copy(update={"network": config.network.model_copy(update=changes)})


def planned_sites(config: RunConfig, start: MeasuredStart) -> dict[str, SiteKind]:
    """Return name → what a planned site is like, drawn from the seed."""
    plan, chance = config.plan, numpy_generator(config.seed, "plan")
    sites = {}
    for number in range(plan.sites or 0):
        kind = start.kinds[int(chance.integers(len(start.kinds)))]
        people = kind.people
        if plan.people is not None:
            people = max(1, round(plan.people * plan.people_factor ** chance.standard_normal()))
        sites[f"site-{number + 1}"] = SiteKind(people, kind.modalities)
    return sites


def settings_to_plan(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """Yield the settings asked about, and others that a coordinator may choose, by name."""
    yield AS_ASKED, config
    if not config.plan.alternatives:
        return
    federation = config.federation
    secure = federation.aggregation.secure
    plain = federation.codec == CodecConfig() and federation.aggregation.method != "scaffold"
    if plain and not secure.enabled:
        codec = CodecConfig(uplink="int8", downlink="int8")
        yield "federation=int8", _changed(config, codec=codec)
    if plain and secure.enabled and secure.epsilon is None and not _shares_noise(config):
        few = secure.model_copy(update={"ring_bits": 16})
        sums = federation.aggregation.model_copy(update={"secure": few})
        codec = CodecConfig(downlink="int8")
        yield "federation=secure_16", _changed(config, codec=codec, aggregation=sums)
    if federation.fraction == 1:
        yield "federation.fraction=0.5", _changed(config, fraction=0.5)
    half = config.train.model_copy(update={"local_epochs": config.train.local_epochs / 2})
    epochs = f"train.local_epochs={half.local_epochs:g}"
    yield epochs, config.model_copy(update={"train": half})


def sooner_deadline(config: RunConfig, planned: PlannedRounds) -> RunConfig | None:
    """Return the settings with a deadline that waits less long for sites that do not answer.

    It is half as long again as the slowest answer took; None where nobody was waited for so long,
    or where no other settings are asked for.
    """
    ways = [one.last.seconds for one in planned.rounds if one.last is not None]
    if not (ways and config.plan.alternatives):
        return None
    deadline_s = float(math.ceil(1.5 * max(ways) / 60) * 60)
    waited = any(one.seconds >= config.federation.deadline_s for one in planned.rounds)
    if not waited or deadline_s > 0.8 * config.federation.deadline_s:
        return None
    return _changed(config, deadline_s=deadline_s, ttl_s=min(config.federation.ttl_s, deadline_s))


def told(
    config: RunConfig,
    start: MeasuredStart,
    sites: dict[str, SiteKind],
    lines: Sequence[PlanLine],
) -> Iterator[str | Table]:
    """Yield what is printed."""
    people = sum(kind.people for kind in sites.values())
    numbers = sum(array.size for array in start.model.values())
    yield (
        f"{len(sites)} sites with {people:,} training people, a model of {numbers:,} parameters, "
        f"{config.federation.rounds} rounds"
    )
    if config.plan.measure and config.network.trace is None:
        yield f"a step of training takes {1 / start.steps_per_s:.3g} s on this computer"
    yield plan_table(lines)
    first = lines[0]
    if math.isinf(first.seconds):
        yield (
            f"At these settings the study does not end: after {first.closed} rounds too few sites "
            "answer before federation.deadline_s. Wait longer, or ask for less in a round."
        )
        return
    yield f"{len(sites)} sites at these settings: {duration(first.seconds)}."
    if first.waited:
        yield (
            f"{first.waited} of {first.closed} rounds wait until federation.deadline_s for a site "
            "that does not answer."
        )
    for line in lines[1:]:
        times = line.seconds / first.seconds
        if times <= 0.9:
            yield f"{line.name}: {duration(line.seconds)}, {times:.0%} of that."


def plan_table(lines: Sequence[PlanLine]) -> Table:
    """Return a row per settings."""
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption="What takes it: of the way of the update that each round waits for last.",
        caption_justify="left",
    )
    table.add_column("settings", no_wrap=True)
    for head in ("all rounds", "a round", "in time", "a site's bytes"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("what takes it")
    for line in lines:
        table.add_row(
            line.name,
            NOTHING if math.isinf(line.seconds) else duration(line.seconds),
            NOTHING if math.isnan(line.round_s) else duration(line.round_s),
            f"{line.answered:.0%}",
            size(line.bytes_per_site),
            line.what_takes_it(),
        )
    return table


PARTS: Final = {
    "down": "line down",
    "waits": "its hours",
    "computes": "computing",
    "up": "line up",
    "idle": "looking for news",
}
"""Part of an order's course → what it is called."""


def _shares(courses: Sequence[OrderCourse]) -> dict[str, float]:
    """Return what the way of the last updates went into."""
    parts = np.array([[getattr(one, f"{part}_s") for part in PARTS] for one in courses])
    total = float(parts.sum()) if len(parts) else 0.0
    return {
        part: float(parts[:, i].sum()) / total if total else 0.0 for i, part in enumerate(PARTS)
    }


def _changed(config: RunConfig, **federation: Any) -> RunConfig:
    changed = config.federation.model_copy(update=federation)
    return config.model_copy(update={"federation": changed})


def _shares_noise(config: RunConfig) -> bool:
    return config.privacy.mechanism.noise_in_sum
