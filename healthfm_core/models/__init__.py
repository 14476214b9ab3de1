"""The network: encoders per modality, continuous-time backbone, heads, checkpoints."""

from healthfm_core.models.heads import heads_for
from healthfm_core.models.healthfm import Arrays, HealthFM
from healthfm_core.models.shape import ModelShape

__all__ = ["Arrays", "HealthFM", "ModelShape", "heads_for"]
