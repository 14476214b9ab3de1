"""The model of one round on its way to the sites: whole, or as a change of what a site holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord

from healthfm_core.arrays import Float32
from healthfm_core.federation import wire
from healthfm_core.federation.compression.compressor import Compressor
from healthfm_core.federation.compression.reference_model import ModelChange
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.transport.array_records import digests_of, to_arrays


@dataclass(frozen=True)
class Downlink:
    """What goes down in one round.

    Attributes:
        model: What every site of the round begins with, whichever way it gets it.
        beside: State of an algorithm that travels with it.
        reference: The round whose model `change` is of.
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
        answered: Collection[str],
        compressor: Compressor,
        seed: int,
    ) -> Downlink:
        """Return the downlink of the round after `state`.

        Args:
            state: Of the coordinator.
            groups: Group → its parameters.
            answered: Sites of this round that answered the one before.
            compressor: How a change is written.
            seed: Of its rounding.
        """
        if not (state.reference and answered):
            return cls(state.parameters)
        change = ModelChange.between(compressor, groups, state.parameters, state.reference, seed)
        return cls(change.model, {}, state.round, change, frozenset(answered))

    def pieces(self, *, held: bool) -> Pieces:
        """Return what goes to the sites that hold the reference, or to those that do not.

        It is made anew each time, so that no model's worth of bytes waits for the answers.
        """
        if not held or self.change is None:
            arrays = to_arrays({**self.model, **self.beside})
            return Pieces(arrays, digests_of(arrays))
        bundles = {group: wire.bundle(parts) for group, parts in self.change.arrays.items()}
        arrays = {g: Array("|u1", (len(b),), wire.BUNDLE, b) for g, b in bundles.items()}
        return Pieces(arrays, digests_of(arrays), self.reference, self.change.digests)


@dataclass(frozen=True)
class Pieces:
    """The arrays of a round, for as many messages as sites.

    Attributes:
        arrays: Group → its parameters, or their change.
        digests: Group → SHA-256 of those bytes, in hex.
        reference: The round whose model they are a change of; 0: they are the model.
        after: Group → SHA-256 of its parameters after the change.
    """

    arrays: Mapping[str, Array]
    digests: Mapping[str, str]
    reference: int = 0
    after: Mapping[str, str] = field(default_factory=dict)

    def record(self, groups: Collection[str]) -> ArrayRecord:
        """Return the arrays of `groups`; the records of several sites share them."""
        return ArrayRecord({group: self.arrays[group] for group in sorted(groups)})

    def fields(self, groups: Collection[str]) -> dict[str, Any]:
        """Return what an order of `groups` says of them."""
        after = {group: digest for group, digest in self.after.items() if group in groups}
        return {"reference": self.reference, "digests": after}
