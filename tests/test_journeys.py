"""The two journeys grow only where somebody says why, and re-enter files by named interfaces."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.journeys import ROOT

LONGEST = {"A raw OMOP row to its loss": (610, 224), "A round from the command": (315, 129)}
"""Begin of a journey's title → functions and returns that it may have.

At the first commit that they were counted they were (427, 147) and (209, 92). 0.5.0 looks at one
person in several stores on the first; on the second at the form, the addressee, the nonce and the
signature of every order, and at what one site weighs. 0.6.0 says what the sites' codes share: the
statistics are merged before the model's set-up sees them, on the second journey too. Who adds what
no earlier release did, and cannot save as much elsewhere, raises them and says why. 0.6.0 also
respells units, asks each file for its times' zones, and looks at what share was set aside. 0.8.0
holds a first round's updates on disk until all are there, so that none is too long in it, and notes
whom a run waits for, so that a person can read it. 0.8.0 asks on the first whom the store that is
replaced has forgotten, keeps what was found of its quality, and passes on the files that a reader
has beside its source (a mapping file) and columns that are not read with others. Whoever opens a
store asks for the files of its updates, and an ingest notes what it reads, for an update to know;
which event each one equals is told apart, since an update asks it. Counts of people are added up
over the sites where other metrics are averaged. A run may name codecs for the updates and for the
model, which are asked for on both journeys. How long each site took stands in the history.
A configuration may name a key as the minor version before did: two functions of the second. Whether
something is asked, and the site has the label that alone is, is looked at before it is trained.
The coordinator asks a clock that may be a simulation's what time it is; settings say a network, a
plan and how few bits a masked sum may have, and what of these does not go together is refused.
A site's people are read in blocks, tokenised into files beside the store and read from there, so
that they need not fit in memory; what a row is made of is worked out when it is read. Site and
coordinator ask whether a round is one of regression, and a model whether its memories give one
mean. A round waits by how long each site took, and a coordinator looks whether sites are to judge
the model. What a site checks before it begins stands in a function of its own, which a dry run
asks as well. How fast a round learns says how far its updates may go.
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
@pytest.mark.parametrize("title", LONGEST)
def test_a_journey_is_no_longer_than_it_was(page, title):
    counted = COUNTS.match(page.partition(f"\n## {title}")[2].partition("\n\n")[2])
    assert counted, "the page has no counts"
    functions, returns = map(int, counted.groups())
    assert (functions, returns) <= LONGEST[title]
    assert returns <= LONGEST[title][1]
