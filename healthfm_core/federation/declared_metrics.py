"""Metrics that a sum of sites can carry: their names follow from the study, not from a site.

A list that every site fills alike, with nothing where it has none, does not tell which of them a
site has. What is not declared is not sent where sums are secure.
"""

from __future__ import annotations

from typing import Final

from healthfm_core.federation.parameter_groups import HEAD
from healthfm_core.federation.protocol import Study
from healthfm_core.modalities.registry import modality_names, specs

_LOSSES: Final = (
    "next_visit",
    "time_to_event",
    "masked_codes",
    "next_event",
    "wearable_reconstruction",
    "predictive_coding",
    "cross_modal",
    "label",
)
_TUNING: Final = ("auroc", "average_precision", "auroc_new_onset", "average_precision_new_onset")
_OF_A_LAYER: Final = (
    "half_life_min_days",
    "half_life_median_days",
    "half_life_max_days",
    "effective_context_days",
    "floor_weight",
)
_HEADS: Final = ("head/next_visit", "head/time_to_event", "head/label")


def declared_metrics(study: Study) -> tuple[str, ...]:
    """Return the names, sorted, of all metrics that a round of `study` may give at any site."""
    needing = {HEAD + head for spec in specs() for head in spec.heads}
    groups = {*modality_names(), "backbone", *needing, *_HEADS}
    layers = range(study.config.model.layers)
    return tuple(
        sorted(
            {
                "steps",
                "update_norm",
                "tuning_subjects",
                *(f"loss_{name}" for name in _LOSSES),
                *(f"tuning_{name}" for name in _TUNING),
                *(f"grad_norm/{group}" for group in groups),
                *(f"layer{layer}/{name}" for layer in layers for name in _OF_A_LAYER),
            }
        )
    )
