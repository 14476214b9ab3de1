"""What the server believes of a reply: the schema of names, shapes, types, norms and counts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from healthfm_core.arrays import Arrays, Float64
from healthfm_core.federation.parameter_groups import group_names


@dataclass(frozen=True)
class UpdateSchema:
    """What an update must look like.

    Attributes:
        shapes: parameter → shape; state that travels beside it is ``slot/parameter``.
        groups: group → its parameters, those of the slots after them.
        max_norm: L2 norm that one group's update may have at most.
        slots: slot → L2 norm that one group's arrays in it may have at most.
    """

    shapes: Mapping[str, tuple[int, ...]]
    groups: Mapping[str, tuple[str, ...]]
    max_norm: float
    slots: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, parameters: Arrays, max_norm: float, slots: Mapping[str, float] | None = None
    ) -> UpdateSchema:
        """Return the schema of updates to `parameters`, with the arrays of `slots` beside them."""
        slots = slots or {}
        shapes = {name: tuple(array.shape) for name, array in parameters.items()}
        groups = {
            group: (*names, *(f"{slot}/{name}" for slot in sorted(slots) for name in names))
            for group, names in group_names(shapes).items()
        }
        beside = {f"{slot}/{name}": shape for slot in slots for name, shape in shapes.items()}
        return cls(shapes | beside, groups, max_norm, slots)

    def norm_bound(self, name: str) -> float:
        """Return the L2 norm that the array `name` may have at most."""
        slot, slash, _ = name.partition("/")
        return self.slots[slot] if slash else self.max_norm

    def only(self, names: Collection[str]) -> UpdateSchema:
        """Return the schema of updates to those of its parameters that are in `names`."""
        shapes = {name: shape for name, shape in self.shapes.items() if name in names}
        return replace(self, shapes=shapes, groups=group_names(shapes))

    def shaped(self, group: str, flat: Float64) -> dict[str, Float64]:
        """Return one group's numbers, side by side in `flat`, in its parameters' shapes."""
        shaped, start = {}, 0
        for name in self.groups[group]:
            size = math.prod(self.shapes[name])
            shaped[name] = flat[start : start + size].reshape(self.shapes[name])
            start += size
        return shaped


def check_update(
    update: Arrays,
    weights: Mapping[str, Any],
    schema: UpdateSchema,
    *,
    asked: Collection[str],
    n_subjects: int,
) -> str | None:
    """Return why a reply cannot be used, or None when it can.

    A reply may leave out a whole group (a site that holds nobody of it says so by leaving out the
    weight too), never a part of one.

    Args:
        update: The received arrays.
        weights: The received group → number of training subjects.
        schema: What an update must look like.
        asked: Groups this site was asked to move.
        n_subjects: Training subjects the site registered with.

    Returns:
        One clause that names parameters and groups of the model and nothing of the site's.
    """
    return (
        _check_weights(weights, asked, n_subjects)
        or _check_arrays(update, weights, schema)
        or _check_norms(update, weights, schema)
    )


def _check_weights(
    weights: Mapping[str, Any], asked: Collection[str], n_subjects: int
) -> str | None:
    if not weights:
        return "it moves no group"
    for group, weight in sorted(weights.items()):
        if group not in asked:
            return "it moves a group the site was not asked for"
        if not isinstance(weight, float | int) or not math.isfinite(weight) or weight <= 0:
            return f"the weight of group {group} is not a positive number"
        if weight > n_subjects:
            return f"the weight of group {group} exceeds the site's registered size"
    return None


def _check_arrays(update: Arrays, weights: Mapping[str, Any], schema: UpdateSchema) -> str | None:
    wanted = {name for group in weights for name in schema.groups[group]}
    missing = sorted(wanted - update.keys())
    if missing:
        return f"{len(missing)} parameters are missing, the first is {missing[0]}"
    extra = len(update.keys() - wanted)
    if extra:
        return f"{extra} parameters belong to no group it moves"
    for name in sorted(update):
        array = update[name]
        if array.dtype != np.float32:
            return f"{name} has another type than float32"
        if array.shape != schema.shapes[name]:
            return f"{name} has another shape than {schema.shapes[name]}"
    return None


def _check_norms(update: Arrays, weights: Mapping[str, Any], schema: UpdateSchema) -> str | None:
    for group in sorted(weights):
        for slot in ("", *sorted(schema.slots)):
            names = [name for name in schema.groups[group] if name.rpartition("/")[0] == slot]
            bound = schema.norm_bound(names[0])
            if update_norm(update, names) <= bound:
                continue
            for name in names:
                if not np.isfinite(update[name]).all():
                    return f"{name} holds values that are not finite"
            what = f"{slot} of group {group}" if slot else f"group {group}"
            return f"the norm of {what} exceeds {bound:g}"
    return None


def is_divergence(reason: str) -> bool:
    """Return whether a reply was rejected because the site's training went out of bounds.

    Args:
        reason: Why it was, as `check_update` or the site itself (HF-726) says.
    """
    return any(sign in reason for sign in ("HF-726", "not finite", "the norm of"))


def update_norm(update: Arrays, names: Collection[str]) -> float:
    """Return the L2 norm over `names`; infinite when a value is not finite or a square overflows.

    One pass over each array, so that a finite result also shows that every value is finite.
    `einsum` and not `dot`: it starts no threads, which cost more than they bring here.
    """
    squares = []
    with np.errstate(over="ignore", invalid="ignore"):
        for name in names:
            flat = update[name].reshape(-1)
            square = float(np.einsum("i,i", flat, flat))
            squares.append(square if math.isfinite(square) else math.inf)
    return math.sqrt(math.fsum(squares))
