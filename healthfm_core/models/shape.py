"""The sizes a study fixes and a model is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelShape:
    """What the vocabulary says about the model's inputs and outputs.

    Attributes:
        tokens: Size of the fused code⊕bin vocabulary.
        codes: Number of codes.
        mask_token: Index of MASK in the fused vocabulary.
        targets: V, codes the next-visit and hazard heads predict.
        panel: Names of the panels' columns, P of them (`modalities.registry.columns_of`).
        windows: W, windows per wearable token; 0 without wearables.
        features: F, values per window; 0 without wearables.
        channels: Channels of the device, of F / channels samples each; 0 without wearables.
        pieces: Pieces of the piecewise-constant hazard.
        cross_horizons: How many horizons cross-modal prediction asks about.
        target_rates: Share of visits in which each target occurs; the next-visit head starts
            there. Empty: from one rate for all.
        label_rate: Share of labels that are 1; the label head starts there. 0: not known.
        soft_tokens: Modality → soft tokens of its panel, in the order in which they stand in a row.
        spread: K, numbers a token brings about its bin besides the value; 0 without bins.
    """

    tokens: int
    codes: int
    mask_token: int
    targets: int
    panel: tuple[str, ...]
    windows: int
    features: int
    pieces: int
    target_rates: tuple[float, ...] = ()
    label_rate: float = 0.0
    channels: int = 0
    cross_horizons: int = 0
    spread: int = 0
    soft_tokens: Mapping[str, int] = field(default_factory=dict)

    def first_soft_token(self, modality: str) -> int:
        """Return the index of the modality's first soft token among those of a row."""
        names = list(self.soft_tokens)
        before = names[: names.index(modality)] if modality in names else []
        return sum(self.soft_tokens[name] for name in before)
