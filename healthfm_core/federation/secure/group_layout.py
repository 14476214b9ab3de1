"""Where each group's numbers stand in the one array that a site sends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Arrays, Float64
from healthfm_core.federation.secure.rotation import Rotation
from healthfm_core.federation.update_checks import UpdateSchema, update_norm
from healthfm_core.privacy.secure_aggregation.fixed_point import FixedPoint, unfit_value
from healthfm_core.privacy.secure_aggregation.masks import Ring


@dataclass(frozen=True)
class TurnedGroup:
    """How a group stands in a ring of few bits.

    Attributes:
        clip: L2 norm of a site's update, at most.
        rotation: Makes its numbers about equally large.
        fixed_point: How the turned numbers stand in the ring.
        rounding: Of this site's numbers; None at the coordinator.
    """

    clip: float
    rotation: Rotation
    fixed_point: FixedPoint
    rounding: np.random.Generator | None = None


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
        factor, start = self._factor(group, update, fixed_point.clip), 0
        for flat in self._shortened(group, update, fixed_point.clip, factor):
            fixed_point.encode(flat, weight, out[start : start + flat.size])
            start += flat.size
        return factor < 1

    def encode_turned(
        self, group: str, update: Arrays, weight: int, coarse: TurnedGroup, out: Ring
    ) -> bool:
        """Write a turned group's update likewise, in a ring too small for it as it is.

        Raises:
            PrivacyError: As `encode` does.
        """
        factor = self._factor(group, update, coarse.clip)
        flat = np.concatenate(list(self._shortened(group, update, coarse.clip, factor)))
        coarse.rotation.turn(flat)
        bound = np.nextafter(flat.dtype.type(coarse.fixed_point.clip), flat.dtype.type(0))
        np.clip(flat, -bound, bound, out=flat)
        coarse.fixed_point.encode(flat, weight, out, coarse.rounding)
        return factor < 1

    def _factor(self, group: str, update: Arrays, clip: float) -> float:
        """Return what shortens a group's update to the clip, 1 where it is no longer."""
        names = self.schema.groups[group]
        if any(update[name].shape != self.schema.shapes[name] for name in names):
            raise unfit_value(f"an update of group {group} of another shape than its parameters")
        norm = update_norm(update, names)
        if not math.isfinite(norm):
            raise unfit_value(f"an update of group {group} that is not finite")
        return min(1.0, clip / norm) if norm else 1.0

    def _shortened(
        self, group: str, update: Arrays, clip: float, factor: float
    ) -> Iterator[npt.NDArray[np.floating[Any]]]:
        """Yield each parameter of a group as a row of numbers, times `factor`."""
        for name in self.schema.groups[group]:
            flat = update[name].reshape(-1)
            yield np.clip(flat * np.float64(factor), -clip, clip) if factor < 1 else flat

    def mean(
        self, group: str, part: Ring, fixed_point: FixedPoint, weight: float
    ) -> dict[str, Float64]:
        """Return a group's opened sum over `weight`, by parameter."""
        flat = fixed_point.decode(part)
        flat /= weight
        return self.schema.shaped(group, flat)

    def mean_of_turned(
        self, group: str, part: Ring, coarse: TurnedGroup, weight: float
    ) -> dict[str, Float64]:
        """Return the same of a group that every site turned."""
        flat = coarse.fixed_point.decode(part)
        coarse.rotation.turn_back(flat)
        flat /= weight
        return self.schema.shaped(group, flat)
