"""docs/science.md: every experiment has its row, and every figure is that of what the row names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from healthfm_core.config.compose import compose
from healthfm_simulations.experiments.experiment_plan import PLAN_FILE, catalogue, read_plan

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "science.md"
VERDICTS: Final = {"holds here", "does not hold here", "not shown", "not asked yet"}
FIGURE: Final = re.compile(r"[+−]?(?<![\d.])\d*\.\d+|\d+ %|\[\d+, \d+\]")
"""A number with decimals, a share, an interval of shares."""


class Row(NamedTuple):
    """One claim."""

    claim: str
    source: str
    experiment: str
    result: str
    verdict: str
    network: str
    date: str

    @property
    def file(self) -> Path | None:
        """What the row's figures are from."""
        link = re.search(r"\]\((.+?)\)", self.experiment)
        return (PAGE.parent / link[1]).resolve() if link else None


def rows() -> list[Row]:
    lines = PAGE.read_text("utf-8").splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return [Row(*row) for row in cells if row[0] != "Claim" and not set(row[0]) <= {"-"}]


ROWS: Final = rows()
ASKED: Final = [row for row in ROWS if row.verdict != "not asked yet"]


def test_every_experiment_is_named():
    named = {row.file.parent for row in ROWS if row.file is not None}
    assert [folder.name for folder in catalogue() if folder.resolve() not in named] == []


@pytest.mark.parametrize("row", ROWS, ids=[row.claim[:50] for row in ROWS])
def test_a_claim_has_a_verdict_and_what_is_asked_has_its_experiment(row: Row):
    assert row.verdict in VERDICTS
    if row.verdict == "not asked yet":
        assert (row.result, row.date) == ("–", "–")
    else:
        assert row.file is not None
        assert FIGURE.search(row.result)
        assert re.fullmatch(r"2\d{3}-\d\d-\d\d", row.date)


@pytest.mark.parametrize("row", ASKED, ids=[row.claim[:50] for row in ASKED])
def test_every_figure_is_in_the_file_that_the_row_names(row: Row):
    assert row.file is not None
    known = set(FIGURE.findall(row.file.read_text("utf-8").replace("\n# ", " ")))
    assert [figure for figure in FIGURE.findall(row.result) if figure not in known] == []


@pytest.mark.parametrize("row", ASKED, ids=[row.claim[:50] for row in ASKED])
def test_a_row_of_an_experiment_has_its_network_and_the_day_of_its_table(row: Row):
    assert row.file is not None
    if row.file.name != "README.md":
        return
    text = row.file.read_text("utf-8")
    said = f"network of {row.network} ({row.date}" in " ".join(text.split())
    if not (row.file.parent / PLAN_FILE).is_file():  # a script's, no table of healthfm-experiment
        assert said
        return
    if row.network != network(read_plan(row.file.parent).base):  # said beside the table
        assert said
        return
    stamped = re.search(r"^`healthfm-experiment .+?` · (.+?) · ", text, re.M)
    assert stamped is not None
    assert row.date == stamped[1].rpartition(" ")[2]


def network(base: Sequence[str]) -> str:
    """Return the release that first had the network of a plan."""
    model = compose(base).model
    if not model.memory or base[0] == "data=physionet2012":
        return "0.2.0"
    if model.memory_fusion == "product":
        return "0.10.0"
    return "0.3.0" if model.layer_scale is None else "0.4.0"


def test_what_does_not_hold_is_said_at_the_top():
    top = PAGE.read_text("utf-8").partition("\nHow to read it.")[0]
    said = {(PAGE.parent / link).resolve() for link in re.findall(r"\]\((.+?)\)", top)}
    assert {row.file for row in ROWS if row.verdict == "does not hold here"} <= said
