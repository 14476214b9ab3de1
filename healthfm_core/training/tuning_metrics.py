"""How the weights a site received do on its own tuning people, before it trains on them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

import numpy as np
import torch

from healthfm_core.arrays import Bool, Float32
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.errors import RunError
from healthfm_core.federation.protocol import Study
from healthfm_core.models import HealthFM
from healthfm_core.models.inference import Answers, answer
from healthfm_core.models.monitors import context_monitors
from healthfm_core.training.ranked_scores import RankedScores

CONTEXT_ROWS: Final = 32


def tuning_metrics(model: HealthFM, loader: BatchLoader, study: Study) -> dict[str, float]:
    """Return AUROC and average precision of the study's task on the site's tuning people.

    For ``next_visit`` over all (visit, target) pairs and over new onsets alone. A metric that the
    people at hand cannot give (no case, or nothing but cases) is left out. Scores that are many lie
    on disk meanwhile: what is held does not grow with the people.

    Args:
        model: The site's, with the weights it received.
        loader: Rows of the tuning people.
        study: Contract of the run.

    Raises:
        RunError: The model gives answers that are not finite (HF-726).
    """
    is_label = study.config.label_task is not None
    head = "label" if is_label else "next_visit"
    if head not in model.heads:
        return {}
    batches = loader.in_order(
        batch_size=2 * study.config.train.batch_size, query="label" if is_label else "sep"
    )
    seen = np.zeros(loader.sequences.n_subjects, np.bool_)
    with ExitStack() as files:
        ranked = {name: files.enter_context(RankedScores()) for name in _names(is_label)}
        for batch in batches:
            answers = answer(model, [batch], head)
            _refuse_infinite(answers)
            seen[answers.subject] = True
            for name, (logit, outcome) in _subsets(answers, is_label).items():
                ranked[name].add(logit, outcome)
        metrics = {"tuning_subjects": float(seen.sum())}
        for name, scores in ranked.items():
            metrics |= {f"tuning_{what}{name}": value for what, value in scores.metrics().items()}
    return metrics


def _refuse_infinite(answers: Answers) -> None:
    if not np.isfinite(answers.logit).all():
        raise RunError(
            726,
            where="the tuning people",
            seen="the model as it came gives answers that are not finite",
            wanted="a model with finite answers",
        )


def _names(is_label: bool) -> tuple[str, ...]:
    """Return what is added to a metric's name, for all that is scored and for part of it."""
    return ("",) if is_label else ("", "_new_onset")


def _subsets(answers: Answers, is_label: bool) -> dict[str, tuple[Float32, Bool]]:
    """Return the logits and outcomes to score, by what is added to the metric's name."""
    if is_label:
        known = ~np.isnan(answers.label)
        return {"": (answers.logit[known, 0], answers.label[known] > 0)}
    new = answers.repeats == 0
    return {
        "": (answers.logit.ravel(), answers.target.ravel()),
        "_new_onset": (answers.logit[new], answers.target[new]),
    }


def contexts(model: HealthFM, loader: BatchLoader) -> dict[str, float]:
    """Return how far back each layer looks, over the latest rows of some of the site's people.

    Nothing where there are fewer than `CONTEXT_ROWS` of them: a mean over them all leaves the site.
    """
    batch = next(iter(loader.in_order(batch_size=CONTEXT_ROWS, query="now")), None)
    if batch is None or batch.size < CONTEXT_ROWS:
        return {}
    rows = batch.to(model.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        monitors = context_monitors(model.backbone, model.encode(rows), rows)
    model.train(was_training)
    return monitors
