"""Typed configuration: one frozen schema per group of ``configs/``."""

from healthfm_core.config.aggregation import AggregationConfig, ServerOptimizerConfig
from healthfm_core.config.data import CohortConfig, DataConfig
from healthfm_core.config.evaluation import EvaluationConfig
from healthfm_core.config.federation import FederationConfig
from healthfm_core.config.model import ModelConfig
from healthfm_core.config.privacy import PrivacyConfig
from healthfm_core.config.run import RunConfig
from healthfm_core.config.simulation import SimulationConfig
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.config.train import ObjectivesConfig, TrainConfig

__all__ = [
    "AggregationConfig",
    "CohortConfig",
    "DataConfig",
    "EvaluationConfig",
    "FederationConfig",
    "ModelConfig",
    "ObjectivesConfig",
    "PrivacyConfig",
    "RunConfig",
    "ServerOptimizerConfig",
    "SimulationConfig",
    "TokensConfig",
    "TrainConfig",
]
