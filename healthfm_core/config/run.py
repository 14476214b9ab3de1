"""The whole configuration of one run."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema
from healthfm_core.config.data import DataConfig
from healthfm_core.config.evaluation import NEXT_VISIT_TASK, EvaluationConfig
from healthfm_core.config.federation import FederationConfig
from healthfm_core.config.model import ModelConfig
from healthfm_core.config.network import NetworkConfig
from healthfm_core.config.plan import PlanConfig
from healthfm_core.config.privacy import PrivacyConfig
from healthfm_core.config.simulation import SimulationConfig
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.config.train import ObjectivesConfig, TrainConfig
from healthfm_core.errors import ConfigError


class RunConfig(Schema):
    """One run, typed and frozen; it travels to the sites as JSON and is checked there again."""

    name: str = "run"
    seed: int = Field(0, ge=0)
    out: str | None = Field(None, description="result folder; None is runs/<time>")
    resume: bool = False
    sites: str = Field("natural", description="how the source's people form sites")
    data: DataConfig = DataConfig()
    tokens: TokensConfig = TokensConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    federation: FederationConfig = FederationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    simulation: SimulationConfig = SimulationConfig()
    network: NetworkConfig = NetworkConfig()
    plan: PlanConfig = PlanConfig()

    @model_validator(mode="after")
    def _rounds_of_joining_exist(self) -> Self:
        rounds = self.federation.rounds
        if any(not 2 <= first <= rounds for first in self.simulation.joins.values()):
            raise ValueError("simulation.joins takes rounds from 2 to federation.rounds")
        if any(not 1 <= last < rounds for last in self.simulation.leaves.values()):
            raise ValueError("simulation.leaves takes rounds from 1 to federation.rounds - 1")
        return self

    @model_validator(mode="after")
    def _one_clock_is_for_all_sites(self) -> Self:
        if self.network.enabled and self.simulation.engine != "inprocess":
            raise ValueError(
                "network.enabled needs simulation.engine=inprocess, which knows what happens when"
            )
        return self

    @model_validator(mode="after")
    def _regions_add_up(self) -> Self:
        federation, simulation = self.federation, self.simulation
        if not simulation.regions:
            return self
        against = {
            "federation.aggregation.secure": federation.aggregation.secure.enabled,
            f"federation.aggregation.method={federation.aggregation.method}": (
                federation.aggregation.method != "weighted_mean"
            ),
            "federation.aggregation.groups=shared": federation.aggregation.groups == "shared",
            "federation.codec.downlink": federation.codec.downlink != "none",
            f"simulation.engine={simulation.engine}": simulation.engine != "inprocess",
            "simulation.joins and leaves": bool(simulation.joins or simulation.leaves),
            "network.enabled": self.network.enabled,
        }
        for what, is_set in against.items():
            if is_set:
                raise ValueError(
                    f"simulation.regions adds the sites' updates up region by region, which does "
                    f"not go with {what}: leave one of the two out"
                )
        return self

    @model_validator(mode="after")
    def _estimators_are_trained(self) -> Self:
        weights = self.train.objectives
        needs = {
            "hazard": ("time_to_event", weights.time_to_event),
            "query": ("next_visit", weights.next_visit),
            "sample": ("next_event", weights.next_event),
        }
        if self.evaluation.heritable and self.data.source != "cohort":
            raise ValueError("evaluation.heritable speaks of the simulated cohort: data=cohort")
        for estimator in self.evaluation.estimators if self.evaluation.horizons_days else ():
            objective, weight = needs[estimator]
            if weight == 0:
                raise ValueError(
                    f"evaluation.estimators={estimator} needs train.objectives.{objective} above 0"
                )
        return self

    @model_validator(mode="after")
    def _summaries_have_numbers(self) -> Self:
        asks = {
            "model.summary_hours": self.model.summary_hours is not None,
            "model.linear_hours": self.model.linear_hours is not None,
            "model.linear_knots": bool(self.model.linear_knots),
            "train.objectives.value_forecast": self.train.objectives.value_forecast > 0,
        }
        for key, is_asked in asks.items():
            if is_asked and not self.tokens.bin_spread:
                raise ValueError(f"{key} reads what bins tell: tokens.bin_spread=true goes with it")
        return self

    @model_validator(mode="after")
    def _a_regression_has_exact_gradients(self) -> Self:
        rounds, federation = self.train.regression_rounds, self.federation
        if rounds == 0:
            return self
        key = f"train.regression_rounds={rounds}"
        aggregation, codec = federation.aggregation, federation.codec
        needs = {
            "train.objectives.label above 0": self.train.objectives.label > 0,
            f"federation.rounds of {rounds} or more": federation.rounds >= rounds,
            "federation.fraction=1": federation.fraction == 1,
            "federation.aggregation.method=weighted_mean": aggregation.method == "weighted_mean",
            "federation.codec off": codec.uplink == codec.downlink == "none",
            "privacy.mode=none": not self.privacy.mechanism.is_private,
            "federation.aggregation.secure without noise": aggregation.secure.epsilon is None,
        }
        for need, is_met in needs.items():
            if not is_met:
                raise ValueError(f"{key} steps along exact gradients of a label: it needs {need}")
        return self

    @model_validator(mode="after")
    def _the_mechanism_fits(self) -> Self:
        if self.privacy.mechanism.is_private and self.train.precision != "float32":
            raise ValueError(
                f"privacy.mode={self.privacy.mode} needs train.precision=float32: half precision "
                "would not hold the norm a gradient is clipped to"
            )
        mechanism = self.privacy.mechanism
        conflict = mechanism.conflict and mechanism.conflict(self)
        if conflict is not None:
            raise ValueError(conflict)
        return self

    @model_validator(mode="after")
    def _what_is_monitored_leaves_the_sites(self) -> Self:
        monitor = self.federation.early_stopping.monitor
        if monitor is None:
            return self
        where = "federation.early_stopping.monitor"
        secure = self.federation.aggregation.secure
        if self.privacy.mechanism.noise_in_sum or (secure.enabled and secure.epsilon is not None):
            raise ValueError(
                f"{where} needs tuning metrics, and a sum with shared noise carries none: "
                "leave it out, or use privacy.mode=dp with privacy.tuning_metrics=true"
            )
        if self.privacy.mechanism.is_private and not self.privacy.tuning_metrics:
            raise ValueError(
                f"{where} needs tuning metrics, which stay at a private site: leave it out, or "
                "set privacy.tuning_metrics=true, which tells more than ε covers"
            )
        if self.label_task is not None and monitor.endswith("_new_onset"):
            raise ValueError(f"{where}={monitor} is of next visits, and this run has a label")
        head = "next_visit" if self.label_task is None else "label"
        if getattr(self.train.objectives, head) == 0:
            raise ValueError(f"{where} scores the head {head}: train.objectives.{head} is 0")
        return self

    def check_horizons(self) -> None:
        """Check that the hazards reach every horizon they are asked for.

        Where a run is begun, not where a stored one is read: what an older release wrote stays
        readable, and `objectives.time_to_event.risk` refuses the horizon itself.

        Raises:
            ConfigError: They end before it (HF-103).
        """
        evaluation, edges = self.evaluation, self.train.horizons_days
        asked = evaluation.horizons_days if "hazard" in evaluation.estimators else ()
        furthest = max(asked, default=0.0)
        if furthest <= edges[-1]:
            return
        reaching = ",".join(f"{edge:g}" for edge in (*edges, furthest))
        raise ConfigError(
            103,
            where="evaluation.horizons_days",
            seen=f"risks within {furthest:g} days of hazards that end at {edges[-1]:g}",
            wanted="the last of train.horizons_days reaches the furthest horizon",
            do=f"Write train.horizons_days=[{reaching}]",
        )

    def check_objectives(self) -> None:
        """Check that something is asked, and that a label that is asked has a name.

        Where a run is begun, as `check_horizons`.

        Raises:
            ConfigError: It is not so (HF-103).
        """
        weights = self.train.objectives
        if not weights.asked():
            raise ConfigError(
                103,
                where="train.objectives",
                seen="every objective that asks something has the weight 0",
                wanted=f"one of {', '.join(ObjectivesConfig.asking())} is above 0",
                do="Write train.objectives.next_visit=1, or label=1 for a label",
            )
        if weights.label > 0 and self.label_task is None:
            raise ConfigError(
                103,
                where="train.objectives.label",
                seen="a label is to be learned, and none is named",
                wanted="the name of a label table of the stores",
                do="Write evaluation.task=NAME",
            )

    @property
    def label_task(self) -> str | None:
        """The label table the run needs; None where no label is trained or judged."""
        task = self.train.label_task or self.evaluation.task
        return None if task == NEXT_VISIT_TASK else task
