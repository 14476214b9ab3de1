"""What a report shows when it is given horizons, probes, groups, missing inputs."""

from __future__ import annotations

import html
import re
from dataclasses import asdict, replace
from itertools import product

import numpy as np
import pyarrow.parquet as pq
import pytest

from healthfm_core.evaluation import MetricRow, Predictions, metric_rows, read_rows
from healthfm_core.evaluation.analyses.missing_inputs import corruption_rows, missing_matrix
from healthfm_core.evaluation.analyses.physiology import QuantityData, ridge_probe
from healthfm_core.evaluation.analyses.probes import ProbeData, linear_probe
from healthfm_core.evaluation.analyses.smoothness import EventTimes, StateTrace, smoothness_row
from healthfm_core.evaluation.analyses.subgroups import Groups, subgroup_rows
from healthfm_core.evaluation.metrics.horizons import (
    HORIZONS_DAYS,
    FollowedQueries,
    horizon_rows,
    time_to_event_rows,
)
from healthfm_core.evaluation.report.report_page import ReportContext, render, write_report

PEOPLE = 120
INPUTS = ("ehr", "ehr+wearable", "ehr+wearable+genomics")
FEW = {"bootstraps": 10}


def draws() -> np.random.Generator:
    return np.random.default_rng(0)


def predictions(noise: float) -> Predictions:
    """Six rows of every person; some risks are above 20 %."""
    rng = np.random.default_rng(0)
    risk = rng.normal(-1.5, 1.0, PEOPLE * 6)
    spoilt = risk + noise * np.random.default_rng(1).normal(size=len(risk))
    return Predictions(
        subject=np.repeat(np.arange(PEOPLE), 6),
        site=np.zeros(len(risk), np.int32),
        target=np.tile(np.arange(6), PEOPLE).astype(np.int32),
        repeats=np.tile(np.arange(6) // 3, PEOPLE).astype(np.float32),
        score=(1 / (1 + np.exp(-spoilt))).astype(np.float32),
        outcome=rng.random(len(risk)) < 1 / (1 + np.exp(-risk)),
    )


ARMS = {"federated": predictions(0.1), "local": predictions(2.0)}


def states(seed: int, signal: float) -> tuple[ProbeData, QuantityData]:
    rng = np.random.default_rng(seed)
    outcome = rng.random(PEOPLE) < 0.4
    x = rng.normal(size=(PEOPLE, 5))
    x[:, 0] += signal * outcome
    subject = np.arange(PEOPLE)
    return ProbeData(x, outcome, subject), QuantityData(
        x, 60 + x[:, 1] + rng.random(PEOPLE), subject
    )


def over_time() -> list[MetricRow]:
    rate = np.exp(draws().normal(-1, 1, (PEOPLE, 2)))
    days = draws().exponential(1 / rate) * 365
    days[days > 3000] = np.inf
    queries = FollowedQueries(
        subject=np.arange(PEOPLE),
        site=np.zeros(PEOPLE, np.int32),
        next_days=days,
        followed_days=np.full(PEOPLE, 3000.0),
        repeats=np.zeros((PEOPLE, 2)),
    )
    risk = np.stack([1 - np.exp(-rate * h / 365) for h in HORIZONS_DAYS])
    arms = {"federated": risk, "local": draws().random(risk.shape)}
    sooner = {arm: score[-1] for arm, score in arms.items()}
    return horizon_rows(queries, arms, rng=draws(), **FEW) + time_to_event_rows(
        queries, sooner, rng=draws(), **FEW
    )


def probed() -> dict[str, list]:
    found: dict[str, list] = {"probes": [], "physiology": [], "smoothness": []}
    whole = {}
    for arm, signal in (("federated", 2.0), ("local", 0.5)):
        parts = [states(seed, signal) for seed in range(3)]
        linear = linear_probe(
            *(of for of, _ in parts), arm=arm, task="heart_failure", rng=draws(), strengths=(0.1,)
        )
        found["probes"] += linear.rows
        whole[arm] = linear.predictions
        found["physiology"] += ridge_probe(
            *(of for _, of in parts), arm=arm, target="resting_heart_rate", rng=draws(), **FEW
        )
    found["probe_scores"] = metric_rows(whole, task="heart_failure", rng=draws(), **FEW)
    t = np.tile(np.arange(5.0), PEOPLE)
    path = StateTrace(np.repeat(np.arange(PEOPLE), 5), t, draws().normal(10, 1, (len(t), 3)))
    happened = EventTimes(np.arange(PEOPLE), np.full(PEOPLE, 2.5))
    auroc = next(row for row in found["probe_scores"] if row.metric == "auroc")
    found["smoothness"].append(smoothness_row(path, happened, auroc, rng=draws(), **FEW))
    return found


def everything() -> ReportContext:
    pairs = [(a, b) for a, b in product(INPUTS, INPUTS) if set(b.split("+")) <= set(a.split("+"))]
    cells = {(a, b): predictions(4.0 - a.count("+") - b.count("+")) for a, b in pairs}
    spoilt = {
        (arm, kind, share): predictions(noise + 2 * share)
        for arm, noise in (("federated", 0.1), ("local", 1.0))
        for kind in ("removed", "noised")
        for share in (0.0, 0.5, 1.0)
    }
    sex = np.array(["F"] * 60 + ["M"] * 55 + ["X"] * 5)
    age = np.array(["40-64"] * 118 + ["<b>80</b>"] * 2)
    groups = Groups(np.arange(PEOPLE), {"sex": sex, "age": age})
    return ReportContext(
        task="next_visit",
        horizons=over_time(),
        subgroups=subgroup_rows(ARMS, groups, k=20, rng=draws(), **FEW),
        missing=missing_matrix(cells, metric="auroc", rng=draws(), **FEW),
        corruption=corruption_rows(spoilt, metric="auroc", rng=draws(), **FEW),
        **probed(),
    )


@pytest.fixture(scope="module")
def rows() -> list[MetricRow]:
    return metric_rows(ARMS, task="next_visit", rng=draws(), **FEW)


@pytest.fixture(scope="module")
def context() -> ReportContext:
    return everything()


@pytest.fixture(scope="module")
def page(rows, context) -> str:
    return render("t", rows, context)


def plain(text: str) -> str:
    """The page's words without its marks, figures or spare spaces."""
    text = re.sub(r"<(svg|style).*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def value_of(rows, **wanted) -> MetricRow:
    (found,) = [r for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]
    return found


HEADINGS = (
    "From 30 days to five years",
    "What the states hold",
    "Groups of people",
    "Missing and corrupted inputs",
)


def test_a_page_shows_what_it_is_given_and_no_more(page, rows):
    bare = render("t", rows, ReportContext(task="next_visit"))
    for heading in HEADINGS:
        assert f"<h2>{heading}</h2>" in page
        assert heading not in bare


def test_every_horizon_is_a_column_with_the_new_onsets_value(page, rows, context):
    own = value_of(
        context.horizons,
        arm="federated",
        task="within_365_days",
        subset="new_onset",
        metric="auroc",
    )
    words = plain(page)
    assert "30 days 90 days 180 days 1 year 2 years 5 years" in words
    assert f"{own.value:.3f}".lstrip("0") in words
    assert "Harrell’s C Uno’s C" in words


def test_high_risks_have_a_line_of_their_own_unless_too_few_people_have_one(page, rows, context):
    own = {
        row.metric: row.value for row in rows if (row.arm, row.subset) == ("federated", "overall")
    }
    assert own["people_above_20"] < PEOPLE
    line = f"federated {own['rows_above_20']:.0f} {own['people_above_20']:.0f}"
    assert line in plain(page)
    few = render("t", rows, replace(context, k_subgroup=int(own["people_above_20"]) + 1))
    assert line not in plain(few)


def test_probes_show_their_draws_and_all_labels_their_interval(page, context):
    few = [row.auroc for row in context.probes if (row.arm, row.k) == ("federated", 8)]
    words = plain(page)
    for value in (np.mean(few), min(few), max(few)):
        assert f"{value:.3f}".lstrip("0") in words
    whole = value_of(context.probe_scores, arm="local", subset="overall", metric="auroc")
    assert f"{whole.low:.3f} to {whole.high:.3f}".replace("0.", ".") in words


def test_a_channel_of_the_last_day_is_called_the_input_that_it_is(page):
    assert "the last day before a visit, which the model itself has read" in page
    assert "no physiology beyond it" in page


def test_smoothness_stands_beside_its_probe(page):
    assert "step in a day leap at an event probe: AUROC, heart failure" in plain(page)


def test_withheld_groups_are_named_without_a_number(page, context):
    """X has 5 of 120 people; M, the smallest other, would give it away. Both ages go."""
    words = plain(page)
    assert "Withheld by sex: M, X" in words
    assert "Withheld by age: 40-64, <b>80</b>" in words
    assert "<b>80" not in page
    assert "By age." not in words


def test_the_matrix_and_the_curves_are_drawn(page):
    figures = re.findall(r'<svg [^>]*aria-label="([^"]*)"', page)
    assert "AUROC by trained on and given" in figures
    assert "AUROC by share of the hours of wearing" in figures
    assert "AUROC by labels of each class" in figures


def test_a_cell_of_few_people_is_blank(rows, context):
    hidden = render("t", rows, replace(context, k_subgroup=121))
    own = context.missing[0]
    shown = f"{own.value:.3f}".lstrip("0")
    assert shown in re.findall(r"<svg.*?</svg>", render("t", rows, context), re.DOTALL)[-2]
    assert "AUROC by trained on and given" in hidden
    matrix = next(s for s in re.findall(r"<svg.*?</svg>", hidden, re.DOTALL) if "trained on" in s)
    assert shown not in matrix


def test_every_number_of_the_page_lies_beside_it_as_parquet(tmp_path, rows, context):
    folder = write_report(tmp_path, title="t", rows=rows, context=context).parent
    every = read_rows(folder / "metrics.json")
    table = pq.read_table(folder / "metrics.parquet").to_pylist()
    assert len(table) == len(every)
    for row, one in zip(table, every, strict=True):
        wanted = {k: None if v != v else v for k, v in asdict(one).items()}
        assert row == wanted
    assert {row["task"] for row in table} >= {"within_30_days", "time_to_event", "heart_failure"}
    for name in ("probes", "smoothness", "subgroups", "missing", "corruption"):
        assert pq.read_table(folder / f"{name}.parquet").num_rows == len(getattr(context, name))
    hidden = pq.read_table(folder / "subgroups.parquet").filter(
        pq.read_table(folder / "subgroups.parquet")["withheld"]
    )
    assert hidden["n_subjects"].null_count == hidden.num_rows > 0


def test_equal_input_gives_the_same_page(page, rows, context):
    assert render("t", rows, context) == page
