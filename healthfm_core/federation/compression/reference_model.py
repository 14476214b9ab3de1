"""The model on its way down: a change of what the sites hold, in fewer bits.

Sites that answered a round hold its model R. For the next they get C(W - R), with W the
coordinator's own model, and hold R + C(W - R), as the coordinator does on its disk. What rounding
leaves out is in the next difference, so that nothing is lost for good (error feedback at the
server: Tang et al. 2019, DoubleSqueeze). Whoever lacks R gets the new one whole, in float32: all
sites of a round train from the same bits. Before round 1 everybody holds zeros.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from healthfm_core.arrays import ArrayDict, Arrays, Float32, Float32Arrays
from healthfm_core.config.codec import CodecConfig
from healthfm_core.federation.compression.compressor import Compressor

Groups = Mapping[str, Collection[str]]
"""Group → its parameters, in the order that both sides know."""


def zeros(shapes: Mapping[str, Sequence[int]]) -> Float32Arrays:
    """Return the model that everybody holds before round 1; it takes no memory until written to."""
    return {name: np.zeros(tuple(shape), np.float32) for name, shape in shapes.items()}


def downlink_compressor(config: CodecConfig) -> Compressor | None:
    """Return how the model's changes are written; None where it travels whole."""
    return None if config.downlink == "none" else Compressor(config.downlink)


@dataclass(frozen=True)
class ModelChange:
    """A step from one reference model to the next.

    Attributes:
        arrays: Group → what travels.
        model: The model that a site holds then.
        digests: Group → SHA-256 of its parameters in that model, in hex.
    """

    arrays: Mapping[str, ArrayDict]
    model: Float32Arrays
    digests: Mapping[str, str]

    @classmethod
    def between(
        cls, compressor: Compressor, groups: Groups, model: Arrays, reference: Arrays, seed: int
    ) -> ModelChange:
        """Return the step that brings sites which hold `reference` near `model`."""
        arrays: dict[str, ArrayDict] = {}
        after: Float32Arrays = {}
        for group, names in groups.items():
            change = {name: np.asarray(model[name] - reference[name]) for name in names}
            arrays[group] = compressor.encode({group: names}, change, {}, seed).arrays
            after |= changed(compressor, {group: names}, arrays[group], reference)
        return cls(arrays, after, digests_by_group(groups, after))


def changed(
    compressor: Compressor, groups: Groups, arrays: Arrays, reference: Mapping[str, Float32]
) -> Float32Arrays:
    """Return the parameters of `groups` after the change that `arrays` are.

    Raises:
        ValueError: They are none of `groups` in this codec.
    """
    shapes = {name: reference[name].shape for names in groups.values() for name in names}
    decoded = compressor.decode(groups, shapes, arrays)
    return {name: np.asarray(reference[name] + decoded[name]) for name in shapes}


def digests_by_group(groups: Groups, model: Arrays) -> dict[str, str]:
    """Return group → SHA-256 of its parameters' bytes, in hex."""
    return {group: _digest(model[name] for name in names) for group, names in groups.items()}


def _digest(arrays: Iterable[Float32]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
