"""What happens at a site: tokenised people, and a round of local training."""

from healthfm_core.training.gradients.corrections import DriftCorrection
from healthfm_core.training.intercepts import Intercepts, site_intercepts
from healthfm_core.training.loaders import loader_for
from healthfm_core.training.loop import train_round
from healthfm_core.training.privacy_plan import PrivacyPlan, plan_privacy
from healthfm_core.training.site_data import (
    SiteData,
    initial_parameters,
    loaded_model,
    model_for,
)

__all__ = [
    "DriftCorrection",
    "Intercepts",
    "PrivacyPlan",
    "SiteData",
    "initial_parameters",
    "loaded_model",
    "loader_for",
    "model_for",
    "plan_privacy",
    "site_intercepts",
    "train_round",
]
