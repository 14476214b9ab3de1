"""One simulation: sites, folds, arms and replicates, and the folder of results they leave."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import to_yaml
from healthfm_core.evaluation import MetricRow
from healthfm_core.evaluation.report.report_page import HalfLives, ReportContext, write_report
from healthfm_core.federation.alarms import kind_of
from healthfm_core.federation.code_overlap import MOST_LISTED
from healthfm_core.federation.input_overlap import InputOverlap
from healthfm_core.processes import follow_the_parent
from healthfm_simulations.arms.arm_training import TrainedArm
from healthfm_simulations.arms.arms_of_fold import ArmsOfFold, units_of
from healthfm_simulations.arms.baseline_arms import reference_predictions
from healthfm_simulations.cross_validation import CrossValidationFold, cross_validation_folds
from healthfm_simulations.result_folder import result_folder
from healthfm_simulations.run_bar import MakeBar, RunBar, RunProgressBar
from healthfm_simulations.scoring.arm_metrics import (
    CollectedPredictions,
    collect,
    context_of,
    learned_half_lives,
    rows_of,
    split_ceiling,
)
from healthfm_simulations.scoring.metrics_by_site import SiteRows, rows_by_site, write_by_site
from healthfm_simulations.scoring.model_scores import EVERYTHING, check_what_is_judged
from healthfm_simulations.scoring.predictions_file import PredictionsFile
from healthfm_simulations.scoring.scoring_ledger import note_scoring
from healthfm_simulations.scoring.seed_intervals import over_seeds
from healthfm_simulations.secondary import SecondaryEvaluations, evaluate_secondary, with_secondary
from healthfm_simulations.sites import SimulatedSite, prepare_sites
from healthfm_simulations.study_checks import check_study


@dataclass
class Replicate:
    """The results of one seed."""

    config: RunConfig
    sites: tuple[SimulatedSite, ...]
    folds: tuple[CrossValidationFold, ...]
    collected: CollectedPredictions = field(default_factory=CollectedPredictions)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    coverage: dict[str, dict[str, float]] = field(default_factory=dict)
    inputs: InputOverlap | None = None
    units_apart: tuple[str, ...] = ()
    rolled_up: str = ""
    by_site: list[SiteRows] = field(default_factory=list)
    half_lives: HalfLives | None = None
    secondary: SecondaryEvaluations = field(default_factory=SecondaryEvaluations)
    rows: list[MetricRow] = field(default_factory=list)


@dataclass(frozen=True)
class SimulationResult:
    """A finished simulation.

    Attributes:
        rows: Rows of the main task, the oracle's among them.
        secondary: Rows of the secondary evaluations: horizons, probes, physiology.
        arm_rows: Those rows without the oracle's, as the report's figures take them.
        context: What the report shows beside the rows.
        report: The page.
        notes: Plain sentences the page carries too.
        seeds: How many replicates the rows are means over.
        remarks: input subset → arm → what its row leaves out, or why it has none.
    """

    rows: list[MetricRow]
    secondary: list[MetricRow]
    arm_rows: list[MetricRow]
    context: ReportContext
    report: Path
    notes: list[str]
    seeds: int
    remarks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def run_simulation(
    config: RunConfig,
    out: Path,
    *,
    command: str,
    console: Console,
    make_bar: MakeBar = RunProgressBar,
) -> SimulationResult:
    """Run all replicates of `config` and write report, metrics and checkpoints to `out`.

    Args:
        config: What is run.
        out: The result folder, new or of this very run.
        command: What the report says that it was made with.
        console: Hears what is done.
        make_bar: Makes the bar that shows how far it is, where seeds do not run side by side.

    Raises:
        HealthFMError: Any of the tree; an interrupted run can be resumed.
    """
    check_what_is_judged(config)
    with result_folder(config, out):
        return _report(config, _replicates(config, out, console, make_bar), out, command)


def _replicates(
    config: RunConfig, out: Path, console: Console, make_bar: MakeBar
) -> list[Replicate]:
    simulation = config.simulation
    each = [
        config.model_copy(update={"seed": config.seed + i}) for i in range(simulation.replicates)
    ]
    if simulation.workers == 1 or len(each) == 1:
        return [_replicate(one, out, console, make_bar) for one in each]
    spawn = get_context("spawn")
    with ProcessPoolExecutor(simulation.workers, spawn, follow_the_parent) as pool:
        return list(pool.map(_replicate, each, [out] * len(each)))


def _replicate(
    config: RunConfig,
    out: Path,
    console: Console | None = None,
    make_bar: MakeBar = RunProgressBar,
) -> Replicate:
    """Run one seed; the same in this process and in one of its own."""
    torch.set_num_threads(config.simulation.threads)
    console = console or Console(highlight=False, width=100)
    several = config.simulation.replicates > 1
    folder = out / f"seed-{config.seed}" if several else out
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    sites = prepare_sites(config, folder / "sites")
    replicate = Replicate(config, sites, cross_validation_folds(config, sites))
    check_study(config, sites, replicate.folds)
    people = sum(len(site.view().subjects()) for site in sites)
    took = time.monotonic() - started
    console.print(
        f"seed {config.seed}: {people:,} people at {len(sites)} sites "
        f"({config.data.source}), ready in {took:.0f} s; results in {folder}"
    )
    with (
        PredictionsFile(folder, sites) as file,
        make_bar(console, _units(replicate)) as bar,
    ):
        for fold in replicate.folds:
            _run_fold(replicate, fold, folder, bar, console)
            file.add(replicate.collected, fold)
    _note(replicate, note_scoring(config, replicate.folds, out))
    replicate.rows = rows_of(replicate.collected, config)
    replicate.by_site = rows_by_site(replicate.collected.of(EVERYTHING), sites, config)
    write_by_site(folder, replicate.by_site)
    return replicate


def _units(replicate: Replicate) -> float:
    arms = len(replicate.config.simulation.arms)
    return arms * sum(units_of(replicate.config, fold) for fold in replicate.folds)


def _run_fold(
    replicate: Replicate,
    fold: CrossValidationFold,
    folder: Path,
    bar: RunBar,
    console: Console,
) -> None:
    config = replicate.config
    arms = ArmsOfFold(config, fold, folder, bar, console)
    arms.train()
    trained: dict[str, TrainedArm] = dict(arms.trained.items())
    for arm, of in trained.items():
        _keep_what_is_told(replicate, of, fold.name)
        replicate.seconds[arm] = replicate.seconds.get(arm, 0.0) + of.seconds
        replicate.history.setdefault(arm, of.history)
    for note in arms.notes:
        _note(replicate, note)
    scored = collect(replicate.collected, trained, fold, replicate.sites, config)
    if config.simulation.baselines and arms.vocabulary is not None and scored is not None:
        baselines = reference_predictions(config, fold, replicate.sites, arms.vocabulary, scored)
        for (inputs, name), predictions in baselines.by_arm.items():
            replicate.collected.add(inputs, name, predictions)
        for note in baselines.notes:
            _note(replicate, note)
    one_model = {
        arm: of.models[""]
        for arm, of in trained.items()
        if "" in of.models and of.shown_fold is None
    }
    predictions_of_arms = replicate.collected.of(EVERYTHING)
    by_inputs = {inputs: replicate.collected.of(inputs) for inputs in config.evaluation.inputs}
    replicate.secondary = evaluate_secondary(
        one_model, predictions_of_arms, fold, replicate.sites, config, by_inputs=by_inputs
    )
    _note_alarms(replicate, trained)
    first = trained.get("federated")
    if first and first.models and replicate.half_lives is None:
        replicate.half_lives = learned_half_lives(first.models[""], config, folder / "sites")


def _keep_what_is_told(replicate: Replicate, trained: TrainedArm, fold: str) -> None:
    """Keep an arm's sentences, and what the sites share from the first arm of several sites."""
    if not replicate.coverage and len(trained.coverage) > 1:
        replicate.coverage, replicate.units_apart = trained.coverage, trained.units_apart
        replicate.rolled_up, replicate.inputs = trained.rolled_up, trained.inputs
    for choice in trained.choices:
        _note(replicate, f"{fold}, {choice}.")
    for said in filter(None, (trained.codes, trained.devices)):
        _note(replicate, f"{said}.")


def _note_alarms(replicate: Replicate, trained: Mapping[str, TrainedArm]) -> None:
    for arm, of in trained.items():
        first: dict[str, str] = {}
        for row in of.history:
            for sentence in row.get("alarms", ()):
                first.setdefault(kind_of(sentence), f"{arm}, round {row['round']}: {sentence}")
        for note in first.values():
            _note(replicate, note)


def _note(replicate: Replicate, note: str) -> None:
    if note not in replicate.notes:
        replicate.notes.append(note)


def _report(
    config: RunConfig, replicates: Sequence[Replicate], out: Path, command: str
) -> SimulationResult:
    first = replicates[0]
    rows = over_seeds([replicate.rows for replicate in replicates])
    arms, ceiling = split_ceiling(rows)
    secondary = over_seeds([replicate.secondary.rows for replicate in replicates])
    notes = [note for replicate in replicates for note in replicate.notes]
    notes = list(dict.fromkeys(notes))
    if len(replicates) > 1:
        notes.append(
            f"Values are means over {len(replicates)} seeds, intervals are 95 % t intervals over "
            "them; figures by site and reliability are the first seed's."
        )
        for replicate in replicates:
            file = out / f"seed-{replicate.config.seed}" / "metrics.json"
            every = [*replicate.rows, *replicate.secondary.rows]
            file.write_text(json.dumps([row.__dict__ for row in every], indent=1) + "\n")
    context = context_of(
        config,
        lead=_lead(config, first),
        command=command,
        config_yaml=to_yaml(config),
        sites=first.sites,
        folds=first.folds,
        collected=first.collected,
        site_rows={site.site: site.rows for site in first.by_site},
        history=first.history,
        seconds={
            arm: sum(replicate.seconds.get(arm, 0.0) for replicate in replicates)
            for arm in first.seconds
        },
        ceiling=ceiling,
        half_lives=first.half_lives,
        seeds=len(replicates),
        notes=notes,
        coverage=first.coverage,
        inputs=first.inputs,
        units_apart=first.units_apart[:MOST_LISTED],
        rolled_up=first.rolled_up,
    )
    context = with_secondary(context, first.secondary, secondary)
    page = write_report(out, title=_title(config), rows=arms, context=context)
    said = first.collected.remarks
    return SimulationResult(rows, secondary, arms, context, page, notes, len(replicates), said)


def _title(config: RunConfig) -> str:
    return f"{config.data.source}: {config.evaluation.task.replace('_', ' ')}"


def _lead(config: RunConfig, first: Replicate) -> str:
    protocol = {
        "held_out": "held-out people of every site",
        "held_out_sites": "whole sites that took no part in training",
        "leave_sites_out": f"every site once left out, in {len(first.folds)} folds",
        "late": f"the last {config.evaluation.late_days:g} days of everybody's record",
    }[config.evaluation.protocol]
    return (
        f"{len(first.sites)} sites, {config.federation.rounds} rounds, model "
        f"{config.model.name}; tested on {protocol}."
    )
