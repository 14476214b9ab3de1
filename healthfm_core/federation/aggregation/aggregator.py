"""What an aggregation algorithm is: it takes a round's updates and gives one mean per group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from healthfm_core.arrays import Arrays, Float32, Float32Arrays, Float64
from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.federation.update_checks import UpdateSchema


@runtime_checkable
class Aggregator(Protocol):
    """One round's updates, group by group."""

    def add(self, site: str, update: Arrays, weights: Mapping[str, float]) -> None:
        """Take one update that `check_update` has passed; its arrays are not kept or changed.

        Args:
            site: Whose; once a round.
            update: Parameter → change.
            weights: Group the site moved → its training subjects there.

        Raises:
            ValueError: The site was added already.
        """

    def has_enough_sites(self, group: str) -> bool:
        """Return whether the sites that moved `group` are enough for this algorithm."""

    def result(self, group: str) -> Mapping[str, Float64]:
        """Return parameter → aggregated change of `group`, and free what it took to know it.

        Raises:
            KeyError: No site moved the group, or its result was taken already.
        """


@runtime_checkable
class ControlVariates(Protocol):
    """State of an algorithm that outlives a round, beside every parameter at server and sites.

    The server's part is in its checkpoint and goes to the sites with the parameters; a site's own
    part stays there between rounds, and only its change is sent back, with the update.
    """

    @property
    def slot(self) -> str:
        """Names the state's arrays on the wire and in files: ``slot/parameter``."""

    @property
    def max_norm_factor(self) -> float:
        """L2 norm of one group's change of state, at most, in ``max_update_norm``."""

    def correction(self, server: Arrays, own: Arrays) -> Float32Arrays:
        """Return parameter → what every local step adds to the direction it goes along."""

    def site_state(
        self, server: Arrays, own: Arrays, update: Arrays, learning_rate_sum: float
    ) -> Float32Arrays:
        """Return the site's state after its local steps.

        Args:
            server: The server's state, as the site received it.
            own: The site's state before; a parameter that is missing is at zero.
            update: Parameter → y_i − x, of the groups that the site moves.
            learning_rate_sum: Σ of the steps' learning rates, K·η where they are all the same.
        """

    def server_state(
        self, server: Arrays, mean_changes: Arrays, fractions: Mapping[str, float]
    ) -> Float32Arrays:
        """Return the server's state after a round.

        Args:
            server: Before; a parameter that is missing is at zero.
            mean_changes: Parameter → mean change of the sites' states, of the groups that moved.
            fractions: Parameter → share of the sites that hold it whose change is in the mean.
        """


@dataclass(frozen=True)
class AggregationMethod:
    """An entry of the registry.

    Attributes:
        name: As ``federation.aggregation.method`` says it.
        aggregator: Makes a round's aggregator from the updates' schema, the configuration and the
            most weight that one group can get.
        control_variates: State beside the parameters; None for an algorithm without.
    """

    name: str
    aggregator: Callable[[UpdateSchema, AggregationConfig, float], Aggregator]
    control_variates: ControlVariates | None = None

    def slots(self, config: AggregationConfig) -> dict[str, float]:
        """Return the slots of its state, with the L2 norm that one group's may have."""
        kept = self.control_variates
        return {} if kept is None else {kept.slot: kept.max_norm_factor * config.max_update_norm}


def put_in_slot(slot: str, arrays: Mapping[str, Float32]) -> Float32Arrays:
    """Return `arrays` under the names that they have in `slot`."""
    return {f"{slot}/{name}": array for name, array in arrays.items()}
