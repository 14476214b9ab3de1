"""The network: encoders per modality, continuous-time backbone, heads, checkpoints."""

from healthfm_core.models.healthfm import HealthFM
from healthfm_core.models.shape import ModelShape

__all__ = ["HealthFM", "ModelShape"]
