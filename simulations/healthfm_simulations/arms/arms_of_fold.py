"""All arms of one fold: which run comes first, which are the same run, which train side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from healthfm_core.config import RunConfig
from healthfm_core.config.simulation import Arm
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_simulations.arms.arm_training import (
    Listener,
    TrainedArm,
    have_same_modalities,
    shared_vocabulary,
    train_arm,
)
from healthfm_simulations.arms.arms_side_by_side import train_side_by_side
from healthfm_simulations.arms.zero_imputation import imputed_fold
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.engine.federation_run import interrupted, rounds_done
from healthfm_simulations.run_bar import RunProgressBar

ONE_A_SITE: Final[tuple[Arm, ...]] = ("local", "ensemble")
"""Arms that train a model at each site."""

RUNS: Final = "runs"
"""Folder of the arms' run folders."""

SAME_RUN: Final = "All sites hold the same modalities, so plain FedAvg is the federated run."


@dataclass
class ArmsOfFold:
    """Trains the arms of one fold, of which each is a run folder that can be gone on with.

    Attributes:
        config: The run's configuration.
        fold: Whose training sites.
        folder: The replicate's folder.
        bar: Where progress is shown.
        console: Where a line per arm is printed.
        trained: What each arm gave, in the order in which they were trained.
        vocabulary: The vocabulary that all arms use, from the first model on.
        notes: Sentences about the arms.
    """

    config: RunConfig
    fold: CrossValidationFold
    folder: Path
    bar: RunProgressBar
    console: Console
    trained: dict[Arm, TrainedArm] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    notes: list[str] = field(default_factory=list)
    _told: dict[Arm, int] = field(default_factory=dict)

    def train(self) -> None:
        """Train all arms of the configuration.

        Raises:
            HealthFMError: Any of the tree; an interrupted run can be gone on with.
        """
        arms = _in_order(self.config.simulation.arms)
        self.vocabulary = _shared_before_training(arms, self.config, self.fold)
        took = self._train_ahead(arms)
        for arm in arms:
            self.trained[arm] = self._train_one(arm, took.get(arm))
            if self.vocabulary is None and self.trained[arm].models:
                first = next(iter(self.trained[arm].models.values()))
                self.vocabulary = first.study.vocabulary
            self.console.print(f"  {self._name(arm)}: {self.trained[arm].seconds:.0f} s")

    def _train_one(self, arm: Arm, took: float | None) -> TrainedArm:
        """Train an arm, or take what a process has `took` that many seconds to train."""
        if arm == "fedavg" and self._is_federated(self.trained):
            self.notes.append(SAME_RUN)
            trained = self.trained["federated"]
        elif arm == "ensemble" and "local" in self.trained:
            local = self.trained["local"]
            trained = TrainedArm(local.models, absent=local.absent)
        elif took is not None:
            return replace(self._of_its_run(arm, _hear_nothing), seconds=took)
        else:
            trained = self._of_its_run(arm, self._progress_of(arm))
        self.bar.finish(units_of(self.config, self.fold))
        return trained

    def _of_its_run(self, arm: Arm, on_progress: Listener) -> TrainedArm:
        train = self._train_imputed if arm == "imputed" else partial(train_arm, arm)
        return train(
            self.config,
            self.fold,
            self._run(arm),
            vocabulary=self.vocabulary,
            on_progress=on_progress,
        )

    def _train_imputed(
        self,
        config: RunConfig,
        fold: CrossValidationFold,
        run: Path,
        *,
        vocabulary: Vocabulary | None,
        on_progress: Listener,
    ) -> TrainedArm:
        """Train on copies of the stores with zeros where a person lacks a modality."""
        vocabulary = vocabulary or shared_vocabulary(config, fold)
        copies = run.with_name("imputed-stores")
        zeros = imputed_fold(fold, vocabulary, config, copies, None)
        trained = train_arm(
            "imputed", config, zeros, run, vocabulary=vocabulary, on_progress=on_progress
        )
        shown_fold = partial(imputed_fold, fold, vocabulary, config, copies)
        return replace(trained, shown_fold=shown_fold)

    def _train_ahead(self, arms: Sequence[Arm]) -> dict[Arm, float]:
        """Train side by side the arms that can be; return the seconds of each that is done."""
        simulation = self.config.simulation
        runs = {
            arm: self._run(arm)
            for arm in arms
            if self._has_a_run(arm, arms) and not self._is_finished(arm)
        }
        in_turn = simulation.replicates > 1 or simulation.engine != "inprocess"
        if in_turn or simulation.workers == 1 or len(runs) < 2:
            return {}
        done: dict[tuple[Arm, str], float] = {}
        title = f"{self.fold.name}, {simulation.workers} arms at a time"

        def show_progress(arm: Arm, run: str, share: float) -> None:
            done[arm, run] = share
            parts = [of / self._runs_of(arm) for (arm, _), of in done.items()]
            self.bar.show_progress(title, units_of(self.config, self.fold) * sum(parts))
            of_arm = sum(of for (other, _), of in done.items() if other == arm)
            self._tell_round(arm, of_arm / self._runs_of(arm))

        try:
            took = train_side_by_side(
                self.config,
                self.fold,
                runs,
                vocabulary=self.vocabulary,
                on_progress=show_progress,
            )
        except KeyboardInterrupt as interrupt:
            raise interrupted(self._run(arms[0])) from interrupt
        self.bar.finish(units_of(self.config, self.fold) * len(took))
        if again := [arm for arm in runs if arm not in took]:
            told = ", ".join(self._name(arm) for arm in again)
            self.console.print(f"  {told}: not finished side by side, so one at a time now")
        return took

    def _has_a_run(self, arm: Arm, arms: Sequence[Arm]) -> bool:
        """Whether an arm trains a run of its own, on the stores as they are."""
        same = (arm == "fedavg" and self._is_federated(arms)) or (
            arm == "ensemble" and "local" in arms
        )
        return arm != "imputed" and not same

    def _is_finished(self, arm: Arm) -> bool:
        folders = [self._run(arm)]
        if arm in ONE_A_SITE:
            folders = [self._run(arm) / site.name for site in self.fold.train]
        return all(rounds_done(run) == self.config.federation.rounds for run in folders)

    def _is_federated(self, arms: Sequence[Arm] | Mapping[Arm, TrainedArm]) -> bool:
        return "federated" in arms and have_same_modalities(self.fold)

    def _name(self, arm: Arm) -> str:
        return f"{self.fold.name}/{arm}"

    def _run(self, arm: Arm) -> Path:
        name = "local" if arm == "ensemble" else arm
        return self.folder / RUNS / self.fold.name / name

    def _runs_of(self, arm: Arm) -> int:
        return len(self.fold.train) if arm in ONE_A_SITE else 1

    def _progress_of(self, arm: Arm) -> Listener:
        seen: dict[str, float] = {}

        def show_progress(run: str, share: float) -> None:
            seen[run] = share
            done = sum(seen.values()) / self._runs_of(arm)
            self.bar.show_progress(self._name(arm), units_of(self.config, self.fold) * done)
            self._tell_round(arm, done)

        return show_progress

    def _tell_round(self, arm: Arm, share: float) -> None:
        """Print a line for each round that an arm has done, where no bar is seen."""
        rounds = self.config.federation.rounds
        done = int(share * rounds + 1e-6)
        if not self.console.is_terminal and done > self._told.get(arm, 0):
            self._told[arm] = done
            self.console.print(f"  {self._name(arm)}: round {done} of {rounds}")


def units_of(config: RunConfig, fold: CrossValidationFold) -> float:
    """Return what an arm of `fold` costs in the bar's unit: people trained on, by round."""
    people = sum(len(site.view().subjects("train")) for site in fold.train)
    return float(people * config.federation.rounds)


def _hear_nothing(_run: str, _share: float) -> None:
    """A run that is finished has no progress to show."""


def _in_order(arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms: first that which makes the vocabulary, last that which trains nothing."""
    place = {"federated": 0, "ensemble": 2}
    return sorted(dict.fromkeys(arms), key=lambda arm: place.get(arm, 1))


def _shared_before_training(
    arms: Sequence[Arm], config: RunConfig, fold: CrossValidationFold
) -> Vocabulary | None:
    """Return the vocabulary of all sites, where no arm will train on all of them first."""
    alone = "federated" not in arms and {"local", "ensemble", "imputed"} & set(arms)
    return shared_vocabulary(config, fold) if alone else None
