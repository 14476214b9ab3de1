"""The two journeys are no longer than at first, and re-enter files by named interfaces only."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.journeys import ROOT

FIRST = {"A raw OMOP row to its loss": (441, 153), "A round from the command": (226, 102)}
"""Begin of a journey's title → functions and returns at the first commit that they were counted.

Who adds what no earlier release did, and cannot save as much elsewhere, raises them and says why.
"""
COUNTS = re.compile(r"(\d+) functions in .*; (\d+) returns to a file")


@pytest.fixture(scope="module")
def page() -> str:
    """Return docs/journeys.md, followed anew."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.journeys", "--page"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.slow
def test_no_file_is_reentered_but_through_a_named_interface(page):
    assert page.count("\n## ") == 2
    assert "`InProcessGrid.push_messages`" in page, "nothing was measured"
    assert "no named interface" not in page


@pytest.mark.slow
@pytest.mark.parametrize("title", FIRST)
def test_a_journey_is_no_longer_than_at_the_first_commit(page, title):
    counted = COUNTS.match(page.partition(f"\n## {title}")[2].partition("\n\n")[2])
    assert counted, "the page has no counts"
    functions, returns = map(int, counted.groups())
    assert (functions, returns) <= FIRST[title]
    assert returns <= FIRST[title][1]
