"""The model of one round on its way to the sites: whole, or as a change of what a site holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flwr.app import Array, ArrayRecord

from healthfm_core.arrays import Float32
from healthfm_core.federation import wire
from healthfm_core.federation.compression.compressor import Compressor
from healthfm_core.federation.compression.reference_model import ModelChange, zeros
from healthfm_core.federation.parameter_groups import group_of
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.transport.array_records import digests_of, to_arrays
from healthfm_server.transport.interface import OpenRound

LACKS_THE_MODEL: Final = 411
"""Code of a site that does not hold what a change of the model is of, and gets it whole."""


@dataclass(frozen=True)
class Downlink:
    """What goes down in one round.

    Attributes:
        model: What every site of the round begins with, whichever way it gets it.
        beside: State of an algorithm that travels with it.
        reference: The round whose model `change` is of; 0: zeros, which everybody holds.
        change: From that model to this one; None: it goes whole to everybody.
        holders: Sites that hold the reference, by what they answered.
    """

    model: Mapping[str, Float32]
    beside: Mapping[str, Float32] = field(default_factory=dict)
    reference: int = 0
    change: ModelChange | None = None
    holders: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        state: ServerState,
        groups: Mapping[str, Collection[str]],
        holders: Collection[str],
        compressor: Compressor,
        seed: int,
    ) -> Downlink:
        """Return the downlink of the round after `state`.

        Args:
            state: Of the coordinator.
            groups: Group → its parameters.
            holders: Sites of this round that hold the model of the one before; in round 1 all.
            compressor: How a change is written.
            seed: Of its rounding.
        """
        model, before = state.parameters, state.reference
        if state.round == 0:
            before = zeros({name: model[name].shape for name in model})
        if not (before and holders):
            return cls(model)
        change = ModelChange.between(compressor, groups, model, before, seed)
        return cls(change.model, {}, state.round, change, frozenset(holders))

    def pieces(self, *, held: bool) -> Pieces:
        """Return what goes to the sites that hold the reference, or to those that do not.

        It is made anew each time, so that no model's worth of bytes waits for the answers.
        """
        if not held or self.change is None:
            arrays = to_arrays({**self.model, **self.beside})
            return Pieces(arrays, digests_of(arrays))
        bundles = {group: wire.bundle(parts) for group, parts in self.change.arrays.items()}
        arrays = {g: Array("|u1", (len(b),), wire.BUNDLE, b) for g, b in bundles.items()}
        shapes = {} if self.reference else {n: list(a.shape) for n, a in self.model.items()}
        return Pieces(arrays, digests_of(arrays), self.reference, self.change.digests, shapes)


def holders_of(state: ServerState, current: OpenRound, asked: Collection[str]) -> list[str]:
    """Return who of `asked` holds the model that the round before `current` began with.

    Before round 1 that is zeros, which everybody holds.
    """
    if state.round == 0:
        return list(asked)
    rows = [row for row in current.store.history() if row["round"] == state.round]
    return [name for row in rows for name in row["answered"] if name in asked]


@dataclass(frozen=True)
class Pieces:
    """The arrays of a round, for as many messages as sites.

    Attributes:
        arrays: Group → its parameters, or their change.
        digests: Group → SHA-256 of those bytes, in hex.
        reference: The round whose model they are a change of; 0: they are the model, or a change of
            zeros.
        after: Group → SHA-256 of its parameters after the change.
        shapes: Parameter → shape, where it is of zeros.
    """

    arrays: Mapping[str, Array]
    digests: Mapping[str, str]
    reference: int = 0
    after: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, list[int]] = field(default_factory=dict)

    def record(self, groups: Collection[str]) -> ArrayRecord:
        """Return the arrays of `groups`; the records of several sites share them."""
        return ArrayRecord({group: self.arrays[group] for group in sorted(groups)})

    def fields(self, groups: Collection[str]) -> dict[str, Any]:
        """Return what an order of `groups` says of them."""
        after = {group: digest for group, digest in self.after.items() if group in groups}
        shapes = {name: shape for name, shape in self.shapes.items() if group_of(name) in groups}
        return {"reference": self.reference, "digests": after, "shapes": shapes}
