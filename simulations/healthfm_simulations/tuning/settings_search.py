"""The search: Optuna asks, federations answer, and every step is on disk before the next.

Optuna's study is an SQLite file. A trial that a kill left running is gone on with: its settings are
in the file, its federations in their run folders. The sampler's chance is seeded by the number of
the trial, so that a search that was killed and one that was not try the same settings.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose, schema_keys
from healthfm_core.errors import ConfigError, RunError
from healthfm_core.seeding import seed_for
from healthfm_simulations.tuning.trial_training import TrialTraining
from healthfm_simulations.tuning.tune_plan import SearchRange, TunePlan

if TYPE_CHECKING:
    import optuna

STUDY_FILE: Final = "study.db"
DIVERGED: Final = 726
Value = float | int | bool | str


@dataclass(frozen=True)
class FinishedTrial:
    """What a trial gave.

    Attributes:
        number: From 0, in the order they were begun; 0 is the configuration as it was.
        values: Setting → value.
        score: The metric; None where the trial was given up.
        rounds: Rounds trained when it ended.
        ended: ``finished``, ``pruned`` or ``diverged``.
    """

    number: int
    values: Mapping[str, Value]
    score: float | None
    rounds: int
    ended: str


@dataclass(frozen=True)
class SettingsSearch:
    """A search over a plan's space.

    Attributes:
        plan: What is searched, and how.
        overrides: The run whose settings are searched, as on the command line.
        folder: Holds the study and the trials at work.
        training: Trial's number and its overrides → its federations.
        say: Hears a line for each trial.
    """

    plan: TunePlan
    overrides: tuple[str, ...]
    folder: Path
    training: Callable[[int, tuple[str, ...]], TrialTraining]
    say: Callable[[str], None]

    def run(self) -> list[FinishedTrial]:
        """Run the trials that are left, and return them all.

        Raises:
            HealthFMError: What a federation raises; the search goes on from there.
        """
        study = self._study()
        self._remove_what_ended(study)
        for left_running in _in_state(study, "RUNNING"):
            self._finish(study, left_running)
        while len(study.get_trials(deepcopy=False)) - len(_in_state(study, "WAITING")) < (
            self.plan.trials
        ):
            self._finish(study, study.ask().number)
        return finished_trials(study)

    def _study(self) -> optuna.Study:
        optuna = load_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.RDBStorage(f"sqlite:///{(self.folder / STUDY_FILE).resolve()}")
        study = optuna.create_study(
            storage=storage,
            study_name="healthfm-tune",
            direction="maximize",
            pruner=self._pruner(),
            load_if_exists=True,
        )
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(self._as_it_is())
        return study

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        optuna = load_optuna()
        seed = seed_for(compose(self.overrides).seed, "tune", number) % 2**32
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.plan.startup_trials)

    def _pruner(self) -> optuna.pruners.BasePruner:
        optuna = load_optuna()
        if self.plan.pruner == "none":
            return optuna.pruners.NopPruner()
        if self.plan.pruner == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=min(4, self.plan.startup_trials))
        rounds = compose(self.overrides).federation.rounds
        first = max(2, round(rounds / (self.plan.rungs + 1)))
        return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=max(rounds, first))

    def _as_it_is(self) -> dict[str, Value]:
        """Return the configuration's own values where the plan's ranges have them."""
        config = compose(self.overrides)
        own = {key: value_at(config, key) for key in self.plan.space}
        return {key: value for key, value in own.items() if _within(self.plan.space[key], value)}

    def _finish(self, study: optuna.Study, number: int) -> None:
        """Train a trial to its end, or until it is pruned or diverges."""
        optuna = load_optuna()
        study.sampler = self._sampler(number)
        frozen = study.get_trials(deepcopy=False)[number]
        trial = optuna.trial.Trial(study, frozen._trial_id)
        values = {key: suggested(trial, key, of) for key, of in self.plan.space.items()}
        training = self.training(number, tuple(f"{k}={text(v)}" for k, v in values.items()))
        seen = dict(frozen.intermediate_values)
        try:
            for rung in training.rungs(self.plan.rungs):
                score = seen[rung] if rung in seen else training.value_after(rung)
                if rung not in seen:
                    trial.report(score, rung)
                if rung < training.rounds and trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, score)
        except RunError as error:
            if error.number != DIVERGED:
                raise
            trial.set_user_attr("diverged", error.seen)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        self.say(trial_line(_finished(study.get_trials(deepcopy=False)[number]), self.plan.trials))
        shutil.rmtree(training.folder, ignore_errors=True)

    def _remove_what_ended(self, study: optuna.Study) -> None:
        """Remove the federations of trials that a kill kept from tidying up."""
        running = {trial_folder(self.folder, number) for number in _in_state(study, "RUNNING")}
        for folder in (self.folder / "trials").glob("*"):
            if folder not in running:
                shutil.rmtree(folder)


def trial_folder(folder: Path, number: int) -> Path:
    """Return where a trial's federations are while it is at work."""
    return folder / "trials" / f"{number:04d}"


def load_optuna() -> Any:
    """Return Optuna, which takes a second to load and is an extra.

    Raises:
        ConfigError: HF-108, it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            108,
            where="healthfm-tune",
            seen="Optuna is not installed",
            wanted="Optuna, which proposes the settings",
            do="Run: pip install 'healthfm[tune]', or make install",
        ) from error
    return optuna


def suggested(trial: optuna.Trial, key: str, of: SearchRange) -> Value:
    """Return the trial's value of a setting, rounded to three digits as it is printed."""
    if of.choices or of.low is None or of.high is None:
        chosen: Value = trial.suggest_categorical(key, of.choices)
        return chosen
    if _is_whole(key):
        step = 1 if of.step is None else int(of.step)
        return trial.suggest_int(key, int(of.low), int(of.high), log=of.log, step=step)
    value = trial.suggest_float(key, of.low, of.high, log=of.log, step=of.step)
    return float(f"{value:.3g}")


def text(value: Value) -> str:
    """Return a value as an override has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def value_at(config: RunConfig, key: str) -> Any:
    """Return the value at a dotted key."""
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return found


def finished_trials(study: optuna.Study) -> list[FinishedTrial]:
    """Return the trials that have ended."""
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return [_finished(trial) for trial in done]


def best_of(trials: list[FinishedTrial]) -> FinishedTrial | None:
    """Return the earliest of the best; None where every one was given up."""
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: (trial.score or 0.0, -trial.number), default=None)


def trial_line(trial: FinishedTrial, count: int) -> str:
    """Return a trial as one line."""
    shown = "  ".join(f"{key}={text(value)}" for key, value in trial.values.items())
    score = f"{trial.score:.4f}" if trial.score is not None else trial.ended
    return f"trial {trial.number + 1} of {count}: {score}, {trial.rounds} rounds  {shown}"


def _finished(trial: optuna.trial.FrozenTrial) -> FinishedTrial:
    ended = "finished" if trial.state.name == "COMPLETE" else "pruned"
    if "diverged" in trial.user_attrs:
        ended = "diverged"
    values = {
        key: float(f"{value:.3g}") if isinstance(value, float) else value
        for key, value in trial.params.items()
    }
    score = trial.value if ended == "finished" else None
    return FinishedTrial(trial.number, values, score, trial.last_step or 0, ended)


def _in_state(study: optuna.Study, state: str) -> list[int]:
    trials = study.get_trials(deepcopy=False)
    return [trial.number for trial in trials if trial.state.name == state]


def _within(of: SearchRange, value: Any) -> bool:
    if of.choices:
        return value in of.choices
    if of.low is None or of.high is None or not isinstance(value, int | float):
        return False
    on_step = of.step is None or abs((value - of.low) / of.step - round((value - of.low) / of.step))
    return of.low <= value <= of.high and (on_step is True or on_step < 1e-9)


def _is_whole(key: str) -> bool:
    annotation = dict(schema_keys())[key].annotation
    return int in (get_args(annotation) or (annotation,))
