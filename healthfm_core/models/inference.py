"""A trained model's answers to every query of a loader, as flat NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.data.batch.batch import Batch
from healthfm_core.models.healthfm import HealthFM


@dataclass(frozen=True)
class Answers:
    """n answered queries with O outputs each.

    Attributes:
        subject: [n] int64, index of the subject in its `Sequences`.
        time_us: [n] int64, the query's time.
        logit: [n, O] float32, raw outputs of the head.
        target: [n, V] bool, what the next visit held (for SEP queries).
        repeats: [n, V] float32, earlier visits that held the target.
        label: [n] float32, the task's label, NaN where there is none.
        event_days: [n, V] float32, days to the target's next occurrence, +inf if none is known.
        exposure_days: [n] float32, days the subject was followed after the query (NOW queries).
    """

    subject: Int64
    time_us: Int64
    logit: Float32
    target: Bool
    repeats: Float32
    label: Float32
    event_days: Float32
    exposure_days: Float32

    @property
    def score(self) -> Float32:
        """[n, O] probabilities: the logistic of `logit`."""
        return logistic(self.logit)


def logistic(logit: Float32) -> Float32:
    """Return the probabilities that log odds stand for."""
    half = logit * 0.5
    return (0.5 * (np.tanh(half) + 1)).astype(np.float32)


def logits_of(model: HealthFM, batches: Iterable[Batch], head: str) -> Iterator[Float32]:
    """Yield each batch's outputs of `head` [B, O], for rows of one query; `model` is in evaluation.

    Args:
        model: The model.
        batches: Rows that ask once each.
        head: Which head.
    """
    for batch in batches:
        with torch.no_grad():
            here = batch.to(model.device)
            outputs = model.head(head, model(here, here.query), here)
        yield outputs[:, 0].cpu().numpy()


@torch.no_grad()
def answer(model: HealthFM, batches: Iterable[Batch], head: str) -> Answers:
    """Return head `head`'s outputs at every query of `batches`; `model` is set to evaluation."""
    was_training = model.training
    model.eval()
    parts: list[tuple[npt.NDArray[np.generic], ...]] = []
    for batch in (batch.to(model.device) for batch in batches):
        states = model(batch, batch.query)
        keep = batch.query_mask
        subject = batch.subject[:, None].expand_as(batch.query)
        parts.append(
            tuple(
                tensor[keep].cpu().numpy()
                for tensor in (
                    subject,
                    batch.query_time_us,
                    model.head(head, states, batch),
                    batch.target.bool(),
                    batch.repeats,
                    batch.label,
                    batch.event_days,
                    batch.exposure_days,
                )
            )
        )
    model.train(was_training)
    if not parts:
        outputs = model.heads[head].out_features
        targets = model.shape.targets
        empty = np.zeros((0, targets), np.float32)
        none = np.zeros(0, np.int64)
        logit = np.zeros((0, int(outputs)), np.float32)  # type: ignore[arg-type]
        nobody = none.astype(np.float32)
        return Answers(none, none, logit, empty.astype(bool), empty, nobody, empty, nobody)
    return Answers(*(np.concatenate(column) for column in zip(*parts, strict=True)))
