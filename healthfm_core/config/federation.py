"""Configuration group ``federation``: rounds, quorum, server optimiser."""

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


class RobustConfig(Schema):
    """What stands in for the weighted mean where some sites may be hostile."""

    name: Literal["none", "median", "trimmed_mean", "krum", "multi_krum"] = Field(
        "none", description="none: the weighted mean; the others count every site once"
    )
    hostile: float = Field(
        0.2, gt=0, lt=0.5, description="share of a group's sites that may be hostile"
    )


class FederationConfig(Schema):
    """The round loop."""

    rounds: int = Field(8, ge=1)
    start_from: str | None = Field(
        None,
        description="folder of an exported model: its vocabulary, and its parameters to start from",
    )
    fraction: float = Field(1.0, gt=0, le=1, description="share of the sites asked each round")
    aggregation: Literal["modality", "shared"] = Field(
        "modality",
        description="'modality': each group over the sites that hold it; "
        "'shared': plain FedAvg over the groups every site holds, the others left out",
    )
    code_average: Literal["all_sites", "their_sites"] = Field(
        "all_sites",
        description="the vectors of a code are averaged over all sites, or over those that have "
        "the code",
    )
    quorum: float = Field(0.5, gt=0, le=1, description="share of a group's sites that must answer")
    deadline_s: float = Field(3600.0, gt=0)
    gather_s: float = Field(
        60.0, ge=0, description="wait for all sites at most; then the quorum of them begins"
    )
    ttl_s: float = Field(3600.0, gt=0, description="life of a message; a straggler's work expires")
    contract_days: float = Field(
        30.0, gt=0, le=366, description="how long a site may be asked for work under one contract"
    )
    max_update_norm: float = Field(100.0, gt=0, description="L2 of one group's update, at most")
    evaluate_every: int = Field(1, ge=0, description="tuning metrics each n rounds; 0: never")
    keep_checkpoints: int = Field(3, ge=1)
    server_optimizer: ServerOptimizerConfig = ServerOptimizerConfig()
    secure_aggregation: SecureAggregationConfig = SecureAggregationConfig()
    robust: RobustConfig = RobustConfig()

    @model_validator(mode="after")
    def _robust_needs_to_see(self) -> Self:
        if self.robust.name != "none" and self.secure_aggregation.enabled:
            raise ValueError(
                "federation.robust compares the sites' updates one with another, and under "
                "federation.secure_aggregation nobody sees one: choose between a coordinator "
                "that may be curious and sites that may be hostile"
            )
        return self
