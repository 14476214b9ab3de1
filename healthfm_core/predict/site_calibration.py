"""A model's probabilities brought to a site's own rates, and how well that holds on others there.

Two curves from the model's number to the site's: Platt's, a line on the log odds (two numbers), and
isotonic regression, the best curve that never falls. They are fitted on the site's tuning people,
and judged on its held-out people, whom neither the model nor the curve has seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

import numpy as np
from sklearn.isotonic import IsotonicRegression

from healthfm_core.arrays import Bool, Float64, Floats, Int64
from healthfm_core.errors import IngestError
from healthfm_core.evaluation.metrics.bootstrap import Draws, Estimate, draw_subjects
from healthfm_core.evaluation.metrics.calibration_error import (
    QUANTILE_BINS,
    bin_sums,
    logit,
    quantile_bin,
    recalibrate,
    weighted_error,
)
from healthfm_core.predict.prediction_task import PredictionTask
from healthfm_core.trained import TrainedModel

Method = Literal["platt", "isotonic"]
FEWEST: Final[Mapping[str, int]] = {"platt": 20, "isotonic": 100}
"""Method → outcomes, and rows without it, that a curve needs: Platt's has two numbers, ten of each
kind for either; an isotonic curve has as many steps as the people give it."""
FEWEST_TO_JUDGE: Final = 20
"""Outcomes among the held-out people below which nothing is said of them."""
REPLICATES: Final = 1000
_FORMAT: Final = 1


@dataclass(frozen=True)
class CalibrationCurve:
    """From the model's probability to the site's.

    Attributes:
        method: Which kind.
        intercept: Of Platt's line on the log odds.
        slope: Of it.
        x: Of an isotonic curve: the model's probabilities at its corners, ascending.
        y: The site's there.
    """

    method: Method
    intercept: float = 0.0
    slope: float = 1.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    @classmethod
    def fit(cls, method: Method, score: Floats, outcome: Bool) -> Self:
        """Fit a curve on people of the tuning split.

        Args:
            method: Which kind.
            score: [n] what the model said.
            outcome: [n] what happened.

        Raises:
            IngestError: There are too few outcomes, or of the rest; or they run against the model,
                or do not overlap (HF-352).
        """
        cases, rest = int(outcome.sum()), int((~outcome).sum())
        fewest = FEWEST[method]
        if min(cases, rest) < fewest:
            what = "outcomes" if cases <= rest else "rows without the outcome"
            raise _too_few(
                f"fewer than {fewest} {what} among the tuning people who have a prediction",
                f"{method} needs {fewest} of each kind",
            )
        if method == "isotonic":
            curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
            curve.fit(score.astype(np.float64), outcome.astype(np.float64))
            x, y = curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist()
            return cls(method, x=tuple(x), y=tuple(y))
        intercept, slope = recalibrate(score, outcome)
        if not (math.isfinite(slope) and slope > 0):
            raise _too_few(
                "where the model's number is higher the outcome is rarer, or the two kinds of "
                "people have no number in common",
                "numbers that rise with the outcome are wanted",
            )
        return cls(method, intercept=intercept, slope=slope)

    def __call__(self, score: Floats) -> Float64:
        """Return [n] the site's probabilities; NaN stays NaN."""
        if self.method == "isotonic":
            return np.interp(score.astype(np.float64), self.x, self.y)
        odds = self.intercept + self.slope * logit(score)
        return np.asarray(1.0 / (1.0 + np.exp(-odds)))


@dataclass(frozen=True)
class Judged:
    """How far probabilities are off, before and after: value, low and high of a 95 % interval."""

    brier_before: tuple[float, float, float]
    brier_after: tuple[float, float, float]
    brier_change: tuple[float, float, float]
    ece_before: tuple[float, float, float]
    ece_after: tuple[float, float, float]
    ece_change: tuple[float, float, float]

    @classmethod
    def of(
        cls,
        curve: CalibrationCurve,
        subject: Int64,
        score: Floats,
        outcome: Bool,
        rng: np.random.Generator,
    ) -> Self:
        """Judge a curve on people who had no part in it, drawn again by person.

        Args:
            curve: The curve.
            subject: [n] whose rows.
            score: [n] what the model said.
            outcome: [n] what happened.
            rng: Draws the people.
        """
        draws = draw_subjects(subject, REPLICATES, rng)
        index = draws.index(subject)
        before, after = score.astype(np.float64), curve(score)
        brier = [_brier(each, outcome, draws, index) for each in (before, after)]
        ece = [_ece(each, outcome, draws, index) for each in (before, after)]
        both = [*brier, brier[1] - brier[0], *ece, ece[1] - ece[0]]
        return cls(*((estimate.value, *estimate.interval()) for estimate in both))


@dataclass(frozen=True)
class SiteCalibration:
    """A curve, and what it is of.

    Attributes:
        study_sha256: The model's study.
        round: After which round the model is.
        task: The question, as `PredictionTask.sentence` has it.
        curve: The curve.
        fitted_on: Rows of tuning people, and outcomes among them.
        judged_on: Rows of held-out people, and outcomes among them.
        judged: What they say; None where they were too few.
    """

    study_sha256: str
    round: int
    task: str
    curve: CalibrationCurve
    fitted_on: tuple[int, int]
    judged_on: tuple[int, int]
    judged: Judged | None = field(default=None)

    @classmethod
    def of(
        cls,
        model: TrainedModel,
        task: PredictionTask,
        method: Method,
        tuning: tuple[Floats, Bool],
        held_out: tuple[Int64, Floats, Bool],
        rng: np.random.Generator,
    ) -> Self:
        """Fit and judge a curve.

        Args:
            model: Whose probabilities.
            task: Of what.
            method: Which kind of curve.
            tuning: Score and outcome of rows of tuning people.
            held_out: Subject, score and outcome of rows of held-out people.
            rng: Draws people again.

        Raises:
            IngestError: HF-352.
        """
        curve = CalibrationCurve.fit(method, *tuning)
        cases = int(held_out[2].sum())
        enough = min(cases, len(held_out[2]) - cases) >= FEWEST_TO_JUDGE
        return cls(
            study_sha256=model.study.hash,
            round=model.round,
            task=task.sentence,
            curve=curve,
            fitted_on=(len(tuning[1]), int(tuning[1].sum())),
            judged_on=(len(held_out[2]), cases),
            judged=Judged.of(curve, *held_out, rng) if enough else None,
        )

    def to_json(self) -> str:
        """Return the calibration as JSON."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, model: TrainedModel, task: PredictionTask, where: str) -> Self:
        """Return the calibration written by `to_json`.

        Args:
            text: The file.
            model: The model that it has to be of.
            task: The task that it has to be of.
            where: Names the file in an error.

        Raises:
            IngestError: It cannot be read, or is of another model or task (HF-353).
        """
        try:
            raw = json.loads(text)
            if raw.pop("format") != _FORMAT:
                raise ValueError("another format")
            curve = CalibrationCurve(**_frozen(raw.pop("curve")))
            judged = raw.pop("judged")
            judged = None if judged is None else Judged(**_frozen(judged))
            found = cls(curve=curve, judged=judged, **_frozen(raw))
            found.curve(np.array([0.5]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IngestError(353, where=where, seen="it cannot be read") from error
        if (found.study_sha256, found.round) != (model.study.hash, model.round):
            raise IngestError(353, where=where, seen="it is of another model")
        if found.task != task.sentence:
            raise IngestError(353, where=where, seen=f"it is of another task: {found.task}")
        return found


def _frozen(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}


def _brier(score: Float64, outcome: Bool, draws: Draws, index: Int64) -> Estimate:
    off = (score - outcome) ** 2
    both = [
        draws.sums(index, np.zeros(len(index), np.int64), 1, value)[:, 0]
        for value in (off, np.ones(len(off)))
    ]
    return Estimate(float(off.mean()), both[0] / both[1])


def _ece(score: Float64, outcome: Bool, draws: Draws, index: Int64) -> Estimate:
    cell = quantile_bin(score, QUANTILE_BINS)
    cells = int(cell.max()) + 1
    value = weighted_error(*bin_sums(cell, score, outcome))
    sums = [draws.sums(index, cell, cells)] + [
        draws.sums(index, cell, cells, each) for each in (score, outcome.astype(np.float64))
    ]
    return Estimate(float(value), weighted_error(*sums))


def _too_few(seen: str, wanted: str) -> IngestError:
    return IngestError(352, where="the labels to calibrate on", seen=seen, wanted=wanted)
