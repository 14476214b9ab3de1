"""Batches of people as a study reads them."""

from __future__ import annotations

from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.federation.protocol import Study
from healthfm_core.models.encoders.encoder_registry import soft_tokens


def loader_for(sequences: Sequences, study: Study) -> BatchLoader:
    """Return the loader of `sequences` under the study's token settings."""
    vocabulary = study.vocabulary
    wearable = vocabulary.wearable
    return BatchLoader(
        sequences,
        study.config.tokens,
        n_targets=max(1, len(vocabulary.targets)),
        windows=wearable.windows if wearable else 0,
        features=wearable.features if wearable else 0,
        soft_tokens=soft_tokens(study.config.model),
        forecast_hours=study.config.train.forecast_hours,
    )
