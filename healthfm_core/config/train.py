"""Configuration group ``train``: what a site does with the model in one round."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema

Trainable = Literal["all", "adapters", "linear_logit", "heads"]
RepeatWeighting = Literal["symmetric", "positives", "focal", "none"]


def _weight(default: float, description: str, *, asks: bool) -> Any:
    """Return a field for an objective's weight λ.

    Args:
        default: λ where a run does not say.
        description: What is asked of the model.
        asks: Whether it asks at rows of its own; the others are trained beside one that does.
    """
    return Field(default, ge=0, description=description, json_schema_extra={"asks": asks})


class ObjectivesConfig(Schema):
    """Weights λ of the losses (`healthfm_core.objectives`); one with weight 0 is not computed."""

    next_visit: float = _weight(1.0, "what the next visit brings", asks=True)
    time_to_event: float = _weight(0.0, "when each outcome occurs next", asks=True)
    masked_reconstruction: float = _weight(0.0, "masked codes and masked wearing", asks=False)
    next_event: float = _weight(0.0, "the next event, token by token", asks=True)
    predictive_coding: float = _weight(0.0, "the wearing of the hours to come", asks=False)
    cross_modal: float = _weight(0.0, "the clinic to come, asked while worn", asks=True)
    label: float = _weight(0.0, "binary label of the task at NOW", asks=True)
    value_forecast: float = _weight(0.0, "each code's values in the hours to come", asks=True)

    @classmethod
    def asking(cls) -> tuple[str, ...]:
        """Return the objectives that ask something at rows of their own."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return tuple(name for name, extra in extras.items() if extra == {"asks": True})

    def asked(self) -> tuple[str, ...]:
        """Return those of `asking` that are trained."""
        return tuple(name for name in self.asking() if getattr(self, name) > 0)


class TrainConfig(Schema):
    """Local training."""

    objectives: ObjectivesConfig = ObjectivesConfig()
    curriculum: Literal["none", "staged"] = Field(
        "none", description="how the weights change over the rounds (training.curriculum)"
    )
    label_task: str | None = Field(
        None, description="label table to train on; None is the evaluation's task"
    )
    label_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of each site's training people whose labels are used, drawn by the "
        "run's seed; a smaller share is part of a larger one. The baselines have the same labels. "
        "What a network starts from, the study's rate of the label, is of all of them",
    )
    trainable: Trainable = Field(
        "all",
        description="what is trained beside the heads; all but the first leave the rest of the "
        "network as it was: few parameters, as noise likes them (linear_logit: model.linear_logit)",
    )
    regression_rounds: int = Field(
        0,
        ge=0,
        description="the last so many rounds leave the network as it is and fit the label's head "
        "and model.linear_logit as one ridge regression over all sites' people: sites answer with "
        "gradients, the coordinator takes steps of L-BFGS",
    )
    regression_penalty: float = Field(
        30.0,
        gt=0,
        description="of half the squared weights, beside the sum of all people's losses "
        "(1/C of scikit-learn)",
    )
    local_epochs: float = Field(1.0, gt=0, description="passes over the site's people per round")
    max_steps: int | None = Field(None, ge=1, description="cap on local steps per round")
    batch_size: int = Field(32, ge=1)
    lr: float = Field(1e-3, gt=0)
    lr_final: float = Field(0.1, ge=0, le=1, description="last round's lr as a share of lr, cosine")
    lr_half_lives: float = Field(
        1.0, gt=0, description="rate of the kernel's log half-lives, as a multiple of lr"
    )
    lr_memory: float = Field(
        1.0,
        gt=0,
        description="rate of model.memory's own parameters and of the heads that read it, as a "
        "multiple of lr: few numbers, which may learn fast where the network must learn slowly",
    )
    lr_linear: float = Field(
        1.0, gt=0, description="rate of model.linear_logit's slopes, as a multiple of lr"
    )
    eps_linear: float = Field(
        1e-8,
        gt=0,
        description="Adam's epsilon for these slopes; one large beside their gradients lets a "
        "code that few people have move little, as a ridge does",
    )
    warmup_rounds: float = Field(0.5, ge=0)
    round_warmup: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of each round's steps over which the rate rises: the first steps of a "
        "fresh Adam are steps of signs",
    )
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = Field(1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the model's products in training; parameters stay float32"
    )
    fedprox_mu: float = Field(
        0.0, ge=0, description="weight of ½·mean squared distance to the global model"
    )
    site_intercepts: bool = Field(
        True, description="each site shifts its answers by its own rates, which stay there"
    )
    intercept_prior: Literal["fixed", "own_spread"] = Field(
        "fixed",
        description="how far a site's rates are shrunk to the study's: as if by 20 further cases, "
        "or by as many as the spread of its own targets speaks for",
    )
    repeat_weighting: RepeatWeighting = Field(
        "symmetric",
        description="how a code that was seen before weighs in next_visit: e^(−δ·n) whether it "
        "recurs or not; on recurrences alone; focal loss instead; not at all",
    )
    repeat_decay: float = Field(0.5, ge=0, description="δ: e^(−δ·n) on a code seen in n visits")
    forecast_hours: float = Field(
        24.0,
        gt=0,
        description="how far value_forecast looks ahead; it asks so long before a record's end, or "
        "earlier",
    )
    mask_fraction: float = Field(0.15, gt=0, lt=1, description="of codes, in reconstruction")
    mask_wearable: float = Field(0.3, gt=0, lt=1, description="of wearing, in reconstruction")
    cross_horizons_days: tuple[float, ...] = Field(
        (30.0, 90.0), min_length=1, description="how far cross_modal looks ahead"
    )
    cross_drop_ehr: float = Field(
        0.5, ge=0, le=1, description="share of cross_modal's rows that have wearing alone"
    )
    drop_wearable: float = Field(0.5, ge=0, le=1, description="modality dropout per subject")
    drop_genomics: float = Field(0.5, ge=0, le=1, description="modality dropout per subject")
    drop_ehr: float = Field(0.0, ge=0, le=1, description="modality dropout per subject")
    drop_events: float = Field(0.0, ge=0, lt=1, description="share of clinical tokens dropped")
    horizons_days: tuple[float, ...] = Field(
        (30.0, 90.0, 180.0, 365.0, 730.0),
        min_length=1,
        description="ends of the hazard's pieces; no risk is known beyond the last",
    )

    def is_regression(self, round_: int, rounds: int) -> bool:
        """Return whether round `round_` of `rounds` is one of the last, which fit a regression."""
        return round_ > rounds - self.regression_rounds

    def network_rounds(self, rounds: int) -> int:
        """Return how many of the `rounds`, the first, train the network."""
        return max(1, rounds - self.regression_rounds)

    @model_validator(mode="after")
    def _edges_ascend(self) -> Self:
        edges = (0.0, *self.horizons_days)
        if any(later <= earlier for earlier, later in pairwise(edges)):
            raise ValueError("horizons_days are days ahead, each further than the one before")
        return self
