"""Changed messages by the hundred, at a site and at the server: see `tests.message_fuzz`."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests import message_fuzz as fuzz


def test_no_changed_reply_ends_a_run_or_reaches_the_model(tmp_path: Path) -> None:
    report = fuzz.attack_a_server(tmp_path, 40, Random(1))
    assert report.wrong == []
    assert report.changes >= 40
