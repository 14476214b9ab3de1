"""Configuration group ``evaluation``: what is measured, on whom."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema

NEXT_VISIT_TASK: Final = "next_visit"


class EvaluationConfig(Schema):
    """Evaluation of the final models."""

    task: str = Field(NEXT_VISIT_TASK, description="'next_visit', or the name of a label table")
    protocol: Literal["held_out", "held_out_sites", "leave_sites_out", "late"] = Field(
        "held_out",
        description="held-out people of every site; whole held-out sites; folds that leave each "
        "site out once; or the end of everybody's record",
    )
    late_days: float = Field(
        182.5, gt=0, description="for late: so much of each record's end is held out"
    )
    folds: int = Field(5, ge=2, description="for leave_sites_out")
    held_out_sites: float = Field(0.2, gt=0, lt=1, description="for held_out_sites")
    test_sites: tuple[str, ...] = Field(
        (), description="for held_out_sites: these by name; () draws a share of them"
    )
    bootstraps: int = Field(1000, ge=2)
    k_subgroup: int = Field(20, ge=1, description="a subgroup smaller than this is not reported")
    inputs: tuple[str, ...] = Field(
        (), description="subsets of modalities to score on, e.g. 'ehr', 'ehr+wearable'; () is all"
    )

    @model_validator(mode="after")
    def _protocol_fits(self) -> Self:
        if self.test_sites and self.protocol != "held_out_sites":
            raise ValueError("test_sites names the sites of protocol=held_out_sites")
        if self.protocol == "late" and self.task != NEXT_VISIT_TASK:
            raise ValueError("protocol=late asks about next visits: task=next_visit goes with it")
        return self
