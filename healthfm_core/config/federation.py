"""Configuration group ``federation``: rounds, quorum, waiting, aggregation."""

from __future__ import annotations

from pydantic import Field

from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.config.base import Schema


class FederationConfig(Schema):
    """The round loop."""

    rounds: int = Field(8, ge=1)
    start_from: str | None = Field(
        None,
        description="folder of an exported model: its vocabulary, and its parameters to start from",
    )
    fraction: float = Field(1.0, gt=0, le=1, description="share of the sites asked each round")
    quorum: float = Field(0.5, gt=0, le=1, description="share of a group's sites that must answer")
    deadline_s: float = Field(3600.0, gt=0)
    gather_s: float = Field(
        60.0, ge=0, description="wait for all sites at most; then the quorum of them begins"
    )
    ttl_s: float = Field(3600.0, gt=0, description="life of a message; a straggler's work expires")
    contract_days: float = Field(
        30.0, gt=0, le=366, description="how long a site may be asked for work under one contract"
    )
    evaluate_every: int = Field(1, ge=0, description="tuning metrics each n rounds; 0: never")
    keep_checkpoints: int = Field(3, ge=1)
    aggregation: AggregationConfig = AggregationConfig()
