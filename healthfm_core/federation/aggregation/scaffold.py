"""SCAFFOLD: control variates against client drift (Karimireddy et al. 2020, ICML, option II).

The server keeps c, each site c_i, both at zero at first. A local step goes along its own direction
d plus c − c_i, and after K steps of size η from x to y_i the site has

    y ← y − η (d + c − c_i)
    c_i⁺ = c_i − c + (x − y_i) / (K η)
    c⁺ = c + |S|/N · mean over S of (c_i⁺ − c_i)

with S the sites of the round and N all that hold the parameter. With plain gradient descent d is
the gradient, as in the paper. With this house's AdamW d is AdamW's step over the learning rate, so
that c and c_i are in the same unit as what they correct; K η is the sum of the steps' learning
rates, which a schedule changes. Then c_i⁺ is the mean of the directions of the round, whatever the
optimiser. Means are weighted by training subjects, as everywhere: with equal weights they are the
paper's.

A site's change of c_i follows from its update, the learning rates and what it sent before, so it
tells the coordinator nothing new, and differential privacy of the update covers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Arrays, Float32Arrays
from healthfm_core.federation.aggregation.aggregator import AggregationMethod
from healthfm_core.federation.aggregation.weighted_mean import WeightedMean


@dataclass(frozen=True)
class ScaffoldControl:
    """The control variates of SCAFFOLD.

    Attributes:
        slot: Names them on the wire and in files.
        max_norm_factor: Directions of AdamW are up to 1 in every coordinate, updates far shorter.
    """

    slot: str = "control"
    max_norm_factor: float = 1000.0

    def correction(self, server: Arrays, own: Arrays) -> Float32Arrays:
        """Return c − c_i, which every local step adds to its direction."""
        return {
            name: np.asarray(server.get(name, 0.0) - own.get(name, 0.0), np.float32)
            for name in sorted({*server, *own})
        }

    def site_state(
        self, server: Arrays, own: Arrays, update: Arrays, learning_rate_sum: float
    ) -> Float32Arrays:
        """Return c_i⁺; c_i where no step was taken."""
        if learning_rate_sum == 0:
            return {name: _state(own, name, change) for name, change in update.items()}
        return {
            name: np.asarray(
                own.get(name, 0.0) - server.get(name, 0.0) - change / learning_rate_sum, np.float32
            )
            for name, change in update.items()
        }

    def server_state(
        self, server: Arrays, mean_changes: Arrays, fractions: Mapping[str, float]
    ) -> Float32Arrays:
        """Return c⁺; what no site moved keeps its c."""
        moved = {
            name: np.asarray(_state(server, name, change) + fractions[name] * change, np.float32)
            for name, change in mean_changes.items()
        }
        return {**server, **moved}


def _state(state: Arrays, name: str, like: np.ndarray) -> np.ndarray:
    return state.get(name, np.zeros(like.shape, np.float32))


METHODS: Final = (
    AggregationMethod(
        "scaffold", lambda schema, _, most: WeightedMean(schema, most), ScaffoldControl()
    ),
)
