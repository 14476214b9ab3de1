"""What is lost without a modality, and as wearing is removed or gets noisy step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from healthfm_core.evaluation.metrics.bootstrap import Estimate, draw_subjects
from healthfm_core.evaluation.metrics.report_metrics import estimate
from healthfm_core.evaluation.predictions import Predictions, Subset

Corruption = Literal["removed", "noised"]
K = TypeVar("K")


@dataclass(frozen=True)
class MatrixCell:
    """One cell of the missing-modality matrix.

    Attributes:
        trained: Modalities in training, joined by ``+``.
        given: Modalities at inference, joined by ``+``.
        metric: A key of `resampling.METRICS`.
        value: Point estimate; NaN where not defined.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n_subjects: People scored.
    """

    trained: str
    given: str
    metric: str
    value: float
    low: float
    high: float
    n_subjects: int


@dataclass(frozen=True)
class CorruptionRow:
    """One point of a curve of degradation.

    Attributes:
        arm: Whose predictions.
        kind: Whether hours of wearing were removed or had noise added.
        share: Of the hours, 0 … 1.
        metric: A key of `resampling.METRICS`.
        value: Point estimate; NaN where not defined.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n_subjects: People scored.
    """

    arm: str
    kind: str
    share: float
    metric: str
    value: float
    low: float
    high: float
    n_subjects: int


def missing_matrix(
    cells: Mapping[tuple[str, str], Predictions],
    *,
    metric: str,
    bootstraps: int,
    rng: np.random.Generator,
    subset: Subset = "overall",
) -> list[MatrixCell]:
    """Return a cell per (trained on, given) pair, all on the same draws of people.

    Args:
        cells: (trained on, given) → predictions for the same people; a pair that makes no sense,
            such as inputs the model has no encoder for, is left out.
        metric: A key of `resampling.METRICS`.
        bootstraps: Number of replicates.
        rng: Where the draws come from.
        subset: Which rows of the predictions.
    """
    estimates = _on_same_draws(cells, metric, bootstraps, rng, subset)
    return [
        MatrixCell(*key, metric, e.value, *e.interval(), people)
        for key, (e, people) in estimates.items()
    ]


def corruption_rows(
    curves: Mapping[tuple[str, Corruption, float], Predictions],
    *,
    metric: str,
    bootstraps: int,
    rng: np.random.Generator,
    subset: Subset = "overall",
) -> list[CorruptionRow]:
    """Return a row per (arm, kind, share), all on the same draws of people.

    Args:
        curves: (arm, kind, share) → predictions for the same people, with that share of their
            wearing corrupted (see `corrupted`); share 0 is the record as it is.
        metric: A key of `resampling.METRICS`.
        bootstraps: Number of replicates.
        rng: Where the draws come from.
        subset: Which rows of the predictions.
    """
    estimates = _on_same_draws(curves, metric, bootstraps, rng, subset)
    return [
        CorruptionRow(*key, metric, e.value, *e.interval(), people)
        for key, (e, people) in estimates.items()
    ]


def corrupted(
    wearable: Float[np.ndarray, "H W F"],
    mask: Bool[np.ndarray, "H W F"],
    *,
    kind: Corruption,
    share: float,
    rng: np.random.Generator,
    noise_std: float = 1.0,
) -> tuple[Float[np.ndarray, "H W F"], Bool[np.ndarray, "H W F"]]:
    """Return wearing and mask with a share of its H hours removed or noised.

    With generators of one seed the hours of a smaller share are among those of a larger one, and
    get the same noise.

    Args:
        wearable: Standardised values, 0 where not observed.
        mask: True where observed.
        kind: ``removed`` leaves the hour unobserved, ``noised`` adds noise to what was observed.
        share: Of the hours, 0 … 1.
        rng: Which hours, and what noise.
        noise_std: Standard deviation of the noise, in those of the channel.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is {share}; 0 to 1 is wanted")
    hit = (rng.random(len(wearable)) < share)[:, None, None]
    if kind == "removed":
        mask = mask & ~hit
        return np.where(mask, wearable, 0).astype(wearable.dtype), mask
    noise = noise_std * rng.standard_normal(wearable.shape)
    return (wearable + np.where(mask & hit, noise, 0.0)).astype(wearable.dtype), mask.copy()


def _on_same_draws(
    parts: Mapping[K, Predictions],
    metric: str,
    bootstraps: int,
    rng: np.random.Generator,
    subset: Subset,
) -> dict[K, tuple[Estimate, int]]:
    """Return each part's estimate and its people."""
    of = {key: predictions.subset(subset) for key, predictions in parts.items()}
    everyone = np.concatenate([np.zeros(0, np.int64), *(part.subject for part in of.values())])
    draws = draw_subjects(everyone, bootstraps, rng)
    return {key: (estimate(metric, part, draws), part.n_subjects) for key, part in of.items()}
