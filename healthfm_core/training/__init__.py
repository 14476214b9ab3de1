"""What happens at a site: tokenised people, a round of local training, tuning metrics."""

from healthfm_core.training.intercepts import Intercepts, site_intercepts
from healthfm_core.training.round import evaluate, run_round
from healthfm_core.training.site import (
    SiteData,
    initial_parameters,
    loaded_model,
    loader_for,
    model_for,
)

__all__ = [
    "Intercepts",
    "SiteData",
    "evaluate",
    "initial_parameters",
    "loaded_model",
    "loader_for",
    "model_for",
    "run_round",
    "site_intercepts",
]
