"""Where each group's numbers stand in the one array that a site sends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from healthfm_core.arrays import Arrays, Float64
from healthfm_core.federation.update_checks import UpdateSchema, update_norm
from healthfm_core.privacy.secure_aggregation.fixed_point import FixedPoint, unfit_value
from healthfm_core.privacy.secure_aggregation.masks import Ring


@dataclass(frozen=True)
class GroupLayout:
    """The groups of a schema, one after the other.

    Attributes:
        schema: Names and shapes of the groups that are summed.
    """

    schema: UpdateSchema

    @cached_property
    def length(self) -> int:
        """Return how many numbers there are."""
        return sum(self.size(group) for group in self.schema.groups)

    def size(self, group: str) -> int:
        """Return how many numbers `group` has."""
        return sum(math.prod(self.schema.shapes[n]) for n in self.schema.groups[group])

    def parts(self, update: Ring) -> Iterator[tuple[str, Ring]]:
        """Yield each group with its part of `update`, as a view."""
        start = 0
        for group in self.schema.groups:
            size = self.size(group)
            yield group, update[start : start + size]
            start += size

    def encode(
        self, group: str, update: Arrays, weight: int, fixed_point: FixedPoint, out: Ring
    ) -> bool:
        """Write one group's update times `weight` to `out`; return whether it was shortened.

        Raises:
            PrivacyError: An array is of another shape, or a value is not finite (HF-613).
        """
        names, clip = self.schema.groups[group], fixed_point.clip
        if any(update[name].shape != self.schema.shapes[name] for name in names):
            raise unfit_value(f"an update of group {group} of another shape than its parameters")
        norm = update_norm(update, names)
        if not math.isfinite(norm):
            raise unfit_value(f"an update of group {group} that is not finite")
        factor = min(1.0, clip / norm) if norm else 1.0
        start = 0
        for name in names:
            flat = update[name].reshape(-1)
            if factor < 1:
                flat = np.clip(flat * np.float64(factor), -clip, clip)
            fixed_point.encode(flat, weight, out[start : start + flat.size])
            start += flat.size
        return factor < 1

    def mean(
        self, group: str, part: Ring, fixed_point: FixedPoint, weight: float
    ) -> dict[str, Float64]:
        """Return a group's opened sum over `weight`, by parameter."""
        flat = fixed_point.decode(part)
        flat /= weight
        return self.schema.shaped(group, flat)
