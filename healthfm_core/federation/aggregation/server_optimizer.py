"""What the server does with the averaged update: none, momentum or Adam, per group.

Reddi et al. 2021, "Adaptive Federated Optimization", with Δ̄ as the negative gradient. The state is
a value: given the same state and the same means, the same state comes back. A group without an
update keeps its parameters and its moments bit for bit, as if the round had not been.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Float32
from healthfm_core.config.aggregation import ServerOptimizerConfig


@dataclass(frozen=True)
class OptimizerState:
    """Moments per parameter, float32; empty where the optimiser keeps none or has not begun.

    Attributes:
        first: parameter → running mean of the updates.
        second: parameter → running mean of their squares (Adam only).
        regression: What rounds of regression remember (`regression_step`).
    """

    first: Mapping[str, Float32] = field(default_factory=dict)
    second: Mapping[str, Float32] = field(default_factory=dict)
    regression: Mapping[str, Float32] = field(default_factory=dict)

    def to_arrays(self) -> dict[str, Float32]:
        """Return the state as named arrays, for a file."""
        pairs = (
            ("first", self.first),
            ("second", self.second),
            ("regression", self.regression),
        )
        return {f"{kind}/{name}": m for kind, of in pairs for name, m in of.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Float32]) -> OptimizerState:
        """Return the state that `to_arrays` wrote."""
        parts: dict[str, dict[str, Float32]] = {"first": {}, "second": {}, "regression": {}}
        for name, array in arrays.items():
            kind, _, parameter = name.partition("/")
            parts[kind][parameter] = array
        return cls(**parts)


def apply_means(
    parameters: Mapping[str, Float32],
    state: OptimizerState,
    means: MutableMapping[str, npt.NDArray[Any]],
    config: ServerOptimizerConfig,
) -> tuple[dict[str, Float32], OptimizerState]:
    """Return parameters and state after one step along `means`.

    Args:
        parameters: The global model.
        state: The optimiser's state before the step.
        means: Parameter → averaged update, float64, of the groups that move this round only. Each
            is taken out once it was used, so that they make room for the new parameters.
        config: Which optimiser, with lr, β1, β2 and ε (τ in the paper; v starts at τ²).
    """
    new, first, second = dict(parameters), dict(state.first), dict(state.second)
    for name in sorted(means):
        step = np.asarray(means.pop(name), np.float64)
        if config.name == "momentum":
            step = config.beta1 * _moment(first, name, 0.0) + step
            first[name] = np.asarray(step, np.float32)
        elif config.name == "adam":
            m = config.beta1 * _moment(first, name, 0.0) + (1 - config.beta1) * step
            v = config.beta2 * _moment(second, name, config.eps**2)
            v = v + (1 - config.beta2) * np.square(step)
            first[name], second[name] = np.asarray(m, np.float32), np.asarray(v, np.float32)
            step = m / (np.sqrt(v) + config.eps)
        new[name] = np.asarray(parameters[name] + config.lr * step, np.float32)
    return new, OptimizerState(first, second, state.regression)


def _moment(moments: Mapping[str, Float32], name: str, start: float) -> npt.NDArray[Any]:
    return np.asarray(moments.get(name, start), np.float64)
