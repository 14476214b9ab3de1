"""From trained arms to rows of metrics and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from healthfm_core.config import RunConfig
from healthfm_core.evaluation import MetricRow, Predictions, metric_rows
from healthfm_core.evaluation.metrics.metric_rows import MINUS
from healthfm_core.evaluation.report.report_page import HalfLives, ReportContext, SiteSummary
from healthfm_core.evaluation.time_to_accuracy import CourseRow, time_to_accuracy
from healthfm_core.federation.input_overlap import InputOverlap
from healthfm_core.models.monitors import all_half_lives
from healthfm_core.seeding import numpy_generator
from healthfm_core.training import loaded_model
from healthfm_simulations.arms.arm_training import TrainedArm
from healthfm_simulations.arms.baseline_arms import REFERENCE_SCORE
from healthfm_simulations.arms.ensemble import score_ensemble
from healthfm_simulations.cohort import half_lives as true_half_lives
from healthfm_simulations.cohort.oracle_predictions import OracleInformation
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.arm_remarks import remarks_of
from healthfm_simulations.scoring.model_scores import (
    EVERYTHING,
    NEXT_VISIT,
    Model,
    ScoredQueries,
    answered_by_all,
    concatenate,
    oracle_predictions_for,
    score,
)
from healthfm_simulations.sites import SimulatedSite

CEILING: Final = "ceiling"
REACHABLE: Final = "reachable"
"""What the readings that the sites hold tell of the latents, by the filter: `Oracle.filtered`."""
ORACLES: Final[dict[str, OracleInformation]] = {REACHABLE: "filtered", CEILING: "present"}
"""Rows of the simulated cohort that are no arm's, and what the oracle knows in each."""


@dataclass
class CollectedPredictions:
    """Predictions gathered over the folds of one replicate.

    Attributes:
        parts: (input subset, arm) → predictions per fold.
        single: input subset → local site → predictions per fold, where sites that take no part
            in the test have a model each.
        targets: Names of the last fold's target columns; one empty name for a label.
        remarks: input subset → arm → what its row leaves out, of the first fold that has it.
    """

    parts: dict[tuple[str, str], list[Predictions]] = field(default_factory=dict)
    single: dict[str, dict[str, list[Predictions]]] = field(default_factory=dict)
    targets: tuple[str, ...] = ("",)
    remarks: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, inputs: str, arm: str, predictions: Predictions) -> None:
        """Take one fold's predictions."""
        self.parts.setdefault((inputs, arm), []).append(predictions)

    def of(self, inputs: str) -> dict[str, Predictions]:
        """Return arm → predictions of all folds."""
        return {
            arm: Predictions.concatenate(parts)
            for (name, arm), parts in self.parts.items()
            if name == inputs
        }


def collect(
    collected: CollectedPredictions,
    trained: Mapping[str, TrainedArm],
    fold: CrossValidationFold,
    sites: Sequence[SimulatedSite],
    config: RunConfig,
) -> ScoredQueries | None:
    """Score every arm's models on the fold's test people; on a simulated cohort the oracle too.

    Returns:
        The answers of the first arm that has one model, for others to answer the same rows.
    """
    first = None
    for inputs in (EVERYTHING, *config.evaluation.inputs):
        said = collected.remarks.setdefault(inputs, {})
        said.update({**remarks_of(trained, fold, inputs), **said})
        answers = answered_by_all(_answers(collected, trained, fold, sites, config, inputs))
        for arm, scored in answers.items():
            collected.add(inputs, arm, scored.predictions)
            collected.targets = scored.targets
        first = first or next(iter(answers.values()), None)
        is_visit = config.data.source == "cohort" and config.label_task is None
        if is_visit and inputs == EVERYTHING and "federated" in answers:
            for name, information in ORACLES.items():
                truth = oracle_predictions_for(answers["federated"], sites, information)
                collected.add(inputs, name, truth)
    return first


def _answers(
    collected: CollectedPredictions,
    trained: Mapping[str, TrainedArm],
    fold: CrossValidationFold,
    sites: Sequence[SimulatedSite],
    config: RunConfig,
    inputs: str,
) -> dict[str, ScoredQueries]:
    """Return what each arm says of the test people; single sites' models of newcomers go apart."""
    answers = {}
    for arm, models in ((arm, answers.models) for arm, answers in trained.items()):
        shown_fold = trained[arm].shown_fold
        if shown_fold is not None:
            answers[arm] = score(models[""], shown_fold(inputs), sites, config)
        elif arm == "local" and fold.tests_newcomers:
            for name, model in models.items():
                if _can_read(model, inputs):
                    scored = score(model, fold, sites, config, inputs)
                    singles = collected.single.setdefault(inputs, {})
                    singles.setdefault(name, []).append(scored.predictions)
                    collected.targets = scored.targets
        elif arm == "local":
            own = [
                score(models[site.name], replace(fold, test=(site,)), sites, config, inputs)
                for site in fold.test
                if site.name in models
            ]
            if own:
                answers[arm] = concatenate(own)
        elif arm == "ensemble":
            together = score_ensemble(models, fold, sites, config, inputs)
            if together is not None:
                answers[arm] = together
        elif models and _can_read(models[""], inputs):
            answers[arm] = score(models[""], fold, sites, config, inputs)
    return answers


def _can_read(model: Model, inputs: str) -> bool:
    return inputs == EVERYTHING or bool(set(inputs.split("+")) & set(model.study.modalities))


def rows_of(collected: CollectedPredictions, config: RunConfig) -> list[MetricRow]:
    """Return the metric rows of one replicate; an input subset's name stands in `subset`."""
    rows: list[MetricRow] = []
    for inputs in (EVERYTHING, *config.evaluation.inputs):
        predictions = collected.of(inputs)
        singles = {
            name: Predictions.concatenate(parts)
            for name, parts in collected.single.get(inputs, {}).items()
        }
        own_rows = _rows(predictions, config)
        if REFERENCE_SCORE in predictions:
            own_rows += _beside_reference(predictions, config)
        own_rows += _mean_rows([_rows({"local": part}, config) for part in singles.values()])
        rows += own_rows if inputs == EVERYTHING else [_named(row, inputs) for row in own_rows]
    return rows + _gains(collected, config)


def _gains(collected: CollectedPredictions, config: RunConfig) -> list[MetricRow]:
    """Return, per arm, what the inputs of one subset add to those of a smaller one, paired."""
    rows: list[MetricRow] = []
    for more in config.evaluation.inputs:
        for fewer in config.evaluation.inputs:
            if not set(fewer.split("+")) < set(more.split("+")):
                continue
            rich, poor = collected.of(more), collected.of(fewer)
            for arm in rich.keys() & poor.keys():
                both = {more: rich[arm], fewer: poor[arm]}
                rows += [
                    replace(row, arm=arm, subset=f"{more}{MINUS}{fewer}")
                    for row in _rows(both, config, reference=more)
                    if row.is_difference and row.subset == "overall"
                ]
    return sorted(rows, key=lambda row: (row.subset, row.arm))


def _beside_reference(predictions: Mapping[str, Predictions], config: RunConfig) -> list[MetricRow]:
    """Return all arms' rows on the very people whom the data's own reference score speaks of."""
    scored = np.unique(predictions[REFERENCE_SCORE].subject)
    same = {
        arm: arm_predictions.where(np.isin(arm_predictions.subject, scored))
        for arm, arm_predictions in predictions.items()
    }
    return [replace(row, subset="with_reference") for row in _rows(same, config)]


def _rows(
    predictions: Mapping[str, Predictions], config: RunConfig, reference: str = "federated"
) -> list[MetricRow]:
    if not predictions:
        return []
    return metric_rows(
        predictions,
        task=config.evaluation.task,
        bootstraps=config.evaluation.bootstraps,
        rng=numpy_generator(config.seed, "bootstrap"),
        reference=reference,
    )


def _named(row: MetricRow, inputs: str) -> MetricRow:
    return replace(row, subset=inputs if row.subset == "overall" else f"{inputs}/{row.subset}")


def _mean_rows(tables: Sequence[Sequence[MetricRow]]) -> list[MetricRow]:
    """Return the mean of single-site models' rows; the interval is the mean of their intervals."""
    return [
        replace(
            same[0],
            value=float(np.nanmean([row.value for row in same])),
            low=float(np.nanmean([row.low for row in same])),
            high=float(np.nanmean([row.high for row in same])),
        )
        for same in zip(*tables, strict=True)
        if np.isfinite([row.value for row in same]).any()
    ]


def site_summaries(
    sites: Sequence[SimulatedSite], folds: Sequence[CrossValidationFold]
) -> tuple[SiteSummary, ...]:
    """Return the sites as the report's matrix shows them."""
    tested = {site.name: fold.split for fold in folds for site in fold.test}
    summaries = []
    for site in sites:
        store = site.view()
        held = len(store.subjects(tested[site.name])) if site.name in tested else 0
        summaries.append(
            SiteSummary(site.name, store.modalities, len(store.subjects()), n_held_out=held)
        )
    return tuple(summaries)


def learned_half_lives(model: Model, config: RunConfig, folder: Path) -> HalfLives:
    """Return the kernel's half-lives per layer, and the true ones of a simulated cohort."""
    with torch.no_grad():
        network = loaded_model(model.parameters, model.study, frozenset(model.study.modalities))
        learned = {
            f"layer {layer}": days for layer, days in enumerate(all_half_lives(network.backbone))
        }
    known = true_half_lives(folder) if config.data.source == "cohort" else ()
    return HalfLives(learned, known)


def split_ceiling(rows: Sequence[MetricRow]) -> tuple[list[MetricRow], list[MetricRow]]:
    """Return the arms' rows and the oracle's rows."""
    ceiling = [row for row in rows if row.arm in ORACLES]
    return [row for row in rows if not set(row.arm.split(MINUS)) & set(ORACLES)], ceiling


def context_of(
    config: RunConfig,
    *,
    lead: str,
    command: str,
    config_yaml: str,
    sites: Sequence[SimulatedSite],
    folds: Sequence[CrossValidationFold],
    collected: CollectedPredictions,
    site_rows: Mapping[str, Sequence[MetricRow]],
    history: Mapping[str, Sequence[Mapping[str, Any]]],
    seconds: Mapping[str, float],
    ceiling: Sequence[MetricRow],
    half_lives: HalfLives | None,
    seeds: int,
    notes: Sequence[str],
    coverage: Mapping[str, Mapping[str, float]],
    inputs: InputOverlap | None,
    units_apart: Sequence[str],
    rolled_up: str,
) -> ReportContext:
    """Return what the report shows beside the rows."""
    predictions = {
        arm: arm_predictions
        for arm, arm_predictions in collected.of(EVERYTHING).items()
        if arm not in ORACLES
    }
    return ReportContext(
        task=config.evaluation.task,
        lead=lead,
        command=command,
        k_subgroup=config.evaluation.k_subgroup,
        sites=site_summaries(sites, folds),
        predictions=predictions,
        site_rows=site_rows,
        coverage=coverage,
        inputs=inputs,
        units_apart=units_apart,
        rolled_up=rolled_up,
        remarks=collected.remarks,
        history=history,
        course=course_of(history, config),
        ceiling=ceiling,
        half_lives=half_lives,
        seconds=seconds,
        seeds=seeds,
        config=config_yaml,
        notes=notes,
    )


def course_of(
    history: Mapping[str, Sequence[Mapping[str, Any]]], config: RunConfig
) -> list[CourseRow]:
    """Return what it took each arm of one model to be as good as the target, in its network."""
    of_one_model = {a: rows for a, rows in history.items() if a not in ("local", "ensemble")}
    return time_to_accuracy(of_one_model, config.network.target)


TASK_NAMES: Final = {NEXT_VISIT: "what the next visit will hold"}
