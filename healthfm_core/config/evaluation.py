"""Configuration group ``evaluation``: what is measured, on whom."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema

NEXT_VISIT_TASK: Final = "next_visit"


class EvaluationConfig(Schema):
    """Evaluation of the final models."""

    task: str = Field(NEXT_VISIT_TASK, description="'next_visit', or the name of a label table")
    protocol: Literal["held_out", "held_out_sites", "leave_sites_out"] = Field(
        "held_out",
        description="held-out people of every site; whole held-out sites; "
        "or folds that leave each site out once",
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
    def _names_are_of_held_out_sites(self) -> Self:
        if self.test_sites and self.protocol != "held_out_sites":
            raise ValueError("test_sites names the sites of protocol=held_out_sites")
        return self
