"""The arms of an experiment: the same people, model and budget, trained in several ways.

``federated`` averages each modality's group over the sites that hold it; ``fedavg`` averages what
all sites share and leaves the rest out of the model; ``local`` trains one model per site;
``ensemble`` trains nothing and asks all the local models; ``centralised`` trains one model on all
records in one place, which no hospital would allow; ``imputed`` is plain FedAvg of the whole model
where zeros stand for what a site lacks (see `imputed`); ``twin`` is ``federated`` again from
another seed, with other initial weights and batches. All arms use the vocabulary that the sites
agree on together, so that only the training differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from healthfm_core.config import RunConfig, ServerOptimizerConfig
from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.config.simulation import Arm
from healthfm_core.errors import ProtocolError
from healthfm_core.federation.code_overlap import (
    overlap_sentence,
    told_coverage,
    told_devices,
    told_roll_up,
    told_units,
)
from healthfm_core.federation.input_overlap import InputOverlap, told_inputs
from healthfm_core.tokens.statistics import SiteStatistics, merge, site_statistics
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.core_model_setup import CoreModelSetup
from healthfm_simulations.arms.attendance import stages
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.engine import (
    Apps,
    FederationResult,
    NodeSpec,
    ProgressEvent,
    rounds_done,
    run_federation,
)
from healthfm_simulations.engine.federation_run import core_apps
from healthfm_simulations.scoring.model_scores import Model
from healthfm_simulations.sites import SimulatedSite

ALONE: Final[tuple[Arm, ...]] = ("local", "ensemble", "centralised")
"""Arms whose federations have one member."""

TWIN_SEED: Final = 1000
"""What the twin's seed is above the run's."""

Listener = Callable[[str, float], None]
"""Is called with a run's name and with the share of it that is done, in [0, 1]."""


@dataclass(frozen=True)
class TrainedArm:
    """What training one arm on one fold gave.

    Attributes:
        models: Site name → model for ``local`` and ``ensemble``; one model under the empty name
            otherwise.
        history: A record per round of the arm's (first) run.
        seconds: Wall clock of the training.
        absent: Site, '' of an arm of one model → why there is no model.
        codes: What the sites' codes share, where that is little.
        coverage: Site → what it answered to the study of the arm's one run.
        inputs: Which wearable channels and scores the sites of the arm's one run have.
        units_apart: Codes in units of which no two sites share one.
        rolled_up: What rolling codes up changed, where the study rolls up.
        devices: Which wearable devices train together, where there are several.
        choices: Which round's model the arm's one run ended with, where it was to choose.
        shown_fold: Input subset → the test people as this arm's models read them; None: unchanged.
    """

    models: dict[str, Model] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    absent: dict[str, str] = field(default_factory=dict)
    codes: str = ""
    coverage: dict[str, dict[str, float]] = field(default_factory=dict)
    inputs: InputOverlap | None = None
    units_apart: tuple[str, ...] = ()
    rolled_up: str = ""
    devices: str = ""
    shown_fold: Callable[[str], CrossValidationFold] | None = None
    choices: list[str] = field(default_factory=list)


MUCH_SHARED: Final = 0.9
"""Share of each site's events from which on its codes are not spoken of."""


class FixedVocabularySetup(CoreModelSetup):
    """The server's set-up of a study whose vocabulary is known beforehand."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def vocabulary(self, statistics: SiteStatistics, config: RunConfig) -> Vocabulary:
        """Return the known vocabulary, whatever these sites' statistics are."""
        return self._vocabulary


def train_arm(
    arm: Arm,
    config: RunConfig,
    fold: CrossValidationFold,
    folder: Path,
    *,
    vocabulary: Vocabulary | None,
    on_progress: Listener,
) -> TrainedArm:
    """Train `arm` on the fold's training sites; a run found in `folder` is continued.

    Args:
        arm: Which; ``ensemble`` trains what ``local`` does.
        config: The run's configuration.
        fold: Whose training sites.
        folder: Where the arm's run folders go.
        vocabulary: The vocabulary to use; None makes one from the sites' statistics.
        on_progress: Is called with the progress.
    """
    started = time.monotonic()
    if arm in ALONE and shares_noise(config):
        return TrainedArm(absent={"": "it has nobody to share noise with, and is left out"})
    own = config_of(arm, config)
    own_intercepts = arm != "centralised" or config.simulation.centralised.site_intercepts
    with_site_intercepts = own_intercepts and not fold.tests_newcomers
    trained = TrainedArm()
    for name, parts in federations(arm, own, fold).items():
        run = folder / name if name else folder
        progress = _share_done(f"{arm} {name}".strip(), on_progress)
        try:
            result = _run_in_stages(own, parts, run, progress, _apps(vocabulary))
        except ProtocolError as error:
            if error.number != 406:
                raise
            trained.absent[name] = "no modality is at every site" if arm == "fedavg" else error.seen
            continue
        trained.models[name] = Model(result.study, result.parameters, with_site_intercepts)
        trained.history.extend(result.history if not trained.history else [])
        if not name:
            events = RunStore(run, keep=1).events()
            coverage = told_coverage(events)
            trained = replace(
                trained,
                codes=overlap_sentence(coverage, enough=MUCH_SHARED),
                coverage=coverage,
                inputs=told_inputs(events),
                units_apart=told_units(events),
                rolled_up=told_roll_up(events),
                devices=told_devices(events),
            )
        if result.choice is not None and not name:
            trained.choices.append(f"{arm}: {result.choice.sentence()}")
    return replace(trained, seconds=time.monotonic() - started)


def config_of(arm: Arm, config: RunConfig) -> RunConfig:
    """Return the configuration an arm trains with: its way to average, its budget.

    Who trains alone has no sums to hide in.
    """
    changes: dict[str, Any] = {"groups": "shared" if arm == "fedavg" else "modality"}
    if arm in ALONE:
        changes["secure"] = SecureAggregationConfig()
    budget = config.simulation.centralised
    if arm == "centralised" and not budget.server_optimizer:
        changes["server_optimizer"] = ServerOptimizerConfig()
    aggregation = config.federation.aggregation.model_copy(update=changes)
    federation = config.federation.model_copy(update={"aggregation": aggregation})
    if arm != "centralised":
        seed = config.seed + TWIN_SEED if arm == "twin" else config.seed
        return config.model_copy(update={"federation": federation, "seed": seed})
    train = {
        name: getattr(budget, name)
        for name in ("local_epochs", "batch_size", "lr")
        if getattr(budget, name) is not None
    }
    return config.model_copy(
        update={"federation": federation, "train": config.train.model_copy(update=train)}
    )


def shares_noise(config: RunConfig) -> bool:
    """Whether what hides a person is noise that several sites add together."""
    sums = config.federation.aggregation.secure
    return config.privacy.mechanism.noise_in_sum or (sums.enabled and sums.epsilon is not None)


def federations(
    arm: Arm, config: RunConfig, fold: CrossValidationFold
) -> dict[str, list[tuple[list[NodeSpec], int]]]:
    """Return the federations an arm consists of: name → its stages' nodes and last rounds."""
    rounds = config.federation.rounds
    if arm in ("local", "ensemble"):
        return {site.name: [([_node(site)], rounds)] for site in fold.train}
    if arm == "centralised":
        stores = tuple((site.path, site.modalities) for site in fold.train)
        return {"": [([NodeSpec("pooled", stores, pooled=True)], rounds)]}
    return {
        "": [
            ([_node(site) for site in stage.sites], stage.last)
            for stage in stages(config, fold.train)
        ]
    }


def _run_in_stages(
    config: RunConfig,
    parts: Sequence[tuple[list[NodeSpec], int]],
    folder: Path,
    progress: Callable[[ProgressEvent], None],
    apps: Apps,
) -> FederationResult:
    """Run the stages that are not done yet; the last one always, for its result."""
    done = rounds_done(folder)
    for nodes, last in parts:
        if last > done or last == parts[-1][1]:
            result = run_federation(
                config, nodes, folder, resume=True, progress=progress, apps=apps, until=last
            )
    return result


def shared_vocabulary(config: RunConfig, fold: CrossValidationFold) -> Vocabulary:
    """Return what the fold's training sites would agree on before a federated run.

    For arms whose own runs see one site each, where no federated arm comes before them.
    """
    return CoreModelSetup().vocabulary(merge(statistics_of_sites(config, fold)), config)


def statistics_of_sites(config: RunConfig, fold: CrossValidationFold) -> list[SiteStatistics]:
    """Return what each of the fold's training sites says before round 1, by name."""
    sites = sorted(fold.train, key=lambda site: site.name)
    return [site_statistics([site.view()], config.tokens, task=config.label_task) for site in sites]


def _node(site: SimulatedSite) -> NodeSpec:
    return NodeSpec(site.name, ((site.path, site.modalities),))


def _apps(vocabulary: Vocabulary | None) -> Apps:
    apps = core_apps()
    return apps if vocabulary is None else Apps(FixedVocabularySetup(vocabulary), apps.client)


def _share_done(name: str, on_progress: Listener) -> Callable[[ProgressEvent], None]:
    def hear(event: ProgressEvent) -> None:
        if event.round == 0:
            return
        inside = 1.0 if event.phase == "round" else 0.999 * event.done / max(1, event.sites)
        on_progress(name, (event.round - 1 + inside) / event.rounds)

    return hear


def have_same_modalities(fold: CrossValidationFold) -> bool:
    """Whether all training sites hold the same modalities, so that plain FedAvg is the same run."""
    return len({site.view().modalities for site in fold.train}) == 1
