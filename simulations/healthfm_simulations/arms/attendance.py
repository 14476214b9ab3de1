"""Sites that join a running federation, and sites that leave it.

A run with either is made of stages, each of whole rounds with the same sites. Between two stages
the coordinator is stopped and goes on with other nodes, as in a deployment that a new hospital
joins. Codes, modalities and rates stay as the first stage's sites agreed on them, so a site that
joins later brings no new codes and no new encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from healthfm_core.config import RunConfig
from healthfm_simulations.sites import SimulatedSite


@dataclass(frozen=True)
class AttendanceStage:
    """Rounds in which the same sites take part.

    Attributes:
        sites: Who takes part, in the order of the run's sites.
        last: The stage's last round.
    """

    sites: tuple[SimulatedSite, ...]
    last: int


def stages(config: RunConfig, sites: Sequence[SimulatedSite]) -> tuple[AttendanceStage, ...]:
    """Return the stages of a federated run over `sites`; one where nobody joins or leaves."""
    joins, leaves = config.simulation.joins, config.simulation.leaves
    rounds, names = config.federation.rounds, {site.name for site in sites}
    ends = {first - 1 for name, first in joins.items() if name in names}
    ends |= {last for name, last in leaves.items() if name in names}
    all_stages = []
    for last in sorted(ends | {rounds}):
        present = (
            site
            for site in sites
            if joins.get(site.name, 1) <= last <= leaves.get(site.name, rounds)
        )
        all_stages.append(AttendanceStage(tuple(present), last))
    return tuple(all_stages)
