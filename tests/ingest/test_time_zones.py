"""One rule of clocks for every reader, whatever zone the machine that reads is in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from healthfm_client.ingest import ingest
from healthfm_core.errors import ConfigError
from tests.ingest import clocks

WALL = ("1950-03-02 00:00:00", "2020-07-01 23:30:00")
UTC = ("1950-03-01 23:00:00", "2020-07-01 21:30:00")
HALF = ("1950-03-02 00:00:00", "2020-07-01 21:30:00")
"""A birth is a day without a clock; what was seen is in UTC."""
AS_WRITTEN = {
    "omop, adjusted to UTC": UTC,
    "omop, of Vienna": WALL,
    "omop, without a zone": WALL,
    "omop, text with an offset": WALL,
    "omop, text of UTC": HALF,
    "omop, text as BigQuery writes UTC": HALF,
    "omop, text with an offset apart": WALL,
    "event table, adjusted to UTC": UTC,
    "event table, of Vienna": WALL,
    "fhir, with an offset": WALL,
    "fhir, of UTC": HALF,
    "apple, with an offset": (None, WALL[1]),
    "fitbit, adjusted to UTC": (None, UTC[1]),
}


@pytest.fixture(scope="module", params=["America/New_York", "Asia/Tokyo", "UTC"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.ingest.clocks", str(tmp_path_factory.mktemp("clocks"))],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TZ": request.param},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("source", clocks.SOURCES)
def test_a_time_keeps_the_clock_that_it_was_written_with(found, source):
    said = found[f"{source}, None"]
    assert (said["born"], said["seen"]) == AS_WRITTEN[source]


@pytest.mark.parametrize("source", clocks.SOURCES)
def test_with_the_sites_zone_every_time_is_the_clock_at_the_site(found, source):
    said = found[f"{source}, {clocks.VIENNA}"]
    assert said["seen"] == WALL[1]
    assert said["born"] in (None, WALL[0])
    assert said["notices"] == 0


def test_a_time_that_is_only_shown_is_shown_in_utc_on_every_machine(found):
    assert found["DuckDB"]["zone"] == "UTC"


def test_points_in_time_without_a_zone_are_told_to_the_person_who_reads_them_in(found):
    told = {name for name, said in found.items() if said["notices"]}
    assert {name.rpartition(", ")[0] for name in told} == {
        "omop, adjusted to UTC",
        "event table, adjusted to UTC",
        "fitbit, adjusted to UTC",
    }


def test_every_reader_takes_a_zone_and_refuses_what_is_none(tmp_path):
    with pytest.raises(ConfigError, match="option time_zone: it is no IANA time zone"):
        ingest("meds", tmp_path, tmp_path / "out", time_zone="Vienna")
