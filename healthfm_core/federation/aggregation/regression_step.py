"""The coordinator's step in a round of regression: L-BFGS on the exact gradient of all people.

The loss is the sum over all labelled people plus half of `penalty` times the squared weights (a
ridge; biases are free), which is convex. What remains of earlier rounds are the last changes of
weights and of gradients (Nocedal 1980), in the optimiser's state and so in the checkpoint. No line
is searched: that would cost rounds. A step is at most `LONGEST` times the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Arrays, Float32, Float64
from healthfm_core.federation.parameter_groups import group_of

PAIRS: Final = 10
"""Changes of weights and gradients that are remembered."""

FIRST_STEP: Final = 0.1
"""Length of the first step, which knows no curvature yet."""

LONGEST: Final = 10.0
"""A step is at most so many times as long as the one before."""

FLATTEST: Final = 1e-8
"""Cosine of two changes below which they say nothing of curvature."""


def regressed(parameters: Iterable[str]) -> tuple[str, ...]:
    """Return the parameters that a round of regression moves, sorted."""
    return tuple(
        sorted(p for p in parameters if p.startswith("heads.label.") or ".linear_logit." in p)
    )


def regression_step(
    parameters: Mapping[str, Float32],
    memory: Mapping[str, Float32],
    means: Arrays,
    weights: Mapping[str, float],
    *,
    penalty: float,
) -> tuple[dict[str, Float32], dict[str, Float32]]:
    """Return parameters and memory after one step.

    Args:
        parameters: The global model.
        memory: What earlier rounds of regression left; empty in the first.
        means: Parameter → mean of the sites' updates, which are minus their summed gradients over
            what they count for.
        weights: Group → what all sites of the round count for together.
        penalty: Of the squared weights, beside the sum of losses.
    """
    names = [name for name in regressed(means) if weights.get(group_of(name), 0.0) > 0]
    if not names:
        return dict(parameters), dict(memory)
    point = _flat(parameters, names)
    gradient = np.concatenate(
        [np.ravel(-means[name] * weights[group_of(name)]).astype(np.float64) for name in names]
    )
    ridge = np.concatenate(
        [np.full(parameters[n].size, 0.0 if n.endswith("bias") else penalty) for n in names]
    )
    gradient = gradient + ridge * point
    people = np.array(sorted(weights.values()), np.float32)
    history = _History.read(memory, people, point, gradient)
    step = history.step()
    new, at = dict(parameters), 0
    for name in names:
        part = step[at : at + parameters[name].size].reshape(parameters[name].shape)
        new[name] = np.asarray(parameters[name] + part, np.float32)
        at += parameters[name].size
    taken = _flat(new, names) - point
    return new, history.written(people, taken)


class _History:
    """Pairs of changes, the last gradient, and the point it is of."""

    def __init__(self, pairs: list[tuple[Float64, Float64]], point: Float64, gradient: Float64):
        self._pairs, self._point, self._gradient = pairs, point, gradient
        self._last = 0.0

    @classmethod
    def read(
        cls, memory: Mapping[str, Float32], people: Float32, point: Float64, gradient: Float64
    ) -> _History:
        """Return the history with the change since the last round.

        Where other people answered than in the last round, its gradient is of another loss: all is
        forgotten. So it is where the parameters are others.
        """
        same = "people" in memory and np.array_equal(memory["people"], people)
        if not same or memory["point"].shape != point.shape:
            return cls([], point, gradient)
        pairs = [
            (memory[f"step-{i}"].astype(np.float64), memory[f"change-{i}"].astype(np.float64))
            for i in range(sum(name.startswith("step-") for name in memory))
        ]
        step = point - memory["point"]
        change = gradient - memory["gradient"]
        size = np.linalg.norm(step) * np.linalg.norm(change)
        if step @ change > FLATTEST * size:
            pairs.append((step, change))
        history = cls(pairs[-PAIRS:], point, gradient)
        history._last = float(np.linalg.norm(step))
        return history

    def step(self) -> Float64:
        """Return the step to take: minus the inverse curvature times the gradient."""
        direction, used = self._gradient.copy(), []
        for step, change in reversed(self._pairs):
            share = (step @ direction) / (step @ change)
            used.append(share)
            direction -= share * change
        if self._pairs:
            step, change = self._pairs[-1]
            direction *= (step @ change) / (change @ change)
        for (step, change), share in zip(self._pairs, reversed(used), strict=True):
            direction += step * (share - (change @ direction) / (step @ change))
        length = float(np.linalg.norm(direction))
        longest = LONGEST * self._last if self._pairs else FIRST_STEP
        if length == 0:
            return direction
        scale = longest / length if not self._pairs else min(1.0, longest / length)
        return -direction * scale

    def written(self, people: Float32, taken: Float64) -> dict[str, Float32]:
        """Return what the next round needs."""
        memory: dict[str, npt.NDArray[Any]] = {
            "people": people,
            "point": self._point,
            "gradient": self._gradient,
        }
        for i, (step, change) in enumerate(self._pairs):
            memory |= {f"step-{i}": step, f"change-{i}": change}
        return {name: np.asarray(array, np.float32) for name, array in memory.items()}


def _flat(parameters: Mapping[str, Float32], names: Iterable[str]) -> Float64:
    return np.concatenate([np.ravel(parameters[name]).astype(np.float64) for name in names])
