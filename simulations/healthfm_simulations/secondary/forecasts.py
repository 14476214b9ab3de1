"""Risks within a month, a year, five: by hazard, by query, by sampling, on the same queries."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.config import RunConfig
from healthfm_core.config.evaluation import Estimator
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.evaluation import MetricRow
from healthfm_core.evaluation.metrics.horizons import (
    FollowedQueries,
    horizon_rows,
    time_to_event_rows,
)
from healthfm_core.models.generation import draw_futures
from healthfm_core.models.inference import Answers, answer
from healthfm_core.objectives import risk
from healthfm_core.seeding import numpy_generator, torch_generator
from healthfm_core.trained import death_among
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.partition import RecordCuts
from healthfm_simulations.scoring.model_scores import Model, judged_targets
from healthfm_simulations.secondary.scored_people import ModelAtSite, at_test_sites
from healthfm_simulations.sites import SimulatedSite

DEATH: Final = "MEDS_DEATH"
COST: Final = "ms_per_query"
"""Metric of the rows that say what an estimator costs."""


@dataclass(frozen=True)
class Forecast:
    """One model's risks at n queries.

    Attributes:
        followed: The queries and what came of them.
        risks: Estimator → [H, n, V] within each horizon. ``query`` is a score to rank by: what a
            visit on the horizon's last day would bring, not what happens until then.
        seconds: Estimator → wall clock.
    """

    followed: FollowedQueries
    risks: dict[Estimator, Float32]
    seconds: dict[Estimator, float]


def forecast(
    model: Model, fold: CrossValidationFold, sites: tuple[SimulatedSite, ...], config: RunConfig
) -> Forecast:
    """Return the model's risks for the fold's test people by every estimator it can give.

    Where the end of everybody's record is held out, each person is asked about once: as of the
    moment where it begins, at which the last visit before it is known and that none came since.
    """
    parts = [
        _at_site(present, fold.late_days, config)
        for present in at_test_sites(model, fold, sites, config)
    ]
    return Forecast(
        _joined([part.followed for part in parts]),
        {e: np.concatenate([part.risks[e] for part in parts], axis=1) for e in parts[0].risks},
        {e: sum(part.seconds[e] for part in parts) for e in parts[0].risks},
    )


def _at_site(present: ModelAtSite, late_days: float | None, config: RunConfig) -> Forecast:
    """Ask each batch by every estimator; answers are sorted by subject and time."""
    study = present.model.study
    columns = np.flatnonzero(judged_targets(study.vocabulary.targets, config))
    batches = list(present.batches(config))
    if late_days is not None:
        return _at_the_cut(present, batches, late_days, config)
    risks_by: dict[Estimator, Float32] = {}
    seconds: dict[Estimator, float] = {}
    answered: Answers | None = None
    for estimator in config.evaluation.estimators:
        started = time.perf_counter()
        if estimator == "sample":
            risks_by[estimator] = _by_sampling(present, batches, config)
        else:
            answers, risks_by[estimator] = _in_closed_form(present, batches, config, estimator)
            answered = answered or answers
        seconds[estimator] = time.perf_counter() - started
    assert answered is not None, "the configuration has checked that a head answers"
    order = np.lexsort((answered.time_us, answered.subject))
    followed = _followed(present, answered, order, np.zeros(len(order), np.float32), columns)
    risks = {e: values[:, order][:, :, columns] for e, values in risks_by.items()}
    return Forecast(followed, risks, seconds)


def _at_the_cut(
    present: ModelAtSite, batches: Sequence[Batch], late_days: float, config: RunConfig
) -> Forecast:
    """Ask each person once, by hazards, at the moment from which the record is held out.

    Whoever was last seen so long before that the hazards do not reach is left out.
    """
    study = present.model.study
    columns = np.flatnonzero(judged_targets(study.vocabulary.targets, config))
    edges, horizons = study.config.train.horizons_days, config.evaluation.horizons_days
    started = time.perf_counter()
    answers = answer(present.network, batches, "time_to_event")
    order = np.lexsort((answers.time_us, answers.subject))
    cuts = RecordCuts.of(SiteStore.open(present.site.path), late_days)
    subject = present.sequences.subject_id[answers.subject[order]]
    gap_days = cuts.days_left(subject, answers.time_us[order])
    another = np.r_[subject[1:] != subject[:-1], True][: len(order)]
    is_last_early = (gap_days >= 0) & (another | (np.r_[gap_days[1:], -1.0][: len(order)] < 0))
    kept = is_last_early & (gap_days + max(horizons) <= edges[-1])
    order, gap_days = order[kept], gap_days[kept].astype(np.float32)
    logits = torch.from_numpy(answers.logit[order])[None]
    death = death_among(study.vocabulary.targets)
    begin = torch.from_numpy(gap_days)[None]
    each = [risk(logits, edges, h, death=death, from_days=begin)[0].numpy() for h in horizons]
    risks = np.stack(each)[:, :, columns]
    followed = _followed(present, answers, order, gap_days, columns)
    return Forecast(followed, {"hazard": risks}, {"hazard": time.perf_counter() - started})


def _followed(
    present: ModelAtSite, answered: Answers, order: Int64, gap_days: Float32, columns: Int64
) -> FollowedQueries:
    """Return what came of the queries in `order`, each from so many days after it on."""
    next_days = answered.event_days[order][:, columns] - gap_days[:, None]
    return FollowedQueries(
        subject=present.key[answered.subject[order]],
        site=np.full(len(order), present.index, np.int32),
        next_days=np.maximum(next_days, 0.0),  # float32 may put a moment before the cut
        followed_days=np.maximum(answered.exposure_days[order] - gap_days, 0.0),
        repeats=answered.repeats[order][:, columns],
        died=_died(answered, present.model.study.vocabulary.targets)[order],
    )


def _died(asked: Answers, targets: Sequence[str]) -> Bool:
    if DEATH not in targets:
        return np.zeros(len(asked.subject), np.bool_)
    return np.asarray(np.isfinite(asked.event_days[:, targets.index(DEATH)]), np.bool_)


def _in_closed_form(
    present: ModelAtSite, batches: Sequence[Batch], config: RunConfig, estimator: Estimator
) -> tuple[Answers, Float32]:
    study, network = present.model.study, present.network
    horizons = config.evaluation.horizons_days
    if estimator == "query":
        each = [
            answer(network, (batch.ahead(days) for batch in batches), "next_visit")
            for days in horizons
        ]
        return answer(network, batches, "next_visit"), np.stack([answers.score for answers in each])
    answers = answer(network, batches, "time_to_event")
    logits = torch.from_numpy(answers.logit)[None]
    targets = study.vocabulary.targets
    death = death_among(targets)
    edges = study.config.train.horizons_days
    risks = [risk(logits, edges, days, death=death)[0].numpy() for days in horizons]
    return answers, np.stack(risks)


def _by_sampling(present: ModelAtSite, batches: Sequence[Batch], config: RunConfig) -> Float32:
    """Return the share of the trajectories in which each target occurs [H, n, V]."""
    evaluation, horizons = config.evaluation, config.evaluation.horizons_days
    generator = torch_generator(config.seed, "futures", present.site.name)
    parts = []
    for batch in batches:
        futures = draw_futures(
            present.network,
            batch.to(present.network.device),
            present.model.study.vocabulary.token_parts,
            samples=evaluation.samples,
            horizon_days=max(horizons),
            generator=generator,
        )
        first = futures.first_days.cpu().numpy()
        parts.append(np.stack([(first <= days).mean(1, dtype=np.float32) for days in horizons]))
    return np.concatenate(parts, axis=1)


def _joined(parts: Sequence[FollowedQueries]) -> FollowedQueries:
    names = ("subject", "site", "next_days", "followed_days", "repeats", "died")
    return FollowedQueries(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def forecast_rows(forecasts: Mapping[str, Forecast], config: RunConfig) -> list[MetricRow]:
    """Return every arm's and estimator's metrics at each horizon, on the queries of all arms.

    An arm's own name stands for its hazards; the others are ``federated by query`` and so on.
    """
    asked = _asked_of_all(forecasts)
    scores, cost = {}, {}
    for arm, forecast in asked.items():
        for estimator, risks in forecast.risks.items():
            name = arm if estimator == "hazard" else f"{arm} by {estimator}"
            scores[name] = risks
            cost[name] = (
                1000 * forecast.seconds[estimator] / max(1, len(forecasts[arm].followed.site))
            )
    if not scores:
        return []
    evaluation = config.evaluation
    reference = "federated" if "federated" in scores else next(iter(scores))
    first = next(iter(asked.values())).followed
    rng = numpy_generator(config.seed, "bootstrap")
    rows = horizon_rows(
        first,
        scores,
        bootstraps=evaluation.bootstraps,
        rng=rng,
        reference=reference,
        horizons_days=evaluation.horizons_days,
    )
    rows += time_to_event_rows(
        first,
        {arm: risks[-1] for arm, risks in scores.items()},
        bootstraps=min(evaluation.bootstraps, 200),
        rng=rng,
        reference=reference,
        until_days=max(evaluation.horizons_days),
    )
    people = len(np.unique(first.subject))
    none = float("nan")
    task = rows[0].task
    return rows + [
        MetricRow(arm, task, "overall", COST, ms, none, none, people) for arm, ms in cost.items()
    ]


def _asked_of_all(forecasts: Mapping[str, Forecast]) -> dict[str, Forecast]:
    """Return each arm's forecasts at the queries that every arm was asked, in one order."""
    keys = {arm: _keys(forecast.followed) for arm, forecast in forecasts.items()}
    common = set.intersection(*(set(forecast) for forecast in keys.values()))
    return {arm: _of(forecast, keys[arm], common) for arm, forecast in forecasts.items()}


def _keys(followed: FollowedQueries) -> list[tuple[int, float]]:
    """Return (subject, days followed) of each query: a person's queries differ in the latter."""
    days = np.round(followed.followed_days.astype(np.float64), 4)
    return list(zip(followed.subject.tolist(), days.tolist(), strict=True))


def _of(
    forecast: Forecast, keys: Sequence[tuple[int, float]], common: set[tuple[int, float]]
) -> Forecast:
    seen: dict[tuple[int, float], int] = {}
    for row, key in enumerate(keys):
        if key in common:
            seen.setdefault(key, row)
    rows = np.array([seen[key] for key in sorted(seen)], np.int64)
    of = forecast.followed
    names = ("subject", "site", "next_days", "followed_days", "repeats", "died")
    kept = FollowedQueries(**{name: getattr(of, name)[rows] for name in names})
    risks = {estimator: values[:, rows] for estimator, values in forecast.risks.items()}
    return replace(forecast, followed=kept, risks=risks)
