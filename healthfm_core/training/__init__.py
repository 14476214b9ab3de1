"""What happens at a site: tokenised people, a round of local training, tuning metrics."""

from healthfm_core.training.intercepts import Intercepts, site_intercepts
from healthfm_core.training.private import Private, private_training
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
    "Private",
    "SiteData",
    "evaluate",
    "initial_parameters",
    "loaded_model",
    "loader_for",
    "model_for",
    "private_training",
    "run_round",
    "site_intercepts",
]
