"""The run folder: whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from healthfm_core.errors import RunError
from healthfm_core.federation.aggregation.server_optimizer import OptimizerState
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.run_folder.run_store import RunStore
from tests import three_numbers as small


def _state(round_: int) -> ServerState:
    weights = {"backbone.w": np.float32([round_, 2, 3]), "backbone.b": np.array(1, np.float32)}
    moments = OptimizerState(first={"backbone.w": np.float32([0, 0, round_])})
    return ServerState(round_, weights, moments)


def _store(folder: Path, rounds: int = 3, keep: int = 9) -> RunStore:
    store = RunStore.create(folder / "run", small.config(keep_checkpoints=keep))
    store.save(_state(0))
    for round_ in range(1, rounds + 1):
        store.save(_state(round_), {"round": round_})
    return store


def test_what_was_saved_comes_back_for_any_round(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for round_ in (0, 1, 2, 3):
        state = store.checkpoints.load(round_)
        assert state is not None
        assert state.round == round_
        np.testing.assert_array_equal(state.parameters["backbone.w"], np.float32([round_, 2, 3]))
        np.testing.assert_array_equal(state.optimizer.first["backbone.w"][2], round_)
    assert store.checkpoints.load() is not None
    assert store.history() == [{"round": 1}, {"round": 2}, {"round": 3}]


def test_only_the_latest_checkpoints_are_kept(tmp_path: Path) -> None:
    store = _store(tmp_path, rounds=5, keep=2)
    assert store.checkpoints.rounds() == [4, 5]
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 6


def test_going_back_forgets_what_came_later(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.forget_after(1)
    assert store.checkpoints.rounds() == [0, 1]
    assert store.history() == [{"round": 1}]


def test_a_round_that_is_not_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"HF-701.*no checkpoint of round 7.*0, 1, 2, 3"):
        _store(tmp_path).checkpoints.load(7)


@pytest.mark.parametrize("name", ["round-0003.safetensors", "round-0003.optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty"])
def test_a_damaged_checkpoint_is_said_to_be(tmp_path: Path, name: str, damage: str) -> None:
    store = _store(tmp_path)
    path = tmp_path / "run" / "checkpoints" / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"flip": flipped, "cut": data[:-4], "empty": b""}[damage])
    with pytest.raises(RunError, match=f"HF-703.*{name}"):
        store.checkpoints.load()
    assert store.checkpoints.load(2) is not None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"sha256": []}', '{"sha256": {"../x": "0"}}'])
def test_a_damaged_marker_is_said_to_be(tmp_path: Path, text: str) -> None:
    store = _store(tmp_path)
    (tmp_path / "run" / "checkpoints" / "round-0003.json").write_text(text)
    with pytest.raises(RunError, match="HF-703"):
        store.checkpoints.load()


def test_a_checkpoint_without_its_marker_is_no_checkpoint(tmp_path: Path) -> None:
    """As a kill between the files leaves it."""
    store = _store(tmp_path)
    (tmp_path / "run" / "checkpoints" / "round-0003.json").unlink()
    (tmp_path / "run" / "checkpoints" / ".round-0003.json.tmp").write_text('{"rou')
    state = store.checkpoints.load()
    assert state is not None
    assert state.round == 2


def test_a_row_cut_short_by_a_kill_is_left_out_and_the_next_begins_its_own_line(
    tmp_path: Path,
) -> None:
    store = _store(tmp_path)
    with (tmp_path / "run" / "history.jsonl").open("a") as file:
        file.write('{"round": 4, "sec')
    assert [row["round"] for row in store.history()] == [1, 2, 3]
    store.save(_state(4), {"round": 4})
    assert [row["round"] for row in store.history()] == [1, 2, 3, 4]


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="HF-701"):
        RunStore.resume(tmp_path / "nothing", small.config())
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_configuration_is_said_to_be(tmp_path: Path) -> None:
    _store(tmp_path)
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(RunError, match="HF-703"):
        RunStore.resume(tmp_path / "run", small.config(keep_checkpoints=9))


def test_the_folder_and_the_engine_may_change_at_a_resume(tmp_path: Path) -> None:
    _store(tmp_path)
    config = small.config(keep_checkpoints=9).model_copy(update={"out": "there", "resume": True})
    assert RunStore.resume(tmp_path / "run", config).checkpoints.rounds() == [0, 1, 2, 3]


def test_events_carry_their_time(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.note("set aside", round=2, site="a", reason="why")
    (event,) = store.events()
    assert event.pop("at").endswith("+00:00")
    assert event == {"event": "set aside", "round": 2, "site": "a", "reason": "why"}


def test_a_run_is_held_by_one_process_and_let_go_by_a_kill(tmp_path: Path) -> None:
    store = _store(tmp_path)
    held = f"""
import pathlib, signal
from healthfm_server.run_folder.run_store import RunStore
with RunStore.open(pathlib.Path({str(tmp_path / "run")!r})).held():
    print("held", flush=True)
    signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(RunError, match="HF-724"), store.held():
            pass
        other.kill()
    with store.held():
        pass


@pytest.mark.skipif(
    not Path("/dev/full").exists(),
    reason="/dev/full, which refuses every write as a full disk does, is Linux's alone",
)
@pytest.mark.parametrize("name", ["history.jsonl", "checkpoints/.round-0004.safetensors.tmp"])
def test_a_full_disk_is_said_and_the_rounds_before_stay(tmp_path: Path, name: str) -> None:
    store = _store(tmp_path)
    path = tmp_path / "run" / name
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"HF-725.*No space left"):
        store.save(_state(4), {"round": 4})
    last = store.checkpoints.load()
    assert last is not None
    assert last.round == 3
