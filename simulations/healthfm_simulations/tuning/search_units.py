"""The seeds and folds that a search trains every trial on, prepared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.sites import SimulatedSite, prepare_sites
from healthfm_simulations.study_checks import check_study
from healthfm_simulations.tuning.settings_search import trial_folder
from healthfm_simulations.tuning.stores_without_test_people import training_sites
from healthfm_simulations.tuning.trial_training import (
    TrainingUnit,
    TrialTraining,
    settings_of_trial,
)
from healthfm_simulations.tuning.tune_plan import TunePlan


@dataclass(frozen=True)
class SearchUnits:
    """What every trial trains on.

    Attributes:
        plan: The search's.
        config: The run's whose settings are searched.
        overrides: The same as on the command line.
        folder: The search's.
        sites: Seed → fold → the sites that train, without the people it tests.
    """

    plan: TunePlan
    config: RunConfig
    overrides: tuple[str, ...]
    folder: Path
    sites: dict[int, tuple[tuple[SimulatedSite, ...], ...]]

    @classmethod
    def prepare(
        cls, plan: TunePlan, config: RunConfig, overrides: tuple[str, ...], folder: Path
    ) -> Self:
        """Make the sites, unless an earlier start of the search made them.

        Raises:
            ConfigError: HF-102 or HF-103 where the configuration names stores or sites that are
                not.
            IngestError: HF-3xx from the readers.
            StoreError: HF-2xx from the stores.
        """
        sites = {}
        for seed in range(config.seed, config.seed + plan.seeds):
            of_seed = config.model_copy(update={"seed": seed})
            own = f"seed-{seed}" if config.data.source == "cohort" else "all-seeds"
            place = folder / "sites" / own
            place.mkdir(parents=True, exist_ok=True)
            every = prepare_sites(of_seed, place)
            check_study(of_seed, every, cross_validation_folds(of_seed, every))
            sites[seed] = training_sites(of_seed, every, place / "without-test")[: plan.folds]
        return cls(plan, config, overrides, folder, sites)

    def training(self, number: int, values: tuple[str, ...]) -> TrialTraining:
        """Return the federations of trial `number` with the overrides `values`."""
        metric = self.plan.metric_of(self.config)
        units = []
        for seed, folds in self.sites.items():
            config = compose([*self.overrides, *values, f"seed={seed}"])
            own = settings_of_trial(config, metric)
            units += [
                TrainingUnit(f"seed-{seed}-fold-{fold}", own, sites)
                for fold, sites in enumerate(folds)
            ]
        return TrialTraining(tuple(units), metric, trial_folder(self.folder, number))

    def sentences(self) -> list[str]:
        """Return what a reader of the choice has to know of its people."""
        folds = len(next(iter(self.sites.values())))
        said = [
            f"{self.plan.trials} trials, seeds {len(self.sites)}, folds {folds}, judged by "
            f"{self.plan.metric_of(self.config)} on the sites' tuning people; no test person is "
            "in the stores they train at."
        ]
        if self.config.evaluation.protocol == "leave_sites_out":
            said.append(
                "Each site is a test site of one fold: tuning people of these folds' training "
                "sites are scored in other folds, by models that were not trained on them."
            )
        return said
