"""A site's own state of an algorithm that has some (SCAFFOLD), kept at the site by round."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from healthfm_client.site.round_files import RoundFiles
from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.federation.aggregation.aggregator import ControlVariates, put_in_slot
from healthfm_core.federation.protocol import RoundResult


@dataclass(frozen=True)
class ControlState:
    """One study's control variates at this site, in one round.

    Attributes:
        files: Where they are kept between rounds.
        algorithm: Whose they are.
        server: The server's, as they came with the order.
        round: Which round.
    """

    files: RoundFiles
    algorithm: ControlVariates
    server: Mapping[str, Float32]
    round: int

    def correction(self, parameters: Collection[str]) -> Float32Arrays:
        """Return what every local step adds to its direction, of those `parameters`."""
        values = self.algorithm.correction(self.server, self._before())
        return {name: value for name, value in values.items() if name in parameters}

    def finish(self, result: RoundResult) -> RoundResult:
        """Keep the state after the round, and return `result` with its change beside the update.

        Args:
            result: What leaves of the round.
        """
        before = self._before()
        after = self.algorithm.site_state(
            self.server, before, result.update, result.learning_rate_sum
        )
        changes = {
            name: np.asarray(value - before.get(name, np.float32(0)), np.float32)
            for name, value in after.items()
        }
        self.files.keep(self.round, {**before, **after})
        sent = put_in_slot(self.algorithm.slot, changes)
        return replace(result, update={**result.update, **sent})

    def _before(self) -> Float32Arrays:
        """Return the state after the last round before this one; nothing is at zero."""
        earlier = [number for number in self.files.rounds() if number < self.round]
        return self.files.read(earlier[-1]) if earlier else {}
