"""docs/where-to-add.md: its files are there, and the registries find what is put into a folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "where-to-add.md").read_text("utf-8")
ROWS = re.findall(r"^\| ([a-zA-Z ]+) \| (\d)[^|]* \| (.*) \|$", PAGE, re.MULTILINE)
MOST = {"modality encoder": 4, "attention variant": 6}


@pytest.mark.parametrize(("what", "count", "files"), ROWS, ids=[row[0] for row in ROWS])
def test_the_files_are_there_and_few(what: str, count: str, files: str):
    paths = [path for path in re.findall(r"`([^`]+)`", files) if "/" in path]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert int(count) <= MOST.get(what, 3)


def test_every_kind_that_grows_is_on_the_page():
    assert [row[0] for row in ROWS] == [
        "reader",
        "aggregation strategy",
        "modality encoder",
        "objective",
        "report metric",
        "CLI command",
        "privacy mechanism",
        "attention variant",
        "partition",
        "tracker",
        "exit code",
    ]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("client/healthfm_client/ingest/readers", "READER"),
        ("healthfm_core/federation/aggregation", "METHODS"),
        ("simulations/healthfm_simulations/partition", "PARTITION"),
        ("client/healthfm_client/commands", "COMMAND"),
        ("server/healthfm_server/commands", "COMMAND"),
        ("server/healthfm_server/tracking/trackers", "TRACKER"),
    ],
)
def test_what_a_folder_s_registry_looks_for_is_what_its_modules_say(folder: str, name: str):
    wanted = re.compile(rf"^{name}\b", re.MULTILINE)
    assert any(wanted.search(file.read_text("utf-8")) for file in (ROOT / folder).glob("*.py"))
