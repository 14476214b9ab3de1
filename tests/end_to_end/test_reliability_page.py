"""The page says what was injected and came of it, and no more."""

from __future__ import annotations

from tests.end_to_end import reliability
from tests.end_to_end.reliability import STORM, Outcome, kept, page, write


def test_a_row_tells_of_runs_that_did_not_finish_and_rounds_that_are_gone():
    runs = [Outcome("node", 1, True, 10.0, 1, [], ["round 2: north: late"], rounds=4)]
    runs += [Outcome("node", 0, True, 40.0, 3, [2], rounds=4)]
    runs += [Outcome("node", 0, False, 20.0, 1, [], rounds=4)]
    (row,) = [line for line in page(runs).splitlines() if "node is killed" in line]
    assert row == (
        "| a site's node is killed | 1 of 3 | 20 (40) | 2 "
        "| rounds; 1 times a site's part of a round |"
    )


def test_storms_are_counted_kill_by_kill():
    hit = ["node after round 1", "node after round 2", "gateway after round 2"]
    runs = [Outcome(STORM, 0, True, 90.0, 2, [], [], hit, 8)]
    runs += [Outcome(STORM, 0, False, 60.0, 1, [], [], hit[:1], 8)]
    text = " ".join(page(runs).split())
    assert "1 of 2 runs of 8 rounds finished" in text
    assert "after 4 kills (superlink 0," in text
    assert "node 3" in text
    assert "gateway 1" in text


def test_what_is_not_injected_again_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(reliability, "RESULTS", tmp_path / "results" / "chaos.json")
    monkeypatch.setattr(reliability, "PAGE", tmp_path / "page.md")
    assert kept(but=set()) == []
    runs = [Outcome("node", 1, True, 10.0, 1, []), Outcome("gateway", 1, True, 10.0, 1, [])]
    write(runs)
    assert kept(but={"node"}) == runs[1:]
    assert (tmp_path / "page.md").read_text() == page(runs)
