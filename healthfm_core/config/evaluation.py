"""Configuration group ``evaluation``: what is measured, on whom."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from healthfm_core.config.base import Schema
from healthfm_core.config.data import known_modality

NEXT_VISIT_TASK: Final = "next_visit"

Estimator = Literal["hazard", "query", "sample"]


def _known_inputs(names: str) -> str:
    return "+".join(known_modality(name) for name in names.split("+"))


Inputs = Annotated[str, AfterValidator(_known_inputs)]
"""Modalities joined by ``+``."""


class EvaluationConfig(Schema):
    """Evaluation of the final models."""

    task: str = Field(NEXT_VISIT_TASK, description="'next_visit', or the name of a label table")
    protocol: Literal["held_out", "held_out_sites", "leave_sites_out", "late"] = Field(
        "held_out",
        description="held-out people of every site; whole held-out sites; folds that leave each "
        "site out once; or the end of everybody's record",
    )
    late_days: float = Field(
        182.5,
        gt=0,
        description="for late: so much of each record's end is held out; horizons_days, none of "
        "which is longer, are asked about at the moment where it begins",
    )
    folds: int = Field(5, ge=2, description="for leave_sites_out")
    held_out_sites: float = Field(0.2, gt=0, lt=1, description="for held_out_sites")
    test_sites: tuple[str, ...] = Field(
        (), description="for held_out_sites: these by name; () draws a share of them"
    )
    bootstraps: int = Field(1000, ge=2)
    k_subgroup: int = Field(20, ge=1, description="a subgroup smaller than this is not reported")
    inputs: tuple[Inputs, ...] = Field(
        (), description="subsets of modalities to score on, e.g. 'ehr', 'ehr+wearable'; () is all"
    )

    horizons_days: tuple[float, ...] = Field(
        (), description="forecasts within so many days are scored too, e.g. [30,90,180,365]"
    )
    estimators: tuple[Estimator, ...] = Field(
        ("hazard",),
        min_length=1,
        description="how risks come about: the hazards' closed form, a next-visit query at the "
        "horizon (a score to rank by), or sampled futures",
    )
    horizon_queries: Literal["every_visit", "one_per_person"] = Field(
        "every_visit", description="after which visits a forecast is asked for"
    )
    samples: int = Field(16, ge=1, description="futures drawn for each query, for sample")
    forgetting: bool = Field(
        False,
        description="of a run that starts from a trained model: how well the new body still does "
        "the old task under the old head",
    )
    probes_days: tuple[float, ...] = Field(
        (), description="frozen linear probes are fitted for events within so many days"
    )
    probe_shots: tuple[int, ...] = Field(
        (), description="training rows of each class for few-shot probes, e.g. [1,2,4,8]; () none"
    )
    physiology: bool = Field(
        False,
        description="ridge probes of each channel's mean over the last day worn, which the model "
        "has read itself: what states keep of their input; the same from states that were shown no "
        "wearing, and of the day before the next visit; and smoothness beside a probe",
    )
    corruption: tuple[float, ...] = Field(
        (), description="shares of wearing to take away or to drown in noise, e.g. [0,.25,.5,1]"
    )
    half_lives: bool = Field(
        False, description="the kernel's shortest and longest half-life per layer, as figures"
    )
    heritable: bool = Field(
        False,
        description="in the simulated cohort, new onsets of conditions with and without genetics",
    )
    state_alignment: bool = Field(
        False,
        description="how alike the arms' states of the same people are: linear CKA, and R² of a "
        "linear map from one to the other",
    )
    at_sites: bool = Field(
        True,
        description="in a deployment, after the last round each site judges the model on its own "
        "held-out people and tells what its policy lets out; a simulation judges by itself",
    )
    subgroups: bool = Field(False, description="metrics by sex, age band, ancestry and site")

    @model_validator(mode="after")
    def _the_parts_fit(self) -> Self:
        if "sample" in self.estimators:
            if self.horizon_queries != "one_per_person":
                raise ValueError("estimator sample goes with horizon_queries=one_per_person")
            if self.estimators == ("sample",):
                raise ValueError("estimator sample is scored beside hazard or query: name one too")
        if self.test_sites and self.protocol != "held_out_sites":
            raise ValueError("test_sites names the sites of protocol=held_out_sites")
        further = (self.horizons_days, self.probes_days, self.corruption)
        if self.protocol == "leave_sites_out" and (any(further) or self.physiology):
            raise ValueError("horizons, probes and corruption go with one fold: protocol=held_out")
        if (self.subgroups or self.state_alignment) and self.protocol == "leave_sites_out":
            raise ValueError("subgroups and state_alignment go with one fold: protocol=held_out")
        if self.state_alignment and self.task != NEXT_VISIT_TASK:
            raise ValueError("state_alignment asks at next visits: task=next_visit goes with it")
        if self.protocol == "late" and self.task != NEXT_VISIT_TASK:
            raise ValueError("protocol=late asks about next visits: task=next_visit goes with it")
        if self.protocol == "late":
            self._horizons_fit_the_end()
        return self

    def _horizons_fit_the_end(self) -> None:
        """Refuse what cannot be asked about the end of a record alone."""
        if self.probes_days or self.physiology:
            raise ValueError("probes ask about all of a record: protocol=held_out")
        if max(self.horizons_days, default=0.0) > self.late_days:
            raise ValueError("horizons_days of protocol=late lie within late_days, as held out")
        if self.horizons_days and self.horizon_queries != "every_visit":
            raise ValueError(
                "protocol=late asks each person once, where the end that is held out begins: "
                "horizon_queries=every_visit goes with it"
            )
        if self.horizons_days and self.estimators != ("hazard",):
            raise ValueError(
                "protocol=late asks at a moment without a visit, which hazards alone can answer: "
                "estimators=[hazard] goes with it"
            )
