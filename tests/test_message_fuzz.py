"""Changed messages by the hundred, at a site and at the server: see `tests.message_fuzz`."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests import message_fuzz as fuzz


@pytest.mark.parametrize("federation", [{}, fuzz.SECURE], ids=["in the clear", "secure sums"])
def test_no_changed_message_crashes_a_site_or_makes_it_train_or_changes_its_folder(
    tmp_path: Path, federation: dict[str, object]
) -> None:
    report = fuzz.attack_a_site(tmp_path, 400, Random(1), **federation)
    assert fuzz.faults(report) == []
    assert sum(report.refused.values()) > 300


def test_no_changed_reply_ends_a_run_or_reaches_the_model(tmp_path: Path) -> None:
    report = fuzz.attack_a_server(tmp_path, 40, Random(1))
    assert report.wrong == []
    assert report.changes >= 40
