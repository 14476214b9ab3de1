"""What an objective is: one thing the model learns to answer, with all the platform needs of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jaxtyping import Float, Int64
from torch import Tensor

from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.loader import Query
from healthfm_core.models import HealthFM
from healthfm_core.models.heads import HeadSpec
from healthfm_core.objectives.input_masking import MaskedInputs

FIRST_FORECAST: Final = 0.5
"""Share of its weight that a forecast has in the first round of the staged curriculum."""


@dataclass(frozen=True)
class PassOutputs:
    """What one pass through the model gives an objective's loss.

    Attributes:
        model: The site's.
        states: [B, P, d] the backbone's states at the objective's positions.
        batch: The rows as they are, before anything was masked.
        masked: What was masked of them; None where nothing was.
        config: Training settings of the round.
    """

    model: HealthFM
    states: Float[Tensor, "B P d"]
    batch: Batch
    masked: MaskedInputs | None
    config: TrainConfig


Loss = Callable[[PassOutputs], Float[Tensor, " B"]]
Positions = Callable[[Batch, MaskedInputs | None], Int64[Tensor, "B P"]]


def query_positions(batch: Batch, masked: MaskedInputs | None) -> Int64[Tensor, "B Q"]:
    """Return the positions of the rows' own queries."""
    return batch.query


def constant_share(progress: float) -> float:
    """Return the whole weight in every round."""
    return 1.0


def forecast_share(progress: float) -> float:
    """Return a share that grows from half to all of the weight."""
    return FIRST_FORECAST + (1 - FIRST_FORECAST) * progress


@dataclass(frozen=True)
class Objective:
    """One thing the model learns to answer: its rows, its head, its loss.

    Its name is that of its head (parameters ``heads.<name>.*``, group ``head/<name>``) and of its
    metrics (``loss_<name>``, ``grad_norm/head/<name>``).

    Under differential privacy a step is one pass through the model over one row of each person
    drawn. The loss must be a vector of one loss per subject, and the head's parameters must lie in
    leaf modules (`models.layers`); nothing else is asked of an objective.

    Attributes:
        name: The one name.
        head: How its head is built.
        loss: [B] losses per subject.
        query: Kind of row that asks it. None: it asks nothing of its own, and is trained beside
            whatever the first kind of row of a step asks.
        modality: What a site must hold to have its targets; None: every site has them.
        weight_name: Field of ``train.objectives`` with its weight; its own name where empty.
        positions: Where in a row its head reads the backbone's states.
        masks_inputs: Whether inputs are masked in the pass it is trained in.
        own_view: The batch as it has to be read for this objective, in a pass of its own whose
            states at all positions it gets. None: it shares the pass of its rows.
        input_dropout: Modality → dropout for its rows, where it is not the ordinary one.
        share: Share of its weight in the staged curriculum, by how far the run is (0 to 1).
    """

    name: str
    head: HeadSpec
    loss: Loss
    query: Query | None = None
    modality: str | None = None
    weight_name: str = ""
    positions: Positions = query_positions
    masks_inputs: bool = False
    own_view: Callable[[Batch], Batch] | None = None
    input_dropout: Callable[[TrainConfig], Mapping[str, float]] | None = None
    share: Callable[[float], float] = constant_share

    @property
    def weight_field(self) -> str:
        """Field of ``train.objectives`` that holds its weight λ."""
        return self.weight_name or self.name

    def weight(self, weights: Any) -> float:
        """Return λ in `weights` (``train.objectives``); 0 is an objective that is not trained."""
        return float(getattr(weights, self.weight_field))

    @property
    def loss_metric(self) -> str:
        """Name of the metric that tells its mean loss in a round."""
        return f"loss_{self.name}"

    @property
    def group(self) -> str:
        """Parameter group of its head."""
        return f"head/{self.name}"
