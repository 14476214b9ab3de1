"""What the round loop knows of a transport: orders go out, and what came back of a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from healthfm_core.arrays import Float32, Float64
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_server.clock import SYSTEM_CLOCK, Clock
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.run_folder.run_progress import ProgressEvent, ProgressListener
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.registered_sites import RegisteredSite


@dataclass
class OpenRound:
    """A round at work: who was asked what, and what came of it so far.

    Attributes:
        number: 1 … rounds.
        rounds: How many there will be.
        asked: RegisteredSite → groups it was asked for.
        store: Takes the events.
        listener: Hears of every reply.
        train: Whether the sites train; without it they score the model and send zeros.
        most_weight: Most weight that a group can get, where others add to the same sums; None: as
            much as the sites asked have people.
        others_weight: Site of a region → the people of all other sites of the whole round.
        clock: The coordinator's.
        started: When it began, by that clock.
        metrics: RegisteredSite whose update was taken → its metrics.
        rejected: RegisteredSite whose update was not → why.
        outliers: RegisteredSite whose update counts for less than it said → why.
        bytes_down: Of arrays, to all sites together.
        bytes_up: Of arrays in the updates that could be read, from all sites together.
    """

    number: int
    rounds: int
    asked: Mapping[str, tuple[str, ...]]
    store: RunStore
    listener: ProgressListener
    train: bool = True
    most_weight: float | None = None
    others_weight: Mapping[str, float] = field(default_factory=dict)
    clock: Clock = SYSTEM_CLOCK
    started: float = field(init=False)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    outliers: dict[str, str] = field(default_factory=dict)
    answered_s: dict[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0

    def __post_init__(self) -> None:
        self.started = self.clock.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been at work."""
        return self.clock.monotonic() - self.started

    def accept(self, site: str, metrics: dict[str, float]) -> None:
        """Count a site's update in."""
        self.metrics[site] = metrics
        self.answered_s[site] = round(self.seconds, 3)
        self.listener(self._event("site", site, {}))

    def reject(self, site: str, reason: str, *, replied: bool = True) -> None:
        """Leave a site out of the round, with the reason on record."""
        self.rejected[site] = reason
        self.store.note("set aside", round=self.number, site=site, reason=reason)
        if replied:
            self.listener(self._event("site", site, {}))

    def bound(self, site: str, reason: str) -> None:
        """Put on record that a site's update counts for less than it said."""
        said = self.outliers.get(site)
        self.outliers[site] = reason if said is None else f"{said}; {reason}"
        self.store.note("outlier", round=self.number, site=site, reason=reason)

    def close(self, metrics: Mapping[str, float]) -> None:
        """Tell whoever watches that the round is over and on disk."""
        self.listener(self._event("round", "", metrics))

    def _event(self, phase: Any, site: str, metrics: Mapping[str, float]) -> ProgressEvent:
        return ProgressEvent(
            phase=phase,
            round=self.number,
            rounds=self.rounds,
            seconds=self.seconds,
            done=len(self.metrics) + len(self.rejected),
            sites=len(self.asked),
            site=site,
            metrics=metrics,
        )


class GroupResults(Protocol):
    """The aggregated updates of a round, a group at a time; an `Aggregator` is one."""

    def has_enough_sites(self, group: str) -> bool:
        """Return whether the sites that moved `group` are enough."""

    def result(self, group: str) -> Mapping[str, Float64]:
        """Return parameter → aggregated change of `group`, and free it."""


@dataclass(frozen=True)
class GroupTally:
    """What stands behind one group's result.

    Attributes:
        sites: How many moved it.
        weight: Their training subjects.
        details: More for the round's row of history.
    """

    sites: int
    weight: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Collected:
    """What a round brought back.

    Attributes:
        results: The aggregated updates.
        tallies: Group that any site moved → what stands behind its result.
        metrics: Mean of each metric over the sites.
        site_metrics: RegisteredSite → its own metrics, where the coordinator sees them.
        rho: What the round cost in concentrated differential privacy, where its sums carry noise.
        reference: The model that the round began with at its sites, where changes of it travel.
    """

    results: GroupResults
    tallies: Mapping[str, GroupTally]
    metrics: Mapping[str, float]
    site_metrics: Mapping[str, Mapping[str, float]]
    rho: float | None = None
    reference: Mapping[str, Float32] = field(default_factory=dict)


class Transport(Protocol):
    """How orders reach the sites and their updates come back."""

    def groups(self, site: RegisteredSite, schema: UpdateSchema) -> tuple[str, ...]:
        """Return the groups that `site` is asked for."""

    def collect(self, current: OpenRound, state: ServerState, schema: UpdateSchema) -> Collected:
        """Send every site of the round its order, and return what came back until the deadline.

        Sites are accepted or rejected one by one, in `current`.

        Raises:
            HealthFMError: The round cannot be closed.
        """
