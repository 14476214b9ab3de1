"""How many bytes each message of a round has: the model and an update, encoded as the run would."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from healthfm_core.arrays import ArrayDict, Arrays, Float32Arrays
from healthfm_core.config import RunConfig
from healthfm_core.config.secure_aggregation import COARSE_BITS
from healthfm_core.federation import protocol, wire
from healthfm_core.federation.compression.error_feedback import uplink_compressor
from healthfm_core.federation.compression.reference_model import ModelChange, downlink_compressor
from healthfm_core.federation.declared_metrics import declared_metrics
from healthfm_core.federation.parameter_groups import group_names
from healthfm_core.federation.secure.codecs import sum_codec, turned_groups
from healthfm_core.federation.secure.statistics_codec import StatisticsLayout, mark_sizes, marks
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.privacy.secure_aggregation.graph import choose_degree
from healthfm_simulations.planning.measured_start import MeasuredStart

ADVERT_BYTES: Final = 420
"""A site's signed keys in JSON."""
SEALED_BYTES: Final = 230
"""A sealed pair of shares for one neighbour, in JSON."""
SHARE_BYTES: Final = 110
"""A share that opens a sum, in JSON."""
NAME_BYTES: Final = 20
_HEADERS: Final = 500
"""Of the two or three arrays of a masked reply."""


@dataclass(frozen=True)
class MessageSizes:
    """Bytes of what travels; those of the numbers are exact but for zstd's luck with other updates.

    Attributes:
        start: The model and an update.
        config: The run's settings.
    """

    start: MeasuredStart
    config: RunConfig

    @cached_property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        return group_names(self.start.model)

    @cached_property
    def whole(self) -> dict[str, int]:
        """Group → bytes of the model as it is."""
        model = self.start.model
        return {g: _bundled({n: model[n] for n in names}) for g, names in self._groups.items()}

    @cached_property
    def first(self) -> dict[str, int]:
        """Group → bytes of the model as it comes in round 1."""
        return self._change(self.start.model)

    @cached_property
    def change(self) -> dict[str, int]:
        """Group → bytes of the model as it comes to who holds the one before."""
        return self._change(self._update)

    @cached_property
    def update(self) -> dict[str, int]:
        """Group → bytes of an update in the clear."""
        compressor, update = uplink_compressor(self.config.federation.codec), self._update
        if compressor is None:
            return self.whole
        return {
            group: _bundled(compressor.encode({group: names}, update, {}, 0).arrays)
            for group, names in self._groups.items()
        }

    def masked(self, sites: int) -> int:
        """Return the bytes of one site's masked arrays, in a sum of so many sites."""
        secure = self.config.federation.aggregation.secure
        schema = UpdateSchema.of(self.start.model, 1.0)
        metrics = declared_metrics(self.start.study)
        codec = sum_codec(schema, metrics, 1000 * sites, sites, secure)
        if secure.ring_bits == COARSE_BITS:
            codec = replace(codec, turned=turned_groups(codec, secure, 0, None))
        return _of_rings(codec.sizes())

    def letters(self, sites: int) -> dict[str, tuple[int, int]]:
        """Return message of a secure sum → bytes to each site and back."""
        secure = self.config.federation.aggregation.secure
        degree = secure.degree or choose_degree(
            sites,
            secure.threshold,
            colluding_fraction=secure.colluding_fraction,
            dropout_fraction=secure.dropout_fraction,
        )
        near = min(degree, sites - 1)
        return {
            protocol.KEYS: (400, ADVERT_BYTES),
            protocol.SHARES: (ADVERT_BYTES * sites, SEALED_BYTES * near),
            "mailbox": (SEALED_BYTES * near + NAME_BYTES * sites, 0),
            protocol.UNMASK: (NAME_BYTES * sites, SHARE_BYTES * (near + 1)),
        }

    @cached_property
    def study(self) -> int:
        """Bytes of the study."""
        return len(self.start.study.to_json())

    @cached_property
    def statistics(self) -> int:
        """Bytes of a site's statistics."""
        return max((_bundled(dict(one.to_arrays())) for one in self.start.statistics), default=0)

    @cached_property
    def masked_statistics(self) -> tuple[int, int]:
        """Bytes of a site's arrays in each of the two sums that statistics are."""
        totals = {name: np.zeros(size, kind) for name, (size, kind) in mark_sizes().items()}
        for statistics in self.start.statistics:
            for name, marked in marks(statistics, 0).items():
                totals[name] += marked
        tables = StatisticsLayout.for_totals(totals, 0)
        return _of_rings(mark_sizes()), _of_rings(tables.sizes())

    @cached_property
    def order(self) -> int:
        """Bytes of an order without its arrays."""
        return 1500 + len(json.dumps({name: [0] for name in self.start.model}))

    @cached_property
    def _update(self) -> Float32Arrays:
        """An update of every group: of one that the measured site lacks, as long as the others'."""
        known = {n: np.asarray(a, np.float32) for n, a in self.start.update.items()}
        flat = np.concatenate([a.reshape(-1) for a in known.values()])
        chance = np.random.default_rng(0)
        return {
            name: known[name]
            if name in known
            else chance.choice(flat, array.shape).astype(np.float32)
            for name, array in self.start.model.items()
        }

    def _change(self, after: Arrays) -> dict[str, int]:
        compressor = downlink_compressor(self.config.federation.codec)
        if compressor is None:
            return self.whole
        before = {name: np.zeros(array.shape, np.float32) for name, array in after.items()}
        change = ModelChange.between(compressor, self._groups, after, before, 0)
        return {group: _bundled(arrays) for group, arrays in change.arrays.items()}


def of_groups(sizes: Mapping[str, int], groups: Collection[str]) -> int:
    """Return the bytes of those of `sizes` that are in `groups`."""
    return sum(size for group, size in sizes.items() if group in groups)


def _of_rings(sizes: Mapping[str, tuple[int, str]]) -> int:
    return sum(n * np.dtype(kind).itemsize for n, kind in sizes.values()) + _HEADERS


def _bundled(arrays: ArrayDict | Float32Arrays) -> int:
    return len(wire.bundle(arrays))
