"""Where the gradient of a local step comes from: plain, DP-SGD, or one sum for the coordinator.

Each of the four is a `LocalGradient`, which `training.loop` takes its steps with.
"""

from __future__ import annotations

from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.federation.protocol import RoundOrder
from healthfm_core.models import HealthFM
from healthfm_core.training.gradients.local_gradient import LocalGradient
from healthfm_core.training.gradients.plain import PlainGradient
from healthfm_core.training.gradients.regression import RegressionGradient
from healthfm_core.training.privacy_plan import PrivacyPlan

__all__ = [
    "LocalGradient",
    "PlainGradient",
    "RegressionGradient",
    "local_gradient",
]


def local_gradient(
    model: HealthFM,
    loader: BatchLoader,
    config: TrainConfig,
    order: RoundOrder,
    privacy: PrivacyPlan | None,
) -> LocalGradient:
    """Return the gradient that a site's round is trained with.

    Args:
        model: The site's; what is trained of it requires gradients.
        loader: Rows of the people it trains on.
        config: Training settings of the round.
        order: Which round.
        privacy: None trains without noise.
    """
    if privacy is None and config.is_regression(order.round, order.rounds):
        return RegressionGradient(model, loader, config, order)
    if privacy is None:
        return PlainGradient(model, loader, config, order)
    # Here: Opacus takes seconds to load, and only private training needs it.
    if privacy.config.mechanism.noise_in_sum:
        from healthfm_core.training.gradients.clipped_sum import ClippedSumGradient

        return ClippedSumGradient(model, loader, config, privacy)
    from healthfm_core.training.gradients.dp_sgd import DPSGDGradient

    return DPSGDGradient(model, loader, config, order, privacy)
