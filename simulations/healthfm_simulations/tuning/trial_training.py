"""One trial: the same settings trained over seeds and folds, side by side, rung by rung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from healthfm_core.config import RunConfig
from healthfm_core.config.federation import TuningMetric
from healthfm_core.errors import RunError
from healthfm_core.federation.early_stopping import scores_of
from healthfm_simulations.engine import Apps, FederationResult, NodeSpec, run_federation
from healthfm_simulations.sites import SimulatedSite


@dataclass(frozen=True)
class TrainingUnit:
    """One federation of a trial: a seed and a fold.

    Attributes:
        name: ``seed-0-fold-0``, the name of its run folder.
        config: The trial's settings with this seed.
        sites: Those that train, without the people that the fold tests.
    """

    name: str
    config: RunConfig
    sites: tuple[SimulatedSite, ...]


def settings_of_trial(config: RunConfig, metric: TuningMetric) -> RunConfig:
    """Return a trial's configuration: trained as ever, and scored on tuning people every round.

    A run that chooses its best round does so in the search too; any other is judged by its last
    round's model. Neither changes a weight of any round.
    """
    own = config.federation.early_stopping
    chosen = {
        "monitor": metric,
        "restore_best": own.restore_best if own.monitor is not None else False,
    }
    federation = {
        **config.federation.model_dump(),
        "evaluate_every": 1,
        "early_stopping": {**own.model_dump(), **chosen},
    }
    return RunConfig.model_validate({**config.model_dump(), "federation": federation})


@dataclass(frozen=True)
class TrialTraining:
    """The federations of one trial, trained as far as somebody asks.

    Attributes:
        units: Seeds × folds.
        metric: The federated tuning metric.
        folder: Where their run folders are; what is there already is gone on with.
        apps: What the apps work with; None is the real thing.
    """

    units: Sequence[TrainingUnit]
    metric: TuningMetric
    folder: Path
    apps: Apps | None = None

    @property
    def rounds(self) -> int:
        """Rounds of each federation."""
        return self.units[0].config.federation.rounds

    def rungs(self, count: int) -> list[int]:
        """Return the rounds after which the trial is looked at: `count` of them, and the last.

        None is before round 2, whose row is the first that scores a trained model.
        """
        inner = {max(2, round(self.rounds * i / (count + 1))) for i in range(1, count + 1)}
        return [*sorted(number for number in inner if number < self.rounds), self.rounds]

    def value_after(self, round_: int) -> float:
        """Train all federations up to `round_`; return the mean of the metric.

        After the last round it is that of the models which the runs end with; before, that of the
        newest models that were scored.

        Raises:
            RunError: Training diverged (HF-726), or no site reported the metric (HF-727).
            HealthFMError: What a federation raises.
        """
        return fmean(self._value(unit, round_) for unit in self.units)

    def _value(self, unit: TrainingUnit, round_: int) -> float:
        result = run_federation(
            unit.config,
            [NodeSpec(site.name, ((site.path, site.modalities),)) for site in unit.sites],
            self.folder / unit.name,
            resume=True,
            apps=self.apps,
            until=round_,
        )
        value = self._of(result)
        if value is None:
            raise RunError(
                727,
                where=f"{unit.name}, round {round_}",
                seen=f"no site reported {self.metric}",
                wanted="tuning people with and without the outcome at one site at least",
                do="Choose another metric, or sites with more tuning people",
            )
        return value

    def _of(self, result: FederationResult) -> float | None:
        if result.choice is not None:
            return result.choice.value
        scores = scores_of(result.history, self.metric)
        return scores[max(scores)] if scores else None
