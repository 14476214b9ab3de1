"""The whole model: encoders of the modalities a site holds, one backbone, the study's heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.models.backbone import Backbone, gather
from healthfm_core.models.encoders import EHREncoder, GenomicsEncoder, WearableEncoder
from healthfm_core.models.heads import HeadSpec, RecurringHead
from healthfm_core.models.linear_logit import causal_mean, causal_sum
from healthfm_core.models.shape import ModelShape


class HealthFM(nn.Module):
    """One multimodal model of a subject's record.

    A site builds it with the encoders of its own modalities only: what a site does not have is
    not there, so nothing about it can be trained, sent or noised.

    Args:
        config: Size and switches.
        shape: What the vocabulary fixes.
        encoders: Modalities whose encoders exist, of ``ehr``, ``wearable``, ``genomics``.
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
        if "ehr" in encoders:
            self.encoders["ehr"] = EHREncoder(
                shape.tokens,
                shape.codes,
                config.width,
                shape.spread,
                config.code_scale,
                bool(self.linear_logit_heads),
            )
        if "wearable" in encoders:
            self.encoders["wearable"] = WearableEncoder(
                shape.features,
                shape.windows,
                layers=config.wearable_layers,
                inner=config.wearable_width,
                heads=config.wearable_heads,
                width=config.width,
                dropout=config.dropout,
                linear_logit=bool(self.linear_logit_heads),
            )
        if "genomics" in encoders:
            self.encoders["genomics"] = GenomicsEncoder(
                shape.scores,
                config.prs_tokens,
                config.prs_width,
                config.width,
                config.genomics_fusion,
            )
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
        return self.join(states, batch)

    def encode(self, batch: Batch) -> Float[Tensor, "B T d"]:
        """Return what the encoders make of each position, 0 where none reads it."""
        embeddings = self.backbone.kind.weight
        x = embeddings.new_zeros(*batch.kind.shape, embeddings.shape[1])
        if "ehr" in self.encoders:
            x = x + self.encoders["ehr"](batch)
        if "wearable" in self.encoders:
            x = x + place(self.encoders["wearable"](batch), batch.wearable_slot)
        if self._genomics and self._genomics.fusion == "soft_tokens":
            x = x + place(self._genomics(batch), batch.prs_slot)
        return x

    def join(self, states_BQd: Float[Tensor, "B Q d"], batch: Batch) -> Float[Tensor, "B Q d"]:
        """Return the states with what polygenic scores add to them late, if that is how they do."""
        return self._genomics.join(states_BQd, batch) if self._genomics else states_BQd

    @property
    def _genomics(self) -> GenomicsEncoder | None:
        held = "genomics" in self.encoders
        return cast(GenomicsEncoder, self.encoders["genomics"]) if held else None

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
        if "ehr" in self.encoders:
            codes = cast(EHREncoder, self.encoders["ehr"]).linear_terms(batch)
            total = total + causal_sum(codes, batch)
        if "wearable" in self.encoders:
            worn = (
                cast(WearableEncoder, self.encoders["wearable"]).linear_terms(batch).unsqueeze(-1)
            )
            total = total + causal_mean(place(worn, batch.wearable_slot).squeeze(-1), batch)
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


def place(vectors_BSd: Float[Tensor, "B S d"], slot_BT: Tensor) -> Float[Tensor, "B T d"]:
    """Return each position's own vector, 0 where its slot is negative."""
    return gather(vectors_BSd, slot_BT.clamp_min(0)) * (slot_BT >= 0).unsqueeze(-1)
