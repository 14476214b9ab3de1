"""Every metric of the report: one entry each, read by all tables and figures.

To add one, write how it is estimated from a `Resampled` and add its `ReportMetric` to `METRICS`:
it is then in ``metrics.json``, in the tables it names and, where it has a column there, in the
terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float64, Floats, Int64
from healthfm_core.evaluation.metrics import calibration_error, ranking
from healthfm_core.evaluation.metrics.bootstrap import Draws, Estimate
from healthfm_core.evaluation.metrics.ranking import RANK_METRICS
from healthfm_core.evaluation.metrics.report_metric import PageTable, ReportMetric
from healthfm_core.evaluation.metrics.resampled import Resampled
from healthfm_core.evaluation.predictions import Predictions

NEXT_VISIT: Final = "next_visit"
PEOPLE_ABOVE: Final = "people_above_20"
"""How many people have a prediction above 20 %: the high-risk table needs enough of them."""


def _ranked(name: str, data: Resampled) -> Estimate:
    """A metric of ranks, its replicates from binned scores."""
    positives, negatives, cases, others = data.counts
    metric = RANK_METRICS[name]
    value = metric.exact(data.predictions.score, data.predictions.outcome)
    shift = value - float(metric.of_counts(cases, others))
    return Estimate(value, metric.of_counts(positives, negatives) + shift)


def _brier(data: Resampled) -> Estimate:
    score, outcome = data.predictions.score, data.predictions.outcome
    error = (score.astype(np.float64) - outcome) ** 2
    total, rows = data.columns(error, np.ones(len(error)))
    mean = np.divide(total, rows, out=np.full_like(total, np.nan), where=rows > 0)
    return Estimate(ranking.brier(score, outcome), mean)


def _calibration_error(
    exact: Callable[[Floats, Bool], float],
    bin_of: Callable[[Floats], Int64],
    error: Callable[[Float64, Float64, Float64], Float64],
) -> Callable[[Resampled], Estimate]:
    """Replicates of a calibration error are shifted to have the point estimate as their mean.

    The mean of |noise| is positive: unshifted, they would lie above a good model's own value.
    """

    def run(data: Resampled) -> Estimate:
        score, outcome = data.predictions.score, data.predictions.outcome
        cell = bin_of(score)
        cells = int(cell.max()) + 1
        rows = data.draws.sums(data.index, cell, cells)
        predicted = data.draws.sums(data.index, cell, cells, score.astype(np.float64))
        observed = data.draws.sums(data.index, cell, cells, outcome.astype(np.float64))
        replicates = error(rows, predicted, observed)
        value, known = exact(score, outcome), np.isfinite(replicates)
        centre = replicates[known].mean() if known.any() else value
        return Estimate(value, np.maximum(replicates - centre + value, 0.0))

    return run


def _slope(data: Resampled) -> Estimate:
    """One Newton step per replicate from the fit to everybody."""
    score, outcome = data.predictions.score, data.predictions.outcome
    intercept, slope = calibration_error.recalibrate(score, outcome)
    if not np.isfinite(slope):
        return data.undefined(slope)
    x = calibration_error.logit(score)
    p = 1.0 / (1.0 + np.exp(-(intercept + slope * x)))
    w, error = p * (1.0 - p), outcome - p
    a, b, c, g, h = data.columns(w, w * x, w * x * x, error, error * x)
    return Estimate(slope, slope + (a * h - b * g) / np.maximum(a * c - b * b, 1e-12))


def _intercept(data: Resampled) -> Estimate:
    """One Newton step per replicate from the fit to everybody."""
    score, outcome = data.predictions.score, data.predictions.outcome
    intercept = calibration_error.calibration_in_the_large(score, outcome)
    if not np.isfinite(intercept):
        return data.undefined(intercept)
    p = 1.0 / (1.0 + np.exp(-(intercept + calibration_error.logit(score))))
    w, error = data.columns(p * (1.0 - p), outcome - p)
    return Estimate(intercept, intercept + error / np.maximum(w, 1e-12))


def _rows_above(data: Resampled) -> Estimate:
    """How many rows are predicted above `calibration_error.HIGH_RISK`."""
    if data.above is None:
        return Estimate(0.0, np.zeros(len(data.draws.weight)))
    (rows,) = data.above.columns(np.ones(len(data.above.index)))
    return Estimate(float(len(data.above.index)), rows)


def _people_above(data: Resampled) -> Estimate:
    """How many subjects have such a row."""
    if data.above is None:
        return Estimate(0.0, np.zeros(len(data.draws.weight)))
    people = np.unique(data.above.index)
    return Estimate(float(len(people)), data.draws.weight[:, people].sum(1).astype(np.float64))


def _above(of: Callable[[Resampled], Estimate]) -> Callable[[Resampled], Estimate]:
    """The same metric among rows predicted above `calibration_error.HIGH_RISK`."""
    return lambda data: data.undefined() if data.above is None else of(data.above)


_ece: Final = _calibration_error(
    calibration_error.ece,
    lambda score: calibration_error.quantile_bin(score, calibration_error.QUANTILE_BINS),
    calibration_error.weighted_error,
)
_ece_uniform: Final = _calibration_error(
    calibration_error.ece_uniform,
    lambda score: calibration_error.uniform_bin(score, calibration_error.UNIFORM_BINS),
    calibration_error.unweighted_error,
)

_ENTRIES: Final = (
    ReportMetric(
        "auroc",
        "AUROC",
        "higher",
        lambda data: _ranked("auroc", data),
        tables=("discrimination", "horizon"),
        is_paired=True,
        needs_probability=False,
        next_visit_columns=("new_onset",),
        label_column=True,
        secondary_columns=("new_onset",),
    ),
    ReportMetric(
        "average_precision",
        "average precision",
        "higher",
        lambda data: _ranked("average_precision", data),
        short="AP",
        tables=("discrimination", "horizon"),
        is_paired=True,
        needs_probability=False,
        next_visit_columns=("overall", "repeat", "new_onset"),
        label_column=True,
        secondary_columns=("overall", "new_onset"),
    ),
    ReportMetric(
        "brier",
        "Brier score",
        "lower",
        _brier,
        short="Brier",
        tables=("calibration",),
        is_paired=True,
        label_column=True,
    ),
    ReportMetric(
        "ece",
        "ECE",
        "lower",
        _ece,
        tables=("calibration", "horizon"),
        label_column=True,
        secondary_columns=("overall",),
    ),
    ReportMetric(
        "ece_uniform", "ECE, uniform bins", "lower", _ece_uniform, tables=("calibration",)
    ),
    ReportMetric("slope", "calibration slope", "neither", _slope, tables=("calibration",)),
    ReportMetric(
        "intercept", "calibration in the large", "neither", _intercept, tables=("calibration",)
    ),
    ReportMetric(
        "rows_above_20",
        "predictions above 20 %",
        "neither",
        _rows_above,
        column="predictions",
        tables=("high_risk",),
        is_count=True,
    ),
    ReportMetric(
        PEOPLE_ABOVE,
        "people above 20 %",
        "neither",
        _people_above,
        column="people",
        tables=("high_risk",),
        is_count=True,
    ),
    ReportMetric(
        "ece_above_20", "ECE above 20 %", "lower", _above(_ece), column="ECE", tables=("high_risk",)
    ),
    ReportMetric(
        "slope_above_20",
        "slope above 20 %",
        "neither",
        _above(_slope),
        column="calibration slope",
        tables=("high_risk",),
    ),
    ReportMetric(
        "intercept_above_20",
        "calibration in the large above 20 %",
        "neither",
        _above(_intercept),
        column="calibration in the large",
        tables=("high_risk",),
    ),
    ReportMetric(
        "macro_auroc",
        "AUROC, mean over targets",
        "higher",
        lambda data: data.macro["auroc"],
        next_visit_only=True,
    ),
    ReportMetric(
        "macro_average_precision",
        "average precision, mean over targets",
        "higher",
        lambda data: data.macro["average_precision"],
        next_visit_only=True,
    ),
    ReportMetric(
        "harrell_c",
        "Harrell’s C",
        "higher",
        short="C",
        tables=("concordance",),
        secondary_columns=("overall",),
    ),
    ReportMetric("uno_c", "Uno’s C", "higher", tables=("concordance",)),
    ReportMetric("rmse", "RMSE", "lower", has_subsets=False),
    ReportMetric("r2", "R²", "higher", secondary_columns=("overall",), has_subsets=False),
    ReportMetric("cka", "linear CKA", "neither", short="CKA"),
    ReportMetric(
        "ms_per_query",
        "milliseconds per query",
        "lower",
        short="ms per\nquery",
        secondary_columns=("overall",),
        has_subsets=False,
    ),
)
METRICS: Final[dict[str, ReportMetric]] = {metric.name: metric for metric in _ENTRIES}
"""Name → metric, in the order of the rows and of the columns."""


def metrics_of_task(task: str) -> list[str]:
    """Return the metrics that every arm's predictions of a task are judged by."""
    return [
        name
        for name, metric in METRICS.items()
        if metric.estimate is not None and (task == NEXT_VISIT or not metric.next_visit_only)
    ]


def metrics_at_horizon(*, are_probabilities: bool) -> list[str]:
    """Return the metrics of risks within a horizon.

    Args:
        are_probabilities: False for scores that only rank people.
    """
    return [
        name
        for name, metric in METRICS.items()
        if metric.estimate is not None
        and not metric.next_visit_only
        and "high_risk" not in metric.tables
        and (are_probabilities or not metric.needs_probability)
    ]


def metrics_in(table: PageTable) -> list[str]:
    """Return the metrics that are columns of one of the page's tables."""
    return [name for name, metric in METRICS.items() if table in metric.tables]


def metric_title(name: str) -> str:
    """Write a metric's name; one without an entry as it is."""
    return METRICS[name].title if name in METRICS else name


def short_title(name: str) -> str:
    """Write a metric's name as short as can be; one without an entry as it is."""
    return METRICS[name].short_title if name in METRICS else name


def estimate(metric: str, predictions: Predictions, draws: Draws) -> Estimate:
    """Return one metric of the predictions with its replicates."""
    return estimates([metric], predictions, draws)[metric]


def estimates(names: Sequence[str], predictions: Predictions, draws: Draws) -> dict[str, Estimate]:
    """Return metrics of the predictions with their replicates.

    Args:
        names: Keys of `METRICS`.
        predictions: Rows of subjects among those drawn from; none gives NaN.
        draws: The draws; the same ones for arms that will be compared.
    """
    if len(predictions) == 0:
        nothing = Estimate(float("nan"), np.full(len(draws.weight), np.nan))
        return dict.fromkeys(names, nothing)
    data = Resampled(predictions, draws)
    return {name: _estimated(METRICS[name], data) for name in names}


def _estimated(metric: ReportMetric, data: Resampled) -> Estimate:
    if metric.estimate is None:
        raise ValueError(f"{metric.name} is not measured from predictions alone")
    return metric.estimate(data)
