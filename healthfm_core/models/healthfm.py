"""The whole model: encoders of the modalities a site holds, one backbone, the study's heads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.modalities.registry import modality_names
from healthfm_core.models.backbone import Backbone, gather
from healthfm_core.models.encoders.encoder_registry import encoder_factory
from healthfm_core.models.encoders.modality_encoder import ModalityEncoder
from healthfm_core.models.heads import HeadSpec, RecurringHead
from healthfm_core.models.shape import ModelShape


class HealthFM(nn.Module):
    """One multimodal model of a subject's record.

    A site builds it with the encoders of its own modalities only: what a site does not have is
    not there, so nothing about it can be trained, sent or noised.

    Args:
        config: Size and switches.
        shape: What the vocabulary fixes.
        encoders: Modalities whose encoders exist.
        heads: Name → head, of those that exist (`objectives.heads_for`).

    Attributes:
        intercepts: Head → [o] constants that this site adds to its outputs; no parameters, and
            nothing that is sent.
    """

    def __init__(
        self,
        config: ModelConfig,
        shape: ModelShape,
        *,
        encoders: Collection[str],
        heads: Mapping[str, HeadSpec],
    ) -> None:
        super().__init__()
        self.shape = shape
        wide = {name for name, spec in heads.items() if spec.adds_linear_logit}
        self.linear_logit_heads = frozenset(wide if config.linear_logit else ())
        self.encoders = nn.ModuleDict()
        for name in modality_names():
            if name in encoders:
                build = encoder_factory(name).build
                self.encoders[name] = build(config, shape, bool(self.linear_logit_heads))
        self.backbone = Backbone(config)
        self.heads = nn.ModuleDict(
            {name: spec.build(shape, config.width) for name, spec in heads.items()}
        )
        self.intercepts: dict[str, Tensor] = {}

    def forward(
        self, batch: Batch, at_BQ: Int64[Tensor, "B Q"] | None = None
    ) -> Float[Tensor, "B Q d"]:
        """Return the backbone's states at the positions `at_BQ` of each row, or at all of them."""
        states = cast(Tensor, self.backbone(self.encode(batch), batch, at_BQ))
        return self.join(states, batch) + self.recall(batch, at_BQ)

    def recall(
        self, batch: Batch, at_BQ: Int64[Tensor, "B Q"] | None = None
    ) -> Float[Tensor, "B Q d"] | float:
        """Return what memories and a query's own time add to states: at queries, 0 elsewhere."""
        parts = [self.backbone.query_terms(batch), *(e.recall(batch) for e in self._encoders())]
        read = [part for part in (*parts, self._agreed(batch)) if part is not None]
        if not read:
            return 0.0
        recalled = sum(read[1:], read[0]) * batch.query_mask.unsqueeze(-1)
        if at_BQ is batch.query:
            return recalled
        at = batch.query.unsqueeze(-1).expand_as(recalled)
        everywhere = recalled.new_zeros(*batch.kind.shape, recalled.shape[-1])
        everywhere = everywhere.scatter_add(1, at, recalled)
        return everywhere if at_BQ is None else gather(everywhere, at_BQ)

    def _agreed(self, batch: Batch) -> Float[Tensor, "B Q d"] | None:
        """Return what the one mean of all modalities adds; None: there is none."""
        product = self.backbone.memory
        if product is None:
            return None
        fade = product.fade(batch)
        each = [encoder.expert(batch, fade) for encoder in self._encoders()]
        said = [sums for sums in each if sums is not None]
        return cast(Tensor, product(said, batch)) if said else None

    def encode(self, batch: Batch) -> Float[Tensor, "B T d"]:
        """Return what the encoders make of each position, 0 where none reads it."""
        embeddings = self.backbone.kind.weight
        x = embeddings.new_zeros(*batch.kind.shape, embeddings.shape[1])
        for encoder in self._encoders():
            tokens = encoder.tokens(batch)
            x = x if tokens is None else x + tokens
        return x

    def join(self, states_BQd: Float[Tensor, "B Q d"], batch: Batch) -> Float[Tensor, "B Q d"]:
        """Return the states with what modalities add to them late, if some of them do."""
        for encoder in self._encoders():
            states_BQd = encoder.join(states_BQd, batch)
        return states_BQd

    def _encoders(self) -> Iterator[ModalityEncoder]:
        return (cast(ModalityEncoder, encoder) for encoder in self.encoders.values())

    def head(
        self, name: str, states_BQd: Float[Tensor, "B Q d"], batch: Batch, *conditioning: Tensor
    ) -> Float[Tensor, "B Q o"]:
        """Return the outputs of head `name` at the batch's queries, or wherever the states are.

        In float32 at least: a loss is a sum over many of them.

        Args:
            name: The head.
            states_BQd: The states.
            batch: Where they are from.
            conditioning: What else the head reads (`NextEventHead`: the gap's bin). A
                `RecurringHead` reads the batch's repeats.
        """
        head = self.heads[name]
        if isinstance(head, RecurringHead):
            conditioning = (batch.repeats,)
        outputs = cast(Tensor, head(states_BQd, *conditioning))
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if name in self.linear_logit_heads:
            outputs = outputs + self.linear_logit(batch).unsqueeze(-1)
        return outputs + self.intercepts[name] if name in self.intercepts else outputs

    def linear_logit(self, batch: Batch) -> Float[Tensor, "B Q"]:
        """Return the linear part of a label's logit at the batch's queries."""
        total = batch.t_days.new_zeros(batch.query.shape)
        for encoder in self._encoders():
            own = encoder.query_logit(batch)
            total = total if own is None else total + own
        return total

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.backbone.kind.weight.device

    def arrays(self) -> Float32Arrays:
        """Return copies of all parameters by name, float32."""
        return {
            name: parameter.detach().to("cpu", torch.float32).numpy().copy()
            for name, parameter in self.named_parameters()
        }

    def load_arrays(self, arrays: Mapping[str, Float32]) -> None:
        """Set every parameter of this model from `arrays`, which may hold others too."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(torch.from_numpy(np.asarray(arrays[name])))
