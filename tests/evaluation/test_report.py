"""Rows, the page and the terminal's table."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from healthfm_core.evaluation import MetricRow, Predictions, metric_rows, read_rows, write_rows
from healthfm_core.evaluation.report.report_page import (
    HalfLives,
    ReportContext,
    SiteSummary,
    render,
    write_report,
)
from healthfm_core.evaluation.report.terminal_tables import (
    arms_table,
    arms_text,
    contrasts,
    subset_tables,
)
from healthfm_core.evaluation.report.wording import count, duration, number
from healthfm_core.federation.input_overlap import HeldAndShared, InputOverlap, SiteInputs


def predictions(noise: float, *, seed: int = 0, subjects: int = 80) -> Predictions:
    """The same 80 people, visits and outcomes whatever the noise of the score."""
    rng = np.random.default_rng(seed)
    n = subjects * 12
    risk = rng.normal(-1.5, 1.0, n)
    outcome = rng.random(n) < 1 / (1 + np.exp(-risk))
    spoilt = risk + noise * np.random.default_rng(seed + 1).normal(size=n)
    return Predictions(
        subject=np.repeat(np.arange(subjects), 12),
        site=np.repeat(np.arange(subjects) % 2, 12).astype(np.int32),
        target=np.tile(np.arange(12) % 4, subjects).astype(np.int32),
        repeats=np.tile(np.arange(12) // 6, subjects).astype(np.float32),
        score=(1 / (1 + np.exp(-spoilt))).astype(np.float32),
        outcome=outcome,
    )


ARMS = {"federated": predictions(0.1), "local": predictions(3.0), "marginal": predictions(30.0)}


@pytest.fixture(scope="module")
def rows() -> list[MetricRow]:
    return metric_rows(ARMS, task="next_visit", bootstraps=50, rng=np.random.default_rng(0))


def context(**changes: object) -> ReportContext:
    found = ReportContext(
        task="next_visit",
        lead="Simulated people.",
        sites=(
            SiteSummary("north", frozenset({"ehr", "wearable"}), 1200, 40),
            SiteSummary("tiny <b>", frozenset({"ehr"}), 13, 4),
        ),
        predictions=ARMS,
        history={
            "federated": [
                {"round": r, "metrics": {"tuning_auroc": 0.5 + r / 10, "loss_next_visit": 1 / r}}
                for r in (1, 2, 3)
            ]
        },
        half_lives=HalfLives({"layer 0": (1.0, 30.0)}, (20.0, 700.0)),
        seconds={"federated": 95.0, "local": 4.2},
        config="name: demo & more",
        notes=("A note.",),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def test_every_arm_has_every_metric_in_three_columns(rows):
    plain = [row for row in rows if not row.is_difference]
    assert {row.subset for row in plain} == {"overall", "repeat", "new_onset"}
    assert len(plain) == 3 * 3 * 14


def test_a_label_task_has_one_column():
    found = metric_rows(ARMS, task="death", bootstraps=5, rng=np.random.default_rng(0))
    assert {row.subset for row in found} == {"overall"}
    assert not any(row.metric.startswith("macro") for row in found)


def test_a_clearly_better_arm_has_a_paired_difference_above_zero(rows):
    found = {(r.arm, r.subset, r.metric): r for r in rows}
    difference = found["federated - local", "overall", "auroc"]
    apart = found["federated", "overall", "auroc"].value - found["local", "overall", "auroc"].value
    assert difference.value == pytest.approx(apart)
    assert difference.low > 0


def test_arms_on_other_rows_are_not_paired():
    fewer = ARMS["local"].where(ARMS["local"].subject < 40)
    found = metric_rows(
        {"federated": ARMS["federated"], "local": fewer},
        task="death",
        bootstraps=5,
        rng=np.random.default_rng(0),
    )
    assert not any(row.is_difference for row in found)


def test_rows_survive_the_disk_and_an_undefined_number_is_null(tmp_path):
    nothing = MetricRow("a", "t", "overall", "auroc", float("nan"), float("nan"), 1.0, 3)
    write_rows(tmp_path / "m.json", [nothing])
    assert json.loads((tmp_path / "m.json").read_text())[0]["value"] is None
    (back,) = read_rows(tmp_path / "m.json")
    assert np.isnan(back.value)
    assert back.high == 1.0


class _Tags(HTMLParser):
    VOID = frozenset({"meta", "br", "img", "path", "use", "rect", "circle", "line", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_nothing_of_the_network(tmp_path, rows):
    page = write_report(tmp_path / "out", title="A & B", rows=rows, context=context())
    text = page.read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    links = [v for k, v in tags.attributes if k in ("href", "src", "xlink:href", "srcset")]
    assert all(link is not None and link.startswith("#") for link in links)
    assert "url(http" not in text
    assert "@import" not in text
    names = {"report.html", "metrics.json", "metrics.parquet"}
    assert {path.name for path in page.parent.iterdir()} == names
    assert len(json.loads((page.parent / "metrics.json").read_text())) == len(rows)


def test_the_page_escapes_names_and_withholds_small_counts(rows):
    text = render("A & B", rows, context())
    assert "A &amp; B" in text
    assert "tiny &lt;b&gt;" in text
    assert "&lt; 20" in text
    assert ">13<" not in text


def test_who_gains_is_drawn_of_sites_that_have_both_models_and_their_difference(rows):
    drawn = render("t", rows, context(site_rows={"north": rows, "tiny <b>": rows}))
    figure = drawn.partition("Who gains by joining")[2].partition("</figure>")[0]
    intervals = re.findall(r'id="LineCollection_\d+">(.*?)</g>', figure, re.DOTALL)
    assert [lines.count("<path") for lines in intervals] == [2, 2, 2], "each point has its own"
    alone = [row for row in rows if row.arm == "federated"]
    assert "Who gains by joining" not in render("t", rows, context(site_rows={"north": alone}))


def test_the_page_shows_what_sites_share_by_domain_and_units_that_do_not_meet(rows):
    told = {
        "south <b>": {
            "coverage_shared": 0.5,
            "coverage_events/DX": 0.5,
            "coverage_shared/DX": 1.0,
            "coverage_events/LAB": 0.5,
            "coverage_shared/LAB": 0.0,
        },
        "north": {"coverage_shared": 0.25, "coverage_devices": 0.5},
    }
    unit = "LOINC//1 in mg/dL and mmol/L"
    text = render("t", rows, context(coverage=told, units_apart=[unit]))
    part = text[text.index("What the sites share") :]
    part = part[: part.index("</section>")]
    assert re.findall(r"<th[^>]*>([^<]*)</th>|<td>([^<]*)</td>", part) == [
        *((head, "") for head in ("site", "all codes", "devices read", "DX", "LAB")),
        *(("north", ""), *(("", cell) for cell in ("25 %", "50 %", "–", "–"))),
        *(("south &lt;b&gt;", ""), *(("", cell) for cell in ("50 %", "–", "100 %", "0 %"))),
    ]
    assert f"<li>{unit}</li>" in part


def test_the_page_shows_which_channels_and_scores_the_sites_share(rows):
    has = HeldAndShared(2, 1)
    of = SiteInputs(has, {"genomics": has}, {"b<i>": ("HR", "STEPS")}, {"b<i>": ("HR",)})
    inputs = InputOverlap(HeldAndShared(3, 1), {"genomics": HeldAndShared(3, 1)}, {"north": of})
    told = {"north": {"coverage_shared": 0.25}, "south": {}}
    text = render("t", rows, context(coverage=told, inputs=inputs))
    part = text[text.index("What the sites share") :]
    part = part[: part.index("</section>")]
    assert re.findall(r"<td>([^<]*)</td>", part) == [
        *("25 %", "2, 1 shared", "2, 1 shared"),
        *("–", "–", "–"),
    ]
    assert re.findall(r"<li>([^<]*)</li>", part) == [
        "Wearable channels: 1 of the study&#39;s 3 at more than one site",
        "Scores: 1 of 3 at more than one site; fewest of these at north, 1",
        "wearables at north: b&lt;i&gt; (HR, STEPS); others have HR",
    ]


def test_a_page_without_anything_but_rows_is_whole(rows):
    text = render("t", rows, ReportContext(task="next_visit"))
    assert "What the sites share" not in text
    assert "Learning curves" not in text
    assert "Sites and modalities" not in text


def test_the_share_of_the_ceiling_is_said(rows):
    own = next(
        row.value
        for row in rows
        if (row.arm, row.subset, row.metric) == ("federated", "new_onset", "average_precision")
    )
    ceiling = MetricRow(
        "ceiling", "next_visit", "new_onset", "average_precision", 2 * own, 0.0, 1.0, 80
    )
    assert "Federated reaches 50% of “ceiling”" in render("t", rows, context(ceiling=[ceiling]))


def test_models_on_fewer_inputs_get_a_table_of_their_own(rows):
    fewer = [replace(row, subset=f"ehr+wearable/{row.subset}") for row in rows]
    text = render("t", [*rows, *fewer], context())
    assert "ehr + wearable, new onsets" in text


def test_single_figures_are_on_the_page_and_on_the_disk(tmp_path, rows):
    days = MetricRow("federated", "half_lives", "layer 0 longest", "days", 456.7, np.nan, np.nan, 0)
    page = write_report(tmp_path, title="Figures", rows=rows, context=context(figures=[days]))
    assert "half lives: days, layer 0 longest" in page.read_text(encoding="utf-8")
    assert [r.value for r in read_rows(tmp_path / "metrics.json") if r.task == "half_lives"] == [
        456.7
    ]


def test_equal_input_gives_the_same_page(rows):
    assert render("t", rows, context()) == render("t", rows, context())


def test_the_terminal_table_fits_in_100_columns(rows):
    text = arms_text(rows)
    assert max(map(len, text.splitlines())) <= 100
    assert "federated" in text.splitlines()[4]
    assert re.search(r"\.\d{3} \[\.\d{3}, \.\d{3}\]", text)
    assert "federated -" not in text


def test_the_terminal_says_what_federating_and_what_each_input_adds():
    found = metric_rows(
        {"federated": predictions(0.1), "local": predictions(3.0)},
        task="death",
        bootstraps=50,
        rng=np.random.default_rng(0),
    )
    given = [
        replace(row, subset="ehr+wearable - ehr", arm="federated")
        for row in found
        if row.is_difference
    ]
    both = [replace(row, subset="ehr+wearable") for row in found if not row.is_difference]
    lines = contrasts([*found, *both, *given])
    assert len(lines) == 2
    assert re.fullmatch(r"federated − local: AUROC \+\.\d{3} \[\+\.\d{3}, \+\.\d{3}\]", lines[0])
    assert lines[1].startswith("federated, ehr + wearable − ehr: AUROC +.")
    (table,) = subset_tables([*found, *both, *given])
    assert table.columns[0].header == "ehr + wearable"
    assert table.row_count == 2


def test_the_terminal_says_how_far_the_baselines_are_given_the_same_inputs():
    found = metric_rows(
        {"federated": predictions(0.1), "gradient_boosting": predictions(3.0)},
        task="death",
        bootstraps=50,
        rng=np.random.default_rng(0),
    )
    worn = [replace(row, subset="wearable") for row in found]
    rest = [replace(row, subset=f"wearable/{row.subset}") for row in found]
    lines = contrasts([*found, *worn, *rest])
    assert [re.sub(r" \+.*", "", line) for line in lines] == [
        "federated − gradient boosting: AUROC",
        "federated − gradient boosting: AUROC given wearable",
    ]


def test_what_an_arm_leaves_out_stands_at_its_row(rows):
    said = {"all": {"fedavg": "no modality is at every site", "local": "reads ehr alone"}}
    console = Console(file=io.StringIO(), width=100)
    console.print(arms_table(rows, remarks=said))
    text = console.file.getvalue()
    assert re.search(r"\n fedavg +–", text), "an arm without a model has a line of its own"
    assert "fedavg: no modality is at every site" in text
    page = render("t", rows, context(remarks=said))
    line = re.search(r'<th scope="row" class="name">[^\n]*fedavg[^\n]*', page)
    assert line
    assert "<small>no modality is at every site</small>" in line[0]
    assert "<small>reads ehr alone</small>" in page


def test_what_an_arm_leaves_out_of_some_inputs_names_them(rows):
    given = [replace(row, subset="ehr+wearable") for row in rows if row.subset == "overall"]
    said = {"ehr+wearable": {"local": "2 of ehr"}}
    page = render("t", [*rows, *given], context(remarks=said))
    assert "<small>given ehr + wearable: 2 of ehr</small>" in page
    (table,) = subset_tables([*rows, *given], remarks=said)
    assert "local: 2 of ehr" in str(table.caption)
    assert "2 of ehr" not in str(arms_table(rows, remarks=said).caption)


def test_numbers_are_written_without_a_leading_zero_and_with_a_true_minus():
    assert number(0.1432) == ".143"
    assert number(-0.02, signed=True) == "−.020"
    assert number(0.0001, signed=True) == "+.000"
    assert number(float("nan")) == "–"
    assert number(1.0) == "1.000"


def test_counts_below_the_threshold_are_withheld():
    assert [count(n, 20) for n in (0, 1, 19, 20, 1200)] == ["0", "< 20", "< 20", "20", "1\u202f200"]
    assert [duration(s) for s in (4.2, 42.0, 200.0, 3700.0)] == [
        "4.2 s",
        "42 s",
        "3 min 20 s",
        "1 h 01 min",
    ]
