"""Configuration group ``federation``: rounds, quorum, waiting, aggregation."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.config.base import Schema
from healthfm_core.config.codec import CodecConfig

TuningMetric = Literal[
    "tuning_auroc",
    "tuning_average_precision",
    "tuning_auroc_new_onset",
    "tuning_average_precision_new_onset",
]


class EarlyStoppingConfig(Schema):
    """Which round's model a run ends with, chosen by the federated mean of a tuning metric."""

    monitor: TuningMetric | None = Field(
        None, description="what is compared, larger is better; None: the last round's model, always"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="scored rounds without a gain after which the run stops; None: all rounds",
    )
    min_delta: float = Field(0.0, ge=0, description="a gain is more than this")
    restore_best: bool = Field(
        True, description="whether the run ends with the best round's model or the last one's"
    )


class FederationConfig(Schema):
    """The round loop."""

    rounds: int = Field(8, ge=1)
    start_from: str | None = Field(
        None,
        description="folder of an exported model: its vocabulary, and its parameters to start from",
    )
    fraction: float = Field(1.0, gt=0, le=1, description="share of the sites asked each round")
    quorum: float = Field(0.5, gt=0, le=1, description="share of a group's sites that must answer")
    deadline_s: float = Field(
        3600.0, gt=0, description="longest that a round waits for its sites, and the first one's"
    )
    patience: float = Field(
        4.0,
        ge=0,
        description="in a deployment a round waits this many times what the slowest answer of the "
        "last ten took, a minute at least and deadline_s at most; 0: deadline_s, always",
    )
    gather_s: float = Field(
        60.0, ge=0, description="wait for all sites at most; then the quorum of them begins"
    )
    ttl_s: float = Field(3600.0, gt=0, description="life of a message; a straggler's work expires")
    contract_days: float = Field(
        30.0, gt=0, le=366, description="how long a site may be asked for work under one contract"
    )
    evaluate_every: int = Field(1, ge=0, description="tuning metrics each n rounds; 0: never")
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    keep_checkpoints: int = Field(3, ge=1)
    min_shared_codes: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of a site's events under codes that another site has too, below which "
        "the site is left out; 0: none is",
    )
    aggregation: AggregationConfig = AggregationConfig()
    codec: CodecConfig = CodecConfig()

    @model_validator(mode="after")
    def _what_is_monitored_is_asked_for(self) -> Self:
        early = self.early_stopping
        if early.patience is not None and early.monitor is None:
            raise ValueError(
                "federation.early_stopping.patience counts rounds by a metric: name it with "
                "federation.early_stopping.monitor, for example tuning_auroc"
            )
        if early.monitor is not None and self.evaluate_every == 0:
            raise ValueError(
                "federation.early_stopping.monitor needs federation.evaluate_every of 1 or more: "
                "without it no site scores a round"
            )
        return self

    @model_validator(mode="after")
    def _codecs_have_updates_to_write(self) -> Self:
        if self.codec.uplink == self.codec.downlink == "none":
            return self
        if self.aggregation.secure.enabled and self.codec.uplink != "none":
            raise ValueError(
                "federation.codec.uplink writes each site's update in fewer bits, and under "
                "federation.aggregation.secure an update is whole numbers of a ring: leave it out "
                "and set federation.aggregation.secure.ring_bits=16, which takes half the bytes; "
                "federation.codec.downlink goes with both"
            )
        if self.aggregation.method == "scaffold":
            raise ValueError(
                "federation.aggregation.method=scaffold needs the exact change of every site's "
                "control variates, and federation.codec rounds what travels: leave one of the "
                "two out"
            )
        return self
