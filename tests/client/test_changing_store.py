"""A store that is changed while its people are tokenised: an update, or somebody forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from healthfm_client.core_local_work import CoreLocalWork
from healthfm_client.local_work import StoreSpec
from healthfm_core.errors import StoreError
from healthfm_core.training import token_cache
from tests.tokens.test_people_blocks import store_of
from tests.training.test_token_cache import study_of


@pytest.mark.parametrize("changes", [2, 3])
def test_a_site_reads_it_again_twice_and_then_says_so(
    tmp_path: Path, changes: int, monkeypatch: pytest.MonkeyPatch
):
    store = store_of(tmp_path)
    study, spec = study_of(store), StoreSpec(store.path, ("ehr", "genomics", "wearable"))
    write, left = token_cache._write, list(range(changes))

    def changing(*given: object) -> None:
        write(*given)  # type: ignore[arg-type]
        if left:
            (store.path / "metadata" / "quality.json").write_text("{}" + " " * left.pop())

    monkeypatch.setattr(token_cache, "_write", changing)
    if changes < 3:
        assert CoreLocalWork().load([spec], study).train.n_subjects > 0
        return
    with pytest.raises(StoreError, match="HF-214"):
        CoreLocalWork().load([spec], study)
