"""What the model is trained to answer: one file per objective, and the registry of them all.

Each loss is a vector of one loss per subject, never a scalar over subjects.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from healthfm_core.config.train import ObjectivesConfig
from healthfm_core.models.heads import HeadSpec
from healthfm_core.objectives.cross_modal import CROSS_MODAL
from healthfm_core.objectives.label import LABEL
from healthfm_core.objectives.masked_codes import MASKED_CODES
from healthfm_core.objectives.masked_wearable import MASKED_WEARABLE
from healthfm_core.objectives.next_event import NEXT_EVENT
from healthfm_core.objectives.next_visit import NEXT_VISIT
from healthfm_core.objectives.objective import Objective, PassOutputs
from healthfm_core.objectives.predictive_coding import PREDICTIVE_CODING
from healthfm_core.objectives.time_to_event import TIME_TO_EVENT, risk
from healthfm_core.objectives.value_forecast import VALUE_FORECAST

__all__ = ["OBJECTIVES", "Objective", "PassOutputs", "head_specs", "heads_for", "risk", "trained"]

OBJECTIVES: Final[tuple[Objective, ...]] = (
    NEXT_VISIT,
    LABEL,
    TIME_TO_EVENT,
    MASKED_CODES,
    MASKED_WEARABLE,
    NEXT_EVENT,
    PREDICTIVE_CODING,
    CROSS_MODAL,
    VALUE_FORECAST,
)
"""All objectives, in the order in which their heads are built: which random numbers a head starts
from depends on it. A new one goes to the end."""


def trained(weights: ObjectivesConfig) -> tuple[Objective, ...]:
    """Return the objectives with a weight above 0, in the registry's order."""
    return tuple(objective for objective in OBJECTIVES if objective.weight(weights) > 0)


def heads_for(weights: ObjectivesConfig, modalities: Collection[str]) -> dict[str, HeadSpec]:
    """Return the heads that the objectives need at a site that holds `modalities`, by name."""
    return {
        objective.name: objective.head
        for objective in trained(weights)
        if objective.modality is None or objective.modality in modalities
    }


def head_specs(names: Collection[str]) -> dict[str, HeadSpec]:
    """Return the heads called `names`, in the registry's order."""
    return {objective.name: objective.head for objective in OBJECTIVES if objective.name in names}
