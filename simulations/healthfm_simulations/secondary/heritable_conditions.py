"""New onsets of conditions with a planted genetic effect, and of those without one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool
from healthfm_core.config import RunConfig
from healthfm_core.evaluation import MetricRow, Predictions
from healthfm_core.evaluation.metrics.metric_rows import metric_rows
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.cohort.cohort_stores import PROCESS_FILE, TRUTH
from healthfm_simulations.scoring.model_scores import judged_targets

WITH_GENETIC_EFFECT: Final = "heritable"
WITHOUT_GENETIC_EFFECT: Final = "not_heritable"
METRICS: Final = ("average_precision", "auroc", "macro_average_precision")


def heritable_rows(
    predictions: Mapping[str, Predictions],
    targets: tuple[str, ...],
    sites: Path,
    config: RunConfig,
) -> list[MetricRow]:
    """Return every arm's metrics on new onsets, for conditions with a planted score and without.

    Args:
        predictions: Arm → predictions of the next visit on the simulated cohort.
        targets: The vocabulary's.
        sites: Folder of the cohort's stores, with the oracle's tables beside them.
        config: The run's configuration.
    """
    planted = _planted(targets, sites)[judged_targets(targets, config)]
    rows = []
    for task, wanted in ((WITH_GENETIC_EFFECT, planted), (WITHOUT_GENETIC_EFFECT, ~planted)):
        chosen = np.flatnonzero(wanted)
        parts = {arm: p.where(np.isin(p.target, chosen)) for arm, p in predictions.items()}
        rows += metric_rows(
            parts,
            task=task,
            bootstraps=config.evaluation.bootstraps,
            rng=numpy_generator(config.seed, "bootstrap"),
            metrics=METRICS,
            subsets=("new_onset",),
        )
    return rows


def _planted(targets: tuple[str, ...], sites: Path) -> Bool:
    process = json.loads((sites / TRUTH / PROCESS_FILE).read_text(encoding="utf-8"))
    known = zip(process["conditions"], process["score"], strict=True)
    planted = {condition for condition, score in known if score is not None}
    return np.array([target in planted for target in targets], np.bool_)
