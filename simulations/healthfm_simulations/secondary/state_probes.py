"""What frozen states hold of what is to come: linear probes of events."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from healthfm_core.arrays import Float32, Int32, Int64
from healthfm_core.config import RunConfig
from healthfm_core.data.batch.batch import US_PER_DAY
from healthfm_core.data.batch.segments import search
from healthfm_core.evaluation import MetricRow, Predictions
from healthfm_core.evaluation.analyses.probes import ProbeData, ProbeRow, linear_probe
from healthfm_core.evaluation.metrics.horizons import horizon_task
from healthfm_core.evaluation.metrics.metric_rows import metric_rows
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import Model, judged_targets
from healthfm_simulations.secondary.scored_people import ModelAtSite, model_at_site
from healthfm_simulations.sites import SimulatedSite

STRENGTHS: Final = (1e-6, 1e-4, 1e-2, 1.0, 1e2)
"""Of the C that `evaluation.probe` can try: enough for 64 to 128 states and thousands of rows."""
FEWEST_CASES: Final = 10
"""A target with fewer training cases has no probe."""


@dataclass(frozen=True)
class VisitStates:
    """The states after n visits, and what came of them.

    Attributes:
        x: [n, d].
        subject: [n] int64, unique over the sites.
        site: [n] int32.
        next_days, repeats: [n, V] as in `horizons.FollowedQueries`, of the judged targets.
        followed_days: [n].
        worn: [n, H] mean of each channel over the last day worn before the query, in the study's
            standard units; NaN where nothing was worn.
        worn_next: [n, H] the same before the subject's next query, a day later or more.
    """

    x: Float32
    subject: Int64
    site: Int32
    next_days: Float32
    repeats: Float32
    followed_days: Float32
    worn: Float32
    worn_next: Float32


def states_of(
    model: Model,
    fold: CrossValidationFold,
    sites: tuple[SimulatedSite, ...],
    config: RunConfig,
    *,
    inputs: Collection[str] | None = None,
) -> dict[str, VisitStates]:
    """Return the states of training, tuning and test people, of all sites that hold them.

    Args:
        model: The finished model.
        fold: Whose people.
        sites: All sites of the run.
        config: The run's configuration.
        inputs: Modalities that the model is shown; None is all.
    """
    tested = {"test": (fold.test, fold.split)}
    trained = {"train": (fold.train, "train"), "tuning": (fold.train, "tuning")}
    by_split = {}
    for name, (where, split) in (trained | tested).items():
        parts = [
            _states(model_at_site(model, site, sites, config, split=split), config, inputs)
            for site in where
        ]
        by_split[name] = VisitStates(
            **{
                n: np.concatenate([getattr(p, n) for p in parts])
                for n in VisitStates.__dataclass_fields__
            }
        )
    return by_split


@torch.no_grad()
def _states(present: ModelAtSite, config: RunConfig, inputs: Collection[str] | None) -> VisitStates:
    network = present.network
    network.eval()
    columns = np.flatnonzero(judged_targets(present.model.study.vocabulary.targets, config))
    parts: list[tuple[npt.NDArray[np.generic], ...]] = []
    size = 2 * config.train.batch_size
    for batch in present.loader.in_order(batch_size=size, query="now", inputs=inputs):
        here = batch.to(network.device)
        keep = batch.query_mask
        subject = batch.subject[:, None].expand_as(batch.query)[keep].numpy()
        parts.append(
            (
                network(here, here.query).cpu()[keep].numpy(),
                subject,
                batch.query_time_us[keep].numpy(),
                batch.event_days[keep].numpy()[:, columns],
                batch.repeats[keep].numpy()[:, columns],
                batch.exposure_days[keep].numpy(),
            )
        )
    columns_of_queries: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    x, subject, time_us, next_days, repeats, followed_days = columns_of_queries
    worn = _worn_before(present, subject, time_us)
    return VisitStates(
        x=x,
        subject=present.key[subject],
        site=np.full(len(x), present.index, np.int32),
        next_days=next_days,
        repeats=repeats,
        followed_days=followed_days,
        worn=worn,
        worn_next=_of_next_query(subject, time_us, worn),
    )


def _worn_before(present: ModelAtSite, subject: Int64, time_us: Int64) -> Float32:
    """Return [n, H] each channel's mean over the day before each time."""
    people, spec = present.sequences, present.model.study.vocabulary.wearable
    channels = len(spec.channels) if spec else 0
    if spec is None or not len(people.wearable):
        return np.full((len(subject), channels), np.nan, np.float32)
    shape = (len(people.wearable), -1, channels, spec.samples)
    observed = people.wearable_mask.reshape(shape)
    value = (people.wearable.reshape(shape) * observed).sum((1, 3), dtype=np.float64)
    item = np.flatnonzero(people.wearable_row >= 0)
    row, count = people.wearable_row[item], observed.sum((1, 3), dtype=np.float64)
    value, count = (np.vstack([np.zeros(channels), part[row].cumsum(0)]) for part in (value, count))
    low = people.offsets[subject]
    begin = search(people.time_us, low, people.offsets[subject + 1], time_us - US_PER_DAY, "right")
    end = search(people.time_us, low, people.offsets[subject + 1], time_us, "right")
    worn = [np.searchsorted(item, at) for at in (np.maximum(begin, low), end)]
    total, cells = (part[worn[1]] - part[worn[0]] for part in (value, count))
    mean = np.divide(total, cells, out=np.full_like(total, np.nan), where=cells > 0)
    return mean.astype(np.float32)


def _of_next_query(subject: Int64, time_us: Int64, worn: Float32) -> Float32:
    """Return [n, H] what was worn before each subject's next query; NaN if within a day or none."""
    order = np.lexsort((time_us, subject))
    here, following = order[:-1], order[1:]
    later = time_us[following] - time_us[here] >= US_PER_DAY
    follows = (subject[following] == subject[here]) & later
    found = np.full_like(worn, np.nan)
    found[here[follows]] = worn[following[follows]]
    return found


@dataclass(frozen=True)
class ProbeResults:
    """Few-shot rows, and rows with intervals of the probes on all labels."""

    rows: tuple[ProbeRow, ...]
    scores: tuple[MetricRow, ...]


def probes(states: Mapping[str, Mapping[str, VisitStates]], config: RunConfig) -> ProbeResults:
    """Return the probes of every arm's states at every horizon, for new onsets alone.

    One probe for each target on all labels, scored together; and few-shot probes of "any of them".

    Args:
        states: Arm → train, tuning, test.
        config: The run's configuration.
    """
    rows: list[ProbeRow] = []
    scores: list[MetricRow] = []
    for days in config.evaluation.probes_days:
        task = f"probe_{horizon_task(days)}"
        predictions = {arm: _each_target(of, days, arm, config) for arm, of in states.items()}
        scores += _compared(predictions, task, config)
        if config.evaluation.probe_shots:
            for arm, of in states.items():
                rows += _few_shots(of, days, arm, task, config)
    return ProbeResults(tuple(rows), tuple(scores))


def _compared(
    predictions: Mapping[str, Predictions], task: str, config: RunConfig
) -> list[MetricRow]:
    held = {
        arm: arm_predictions for arm, arm_predictions in predictions.items() if len(arm_predictions)
    }
    if not held:
        return []
    return metric_rows(
        held,
        task=task,
        bootstraps=config.evaluation.bootstraps,
        rng=numpy_generator(config.seed, "bootstrap"),
        reference="federated" if "federated" in held else next(iter(held)),
        metrics=("auroc", "average_precision", "macro_auroc", "macro_average_precision"),
        subsets=("new_onset",),
    )


def _each_target(
    of: Mapping[str, VisitStates], days: float, arm: str, config: RunConfig
) -> Predictions:
    parts = []
    for target in range(of["train"].next_days.shape[1]):
        train, tuning, test = (
            _embedded(of[name], days, np.array([target])) for name in ("train", "tuning", "test")
        )
        if train.outcome.sum() < FEWEST_CASES:
            continue
        predictions = linear_probe(
            train,
            tuning,
            test,
            arm=arm,
            task=horizon_task(days),
            rng=numpy_generator(config.seed, "probe"),
            shots=(),
            replicates=1,
            strengths=STRENGTHS,
        ).predictions
        columns = {name: getattr(predictions, name) for name in predictions.__dataclass_fields__}
        parts.append(
            Predictions(**columns | {"target": np.full(len(predictions), target, np.int32)})
        )
    return Predictions.concatenate(parts)


def _few_shots(
    of: Mapping[str, VisitStates], days: float, arm: str, task: str, config: RunConfig
) -> Iterator[ProbeRow]:
    every = np.arange(of["train"].next_days.shape[1])
    train, tuning, test = (_embedded(of[n], days, every) for n in ("train", "tuning", "test"))
    rng = numpy_generator(config.seed, "probe")
    shots = config.evaluation.probe_shots
    yield from linear_probe(
        train, tuning, test, arm=arm, task=task, rng=rng, shots=shots, strengths=STRENGTHS
    ).rows


def _embedded(states: VisitStates, days: float, targets: Int64) -> ProbeData:
    """Return the states whose outcome is known: does one of `targets`, not had before, occur?"""
    new = states.repeats[:, targets] == 0
    occurs = ((states.next_days[:, targets] <= days) & new).any(1)
    keep = (states.followed_days >= days) & new.any(1)
    return ProbeData(
        states.x[keep].astype(np.float64), occurs[keep], states.subject[keep], states.site[keep]
    )
