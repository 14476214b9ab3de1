"""Configuration block ``federation.aggregation``: how the sites' updates become one step."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema
from healthfm_core.config.secure_aggregation import SecureAggregationConfig


class ServerOptimizerConfig(Schema):
    """What the server does with the averaged update (Reddi et al. 2021)."""

    name: Literal["none", "momentum", "adam"] = "none"
    lr: float = Field(1.0, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    eps: float = Field(1e-3, gt=0)


class AggregationConfig(Schema):
    """Which updates are averaged, how, and what the server does with the result."""

    method: Literal[
        "weighted_mean", "scaffold", "coordinate_median", "trimmed_mean", "krum", "multi_krum"
    ] = Field(
        "weighted_mean",
        description="weighted_mean: by training subjects (FedAvg); scaffold: the same, with "
        "control variates; the robust others count every site once",
    )
    byzantine_fraction: float = Field(
        0.2,
        gt=0,
        lt=0.5,
        description="share of a group's sites that may send anything; for the robust methods",
    )
    groups: Literal["modality", "shared"] = Field(
        "modality",
        description="'modality': each group over the sites that hold it; "
        "'shared': plain FedAvg over the groups every site holds, the others left out",
    )
    code_rows: Literal["all_sites", "their_sites"] = Field(
        "all_sites",
        description="the vectors of a code are averaged over all sites, or over those that have "
        "the code",
    )
    max_update_norm: float = Field(100.0, gt=0, description="L2 of one group's update, at most")
    max_weight_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="most of a group's weight that one site may have, "
        "where there are three or more; without secure sums",
    )
    max_norm_ratio: float = Field(
        10.0,
        ge=1,
        description="a group's update longer than this times the running median over sites and "
        "rounds (in the first its own) is shortened to it, and its site named; without secure sums",
    )
    server_optimizer: ServerOptimizerConfig = ServerOptimizerConfig()
    secure: SecureAggregationConfig = SecureAggregationConfig()

    @model_validator(mode="after")
    def _secure_sums_are_weighted_means(self) -> Self:
        if self.method == "weighted_mean" or not self.secure.enabled:
            return self
        if self.method == "scaffold":
            raise ValueError(
                "federation.aggregation.method=scaffold needs the exact change of every site's "
                "control variates, and federation.aggregation.secure shortens what a site sends "
                "to its clip: leave one of the two out"
            )
        raise ValueError(
            f"federation.aggregation.method={self.method} compares the sites' updates one with "
            "another, and under federation.aggregation.secure nobody sees one: choose between "
            "a coordinator that may be curious and sites that may send anything"
        )
