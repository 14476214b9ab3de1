"""What is asked of a model: the risk of a code within some days, or the label it was trained on."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Self

from healthfm_core.arrays import Float32
from healthfm_core.errors import RunError
from healthfm_core.models.inference import logistic
from healthfm_core.trained import TrainedModel


@dataclass(frozen=True)
class PredictionTask:
    """One question that a model answers.

    Attributes:
        name: A target's code, or the label task's name.
        column: The target's column; None for the label.
        horizon_days: The risk is of an occurrence within so many days; None for the label.
    """

    name: str
    column: int | None
    horizon_days: float | None

    @classmethod
    def of(cls, model: TrainedModel, name: str, horizon_days: float | None = None) -> Self:
        """Return the task of that name.

        Args:
            model: Who is asked.
            name: A target's code, or the label task's name.
            horizon_days: For a target.

        Raises:
            RunError: The model has no such task (HF-709), no hazards, or none so far ahead
                (HF-708).
        """
        study = model.study
        label = study.config.label_task if study.config.train.objectives.label > 0 else None
        if name == label:
            return cls(name, None, None)
        if name not in study.vocabulary.targets:
            raise _unknown(model, name, label)
        if horizon_days is None:
            raise RunError(
                708,
                where=name,
                seen="no horizon is named",
                wanted="a code's risk is within so many days",
                do="Add --horizon DAYS",
            )
        model.check_horizon(horizon_days)
        return cls(name, study.vocabulary.targets.index(name), horizon_days)

    @property
    def after_visits(self) -> bool:
        """Whether it is asked after visits, as hazards are learned, and not at any time."""
        return self.column is not None

    @property
    def head(self) -> str:
        """The model's head that answers it."""
        return "label" if self.column is None else "time_to_event"

    @property
    def sentence(self) -> str:
        """What a number says."""
        if self.horizon_days is None:
            return f"probability of the label {self.name}"
        return f"risk of {self.name} within {self.horizon_days:g} days"

    def probability(self, model: TrainedModel, logits: Float32, from_days: Float32) -> Float32:
        """Return [b] probabilities.

        Args:
            model: Who answered.
            logits: [b, O] outputs of the head.
            from_days: [b] days from when the model was asked to the moment.
        """
        if self.column is None or self.horizon_days is None:
            return logistic(logits)[:, 0]
        return model.risk_of(logits, self.horizon_days, from_days)[:, self.column]


def _unknown(model: TrainedModel, name: str, label: str | None) -> RunError:
    targets = model.study.vocabulary.targets
    known = [*([label] if label else []), *targets]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    nearest = f", the nearest of which is {close[0]}" if close else ""
    said = f"its label {label} or " if label else ""
    return RunError(
        709,
        where=name,
        seen="the model predicts nothing of that name",
        wanted=f"{said}one of its {len(targets)} targets{nearest}",
    )
