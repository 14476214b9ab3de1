"""Benchmarks start, at sizes at which they say nothing."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from healthfm_core.data.store import people_blocks


@pytest.fixture
def biobank(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("biobank")


def test_a_biobank_of_a_few_hundred_goes_through_every_phase(
    biobank: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(people_blocks, "EVENTS_PER_BLOCK", 30_000)
    given = biobank.parsed(
        ["--people=400", "--events=16000", "--worn=90", "--steps=2", "--repeats=1"]
    )
    given.work = tmp_path
    found: dict[str, dict[str, Any]] = {
        name: biobank.measured(name, given) for name in biobank.PHASES
    }
    assert found["prepare"]["exact"] > 0.3
    assert found["prepare"]["items"] > 10_000
    assert 0 < found["round-2"]["s_to_load"] < found["round-2"]["s_to_first_batch"]
    assert found["evaluate"]["tuning_average_precision"] > 0
    assert found["predict"]["predicted"] == 400
    beside = found["beside memory"]
    assert beside["updates_equal"]
    assert beside["scores_equal"]
    assert all(phase["peak_mib"] > 0 for phase in found.values())
