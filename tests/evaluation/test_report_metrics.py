"""A metric of the report is one entry: a new one is measured, tabulated and plotted by itself."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.evaluation import MetricRow, metric_rows
from healthfm_core.evaluation.metrics.bootstrap import Estimate, draw_subjects
from healthfm_core.evaluation.metrics.report_metric import ReportMetric
from healthfm_core.evaluation.metrics.report_metrics import METRICS, estimate, metrics_in
from healthfm_core.evaluation.metrics.resampled import Resampled
from healthfm_core.evaluation.predictions import Predictions
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.report_page import render
from healthfm_core.evaluation.report.terminal_tables import arms_text


def _false_alarms(data: Resampled) -> Estimate:
    """The share of rows without the outcome that are scored above a half."""
    outcome, score = data.predictions.outcome, data.predictions.score
    negative = (~outcome).astype(np.float64)
    alarms, rows = data.columns((score > 0.5) * negative, negative)
    return Estimate(float(np.mean(score[~outcome] > 0.5)), alarms / np.maximum(rows, 1.0))


FALSE_ALARMS = ReportMetric(
    "false_alarms",
    "false alarms",
    "lower",
    _false_alarms,
    short="alarms",
    tables=("discrimination",),
    is_paired=True,
    label_column=True,
)


def _predictions(noise: float) -> Predictions:
    risk = np.linspace(0.05, 0.95, 200)
    score = np.clip(risk + noise * np.sin(np.arange(200)), 0.0, 1.0)
    return Predictions(
        subject=np.arange(200),
        site=np.zeros(200, np.int32),
        target=np.zeros(200, np.int32),
        repeats=np.zeros(200, np.float32),
        score=score.astype(np.float32),
        outcome=risk > 0.6,
    )


@pytest.fixture
def rows(monkeypatch) -> list[MetricRow]:
    monkeypatch.setitem(METRICS, FALSE_ALARMS.name, FALSE_ALARMS)
    arms = {"federated": _predictions(0.0), "local": _predictions(0.8)}
    return metric_rows(arms, task="death", bootstraps=20, rng=np.random.default_rng(0))


def test_a_new_metric_is_estimated_with_its_interval_and_its_differences(rows):
    of = {row.arm: row for row in rows if row.metric == "false_alarms"}
    assert list(of) == ["federated", "local", "federated - local"]
    assert of["federated"].value == pytest.approx(22 / 122)
    assert of["federated"].low <= of["federated"].value <= of["federated"].high


def test_a_new_metric_has_a_column_in_the_terminal_and_on_the_page(rows):
    assert "alarms" in arms_text(rows).splitlines()[1]
    html = render("t", rows, ReportContext(task="death"))
    assert "<th>false alarms</th>" in html.replace('<th scope="col">', "<th>")


def test_fewer_false_alarms_are_marked_as_better(rows):
    (difference,) = (r for r in rows if r.metric == "false_alarms" and r.is_difference)
    assert difference.high < 0
    html = render("t", rows, ReportContext(task="death"))
    assert 'class="up">−' in html


def test_every_metric_has_a_name_of_its_own():
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    titles = [metric.title for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)


def test_the_task_s_own_metric_comes_first_in_its_tables():
    assert metrics_in("discrimination") == ["auroc", "average_precision"]
    assert metrics_in("high_risk")[:2] == ["rows_above_20", "people_above_20"]


def test_what_is_not_measured_from_predictions_says_so():
    found = _predictions(0.0)
    draws = draw_subjects(found.subject, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="harrell_c is not measured from predictions"):
        estimate("harrell_c", found, draws)
