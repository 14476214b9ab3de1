"""The secondary evaluations of a run: all that is measured beyond its main task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from healthfm_core.config import RunConfig
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.evaluation import MetricRow, Predictions
from healthfm_core.evaluation.analyses.missing_inputs import (
    Corruption,
    CorruptionRow,
    MatrixCell,
    corrupted,
    corruption_rows,
    missing_matrix,
)
from healthfm_core.evaluation.analyses.probes import ProbeRow
from healthfm_core.evaluation.analyses.smoothness import SmoothnessRow
from healthfm_core.evaluation.analyses.subgroups import SubgroupRow
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.modalities.registry import modality_names
from healthfm_core.modalities.wearable import WEARABLES
from healthfm_core.models.monitors import all_half_lives
from healthfm_core.seeding import numpy_generator
from healthfm_core.training import loaded_model
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import Model, score
from healthfm_simulations.secondary.arm_alignment import alignment_rows
from healthfm_simulations.secondary.forecasts import forecast, forecast_rows
from healthfm_simulations.secondary.forgetting import forgetting_rows
from healthfm_simulations.secondary.heritable_conditions import heritable_rows
from healthfm_simulations.secondary.physiology_probes import physiology
from healthfm_simulations.secondary.state_probes import probes, states_of
from healthfm_simulations.secondary.state_smoothness import smoothness_of
from healthfm_simulations.secondary.subgroup_metrics import group_rows
from healthfm_simulations.sites import SimulatedSite

KINDS: Final[tuple[Corruption, ...]] = ("removed", "noised")


@dataclass
class SecondaryEvaluations:
    """Rows of one replicate, as `ReportContext` has them; what was not asked for is empty."""

    horizons: list[MetricRow] = field(default_factory=list)
    probes: Sequence[ProbeRow] = ()
    probe_scores: Sequence[MetricRow] = ()
    physiology: list[MetricRow] = field(default_factory=list)
    half_lives: list[MetricRow] = field(default_factory=list)
    heritable: list[MetricRow] = field(default_factory=list)
    smoothness: list[SmoothnessRow] = field(default_factory=list)
    forgetting: list[MetricRow] = field(default_factory=list)
    alignment: list[MetricRow] = field(default_factory=list)
    missing: list[MatrixCell] = field(default_factory=list)
    subgroups: list[SubgroupRow] = field(default_factory=list)
    corruption: list[CorruptionRow] = field(default_factory=list)

    @property
    def rows(self) -> list[MetricRow]:
        """All rows that go into ``metrics.json`` beside those of the main task."""
        aside = (self.horizons, self.probe_scores, self.physiology)
        figures = (self.half_lives, self.heritable, self.forgetting, self.alignment)
        return [row for part in (*aside, *figures) for row in part]


def evaluate_secondary(
    models: Mapping[str, Model],
    predictions: Mapping[str, Predictions],
    fold: CrossValidationFold,
    sites: tuple[SimulatedSite, ...],
    config: RunConfig,
    *,
    by_inputs: Mapping[str, Mapping[str, Predictions]] | None = None,
) -> SecondaryEvaluations:
    """Ask every arm that has one model for all sites whatever the configuration asks.

    Args:
        models: Arm → its model.
        predictions: Arm → predictions of the main task.
        fold: Whose people.
        sites: All sites of the run.
        config: The run's configuration.
        by_inputs: Inputs → arm → predictions of the main task from these inputs alone.
    """
    evaluation, results = config.evaluation, SecondaryEvaluations()
    if not models:
        return results
    vocabulary = next(iter(models.values())).study.vocabulary
    if evaluation.horizons_days:
        forecasts = {arm: forecast(m, fold, sites, config) for arm, m in models.items()}
        results.horizons = forecast_rows(forecasts, config)
    if evaluation.probes_days or evaluation.physiology:
        states = {arm: states_of(model, fold, sites, config) for arm, model in models.items()}
        probed = probes(states, config)
        results.probes, results.probe_scores = probed.rows, probed.scores
        if evaluation.physiology and vocabulary.wearable:
            shown = set(modality_names()) - {WEARABLES}
            hidden = {
                arm: states_of(model, fold, sites, config, inputs=shown)
                for arm, model in models.items()
            }
            results.physiology = physiology(states, hidden, vocabulary.wearable.channels, config)
        results.smoothness = _smoothness(models, results.probe_scores, fold, sites, config)
    results.missing = _missing(models, by_inputs or {}, config)
    if evaluation.half_lives:
        results.half_lives = [row for arm, m in models.items() for row in _half_lives(arm, m)]
    if evaluation.heritable:
        folder = sites[0].path.parent
        results.heritable = heritable_rows(predictions, vocabulary.targets, folder, config)
    if evaluation.forgetting and "federated" in models:
        results.forgetting = forgetting_rows(models["federated"], fold, sites, config)
    if evaluation.state_alignment:
        results.alignment = alignment_rows(models, fold, sites, config)
    if evaluation.subgroups:
        arms = {arm: predictions[arm] for arm in models if arm in predictions}
        results.subgroups = group_rows(arms, fold, sites, vocabulary, config)
    if evaluation.corruption:
        results.corruption = _corruption(models, fold, sites, config)
    return results


def _half_lives(arm: str, model: Model) -> Iterator[MetricRow]:
    network = loaded_model(model.parameters, model.study, frozenset(model.study.modalities))
    none = float("nan")
    for layer, days in enumerate(all_half_lives(network.backbone)):
        for name, value in (("shortest", min(days)), ("longest", max(days))):
            yield MetricRow(
                arm, "half_lives", f"layer {layer} {name}", "days", value, none, none, 0
            )


def _smoothness(
    models: Mapping[str, Model],
    probe_scores: Sequence[MetricRow],
    fold: CrossValidationFold,
    sites: tuple[SimulatedSite, ...],
    config: RunConfig,
) -> list[SmoothnessRow]:
    """Return each arm's smoothness beside its first probe; nothing without one."""
    beside = {
        row.arm: row
        for row in reversed(probe_scores)
        if row.metric == "auroc" and not row.is_difference
    }
    return [
        smoothness_of(model, fold, sites, beside[arm], config)
        for arm, model in models.items()
        if arm in beside and config.evaluation.physiology
    ]


def _missing(
    models: Mapping[str, Model],
    by_inputs: Mapping[str, Mapping[str, Predictions]],
    config: RunConfig,
) -> list[MatrixCell]:
    """Return what the federated model loses when it gets fewer inputs than it was trained on."""
    arm = "federated" if "federated" in models else next(iter(models))
    trained = "+".join(m for m in modality_names() if m in models[arm].study.modalities)
    is_visit = config.evaluation.task == "next_visit"
    cells = {(trained, inputs): arms[arm] for inputs, arms in by_inputs.items() if arm in arms}
    return missing_matrix(
        cells,
        metric="average_precision" if is_visit else "auroc",
        bootstraps=config.evaluation.bootstraps,
        rng=numpy_generator(config.seed, "bootstrap"),
        subset="new_onset" if is_visit else "overall",
    )


def with_secondary(
    context: ReportContext, first: SecondaryEvaluations, rows: Sequence[MetricRow]
) -> ReportContext:
    """Return what a report shows, with the secondary evaluations.

    Args:
        context: What it shows already.
        first: Of the first seed: figures that are not averaged over seeds.
        rows: The rows of all seeds together.
    """

    def of_all_seeds(part: Sequence[MetricRow]) -> list[MetricRow]:
        wanted = {(row.task, row.metric) for row in part}
        return [row for row in rows if (row.task, row.metric) in wanted]

    return replace(
        context,
        horizons=of_all_seeds(first.horizons),
        probe_scores=of_all_seeds(first.probe_scores),
        physiology=of_all_seeds(first.physiology),
        figures=of_all_seeds(
            [*first.half_lives, *first.heritable, *first.forgetting, *first.alignment]
        ),
        probes=first.probes,
        smoothness=first.smoothness,
        missing=first.missing,
        subgroups=first.subgroups,
        corruption=first.corruption,
    )


def _corruption(
    models: Mapping[str, Model],
    fold: CrossValidationFold,
    sites: tuple[SimulatedSite, ...],
    config: RunConfig,
) -> list[CorruptionRow]:
    """Return each arm's score as wearable readings are removed, and as noise is added to them."""
    is_visit = config.evaluation.task == "next_visit"
    how = partial(partial, _corrupted, config=config)
    curves = {
        (arm, kind, share): score(
            model, fold, sites, config, corrupt=how(kind=kind, share=share)
        ).predictions
        for arm, model in models.items()
        if WEARABLES in model.study.modalities
        for kind in KINDS
        for share in config.evaluation.corruption
    }
    return corruption_rows(
        curves,
        metric="average_precision" if is_visit else "auroc",
        bootstraps=config.evaluation.bootstraps,
        rng=numpy_generator(config.seed, "bootstrap"),
        subset="new_onset" if is_visit else "overall",
    )


def _corrupted(
    people: Sequences, *, kind: Corruption, share: float, config: RunConfig
) -> Sequences:
    rng = numpy_generator(config.seed, "corruption")
    wearable, mask = corrupted(
        people.wearable, people.wearable_mask, kind=kind, share=share, rng=rng
    )
    return replace(people, wearable=wearable, wearable_mask=mask)
