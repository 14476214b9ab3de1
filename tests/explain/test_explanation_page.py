"""The page shows one person, in plain words, and is one file."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.explain import explain, explanation_html
from healthfm_core.explain.explanation_page import ExplanationRow
from healthfm_core.explain.naming import CodeNames, named
from tests.explain.conftest import OUTCOME, QUIET, SIGNAL


@pytest.fixture(scope="module")
def explanation(planted):
    return explain(
        planted.model,
        planted.store,
        planted.long_record,
        targets=[OUTCOME, QUIET],
        horizon_days=90.0,
    )


@pytest.fixture(scope="module")
def html(explanation) -> str:
    return explanation_html(explanation)


def test_no_other_subject_is_on_the_page(html, planted):
    every = set(map(str, planted.store.subjects().tolist()))
    assert set(re.findall(r"\d{7,}", html)) & every == {str(planted.long_record)}


def test_the_page_needs_no_other_file_and_runs_nothing(html):
    assert re.findall(r"<(?:script|link|img|iframe)\b", html) == []
    links = re.findall(r"""(?:src|href)\s*=\s*["'](?!#)[^"']*""", html)
    assert links == []
    assert "@import" not in html


def test_the_page_says_that_it_stays(html):
    assert "about one person" in html
    assert "stays here" in html


def test_names_are_written_as_the_site_describes_them(html):
    assert html.count("pays $5 &amp; more (DX//SIGNAL)") >= 2  # the chart and the table
    assert named(SIGNAL, {}) == SIGNAL


def test_the_table_holds_the_numbers_of_the_explanation(html, explanation):
    found = explanation.targets[0].contributions
    top = max((c for c in found if c.part.kind == "event"), key=lambda c: abs(c.log_odds))
    assert f"{abs(top.log_odds):.3f}</td>" in html
    unread = sum(c.part.kind == "event" and not c.read for c in found)
    assert f"{unread} older events" in html
    now = 100 * explanation.targets[0].risk[explanation.chosen]
    assert f"Risk within 90 days: {now:.1f} %" in html


def test_a_long_name_is_cut_before_its_date_in_the_chart():
    row = ExplanationRow("a" * 60, "", "2020-01-01", "+0.100", "+1.00", 0.1)
    assert row.label == "a" * 43 + "…, 2020-01-01"
    assert replace(row, name="age", when="").label == "age"


def test_every_layer_and_head_is_drawn(html, explanation):
    for head in explanation.memories:
        assert f"layer {head.layer + 1} · head {head.head + 1}" in html


def test_the_same_explanation_gives_the_same_page(html, explanation):
    assert explanation_html(explanation) == html


def test_a_model_without_a_kernel_has_no_half_lives_to_show(explanation):
    assert "remembers" not in explanation_html(replace(explanation, memories=()))


def test_a_short_record_is_told_by_the_hour(explanation):
    last = explanation.time_us[-1:]
    short = replace(
        explanation,
        time_us=last,
        worn_us=last[:0],
        chosen=0,
        targets=tuple(
            replace(t, risk=t.risk[-1:], recorded=t.recorded[-1:]) for t in explanation.targets
        ),
    )
    moment = str(np.datetime64(int(last[0]), "us").astype("datetime64[m]")).replace("T", " ")
    assert f"asked after the one of {moment}" in explanation_html(short)
    assert f"asked after the one of {moment[:10]}" in explanation_html(explanation)
    assert f"asked after the one of {moment}" not in explanation_html(explanation)


def test_codes_the_study_has_not_are_called_unknown(planted):
    vocabulary = planted.model.study.vocabulary
    names = CodeNames.of(vocabulary, planted.store)
    assert len(names.codes) == vocabulary.n_codes
    index, _ = vocabulary.look_up([SIGNAL, "DX//NEVER", "NEVER"], {})
    assert [names.code(int(i)) for i in index] == [
        f"pays $5 & more ({SIGNAL})",
        "a code unknown to the study (DX)",
        "a code unknown to the study",
    ]
    assert names.quantile(-1.0) == "higher than 0 % of the study's"
    assert names.quantile(0.99) == "higher than 99 % of the study's"
