"""Spoilt inputs of every reader: a code or a sound store, never a crash, nothing left behind."""

from __future__ import annotations

import pytest

from tests.ingest.hostile import attempt


@pytest.mark.parametrize("block", range(6))
def test_a_spoilt_input_ends_in_a_code_or_a_sound_store(tmp_path, block):
    outcomes = []
    for seed in range(block * 40, block * 40 + 40):
        place = tmp_path / str(seed)
        place.mkdir()
        outcomes.append(attempt(seed, place))
    assert "stored" in outcomes
    assert set(outcomes) - {"stored"}
