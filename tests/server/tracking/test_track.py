"""``healthfm-server track``: what a tracker shows is the run's history, and names no site."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_server.__main__ import main
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.tracking import following
from healthfm_server.tracking.run_parameters import run_parameters
from healthfm_server.tracking.tracked_run import TrackedRun
from healthfm_server.tracking.tracker import tracker_names, usable_tracker
from healthfm_simulations.engine import Apps, run_federation
from tests import three_numbers as small
from tests.deploy.serving import PATIENCE_S, free_port

ROUNDS = 4
SCORED = "tuning_auroc"
BLOCK = 32768
FIGURES = ("round_seconds", "sites_answered", "bytes_up")


class Scoring(small.ClientWork):
    """Each site says how the model did that it was sent."""

    def train_round(self, parameters, data, study, order, private=None, drift=None):
        result = super().train_round(parameters, data, study, order, private, drift)
        metrics = {**result.metrics, SCORED: 0.5 + order.round / 100}
        return dataclasses.replace(result, metrics=metrics)


def train(folder, until=None, resume=False, **federation):
    nodes = small.three_sites(folder.parent / f"{folder.name}-sites")
    apps = Apps(small.ServerWork(), Scoring())
    config = small.config(rounds=ROUNDS, **federation)
    run_federation(config, nodes, folder, apps=apps, until=until, resume=resume)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("tracked") / "run")


@pytest.fixture
def copied(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "run"))


def expected(folder, name):
    """Return round → what the history has of a figure."""
    rows = RunStore(folder, 1).history()
    if name == "sites_answered":
        return {row["round"]: float(len(row["answered"])) for row in rows}
    if name == "bytes_up":
        return {row["round"]: float(row["bytes"]["up"]) for row in rows}
    if name == "round_seconds":
        return {row["round"]: float(row["seconds"]) for row in rows}
    return {row["round"]: float(row["metrics"][name]) for row in rows}


def shown(folder, name):
    """Return step → value, as TensorBoard's own reader of event files sees them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    found = {}
    for event in reader.Scalars(name):
        assert event.step not in found, "twice"
        found[event.step] = event.value
    return found


def track(folder, *more, to="tensorboard"):
    return main(["track", str(folder), "--to", to, *more])


def test_tensorboard_shows_every_round_of_the_history(copied, capsys):
    assert track(copied) == 0
    assert f"run: {ROUNDS} rounds, finished" in capsys.readouterr().out
    for name in FIGURES:
        assert shown(copied / "tensorboard" / "run", name) == pytest.approx(expected(copied, name))


def test_a_score_stands_at_the_model_that_was_scored_not_at_the_round_that_says_it(copied):
    """Sites score the model before they train on it: round 1 tells of the model after none."""
    track(copied)
    told = expected(copied, SCORED)
    scores = shown(copied / "tensorboard" / "run", SCORED)
    assert scores == pytest.approx({number - 1: value for number, value in told.items()})


@pytest.mark.parametrize("times", [2, 3])
def test_asked_again_nothing_is_shown_twice(copied, times):
    for _ in range(times):
        assert track(copied) == 0
    assert sorted(shown(copied / "tensorboard" / "run", FIGURES[0])) == [*range(1, ROUNDS + 1)]
    assert len([*(copied / "tensorboard" / "run").iterdir()]) == 1


def test_no_site_no_folder_and_no_machine_is_in_an_event_file_unless_sites_are_asked_for(
    copied, monkeypatch
):
    monkeypatch.setattr(socket, "gethostname", lambda: "ward-7-server")
    track(copied)
    (file,) = (copied / "tensorboard" / "run").iterdir()
    read = file.read_bytes() + file.name.encode()
    for secret in ("site/", str(copied.parent), "ward-7-server"):
        assert secret.encode() not in read
    track(copied, "--by-site")
    (file,) = (copied / "tensorboard" / "run").iterdir()
    assert b"site/a/" in file.read_bytes()


def test_settings_that_name_folders_or_sites_are_no_parameters(copied):
    config = small.config()
    evaluation = config.evaluation.model_copy(update={"test_sites": ("north",)})
    data = config.data.model_copy(update={"path": Path("/secret/records")})
    told = run_parameters(
        config.model_copy(update={"evaluation": evaluation, "data": data, "out": Path("/secret")})
    )
    assert told["federation.rounds"] == "3"
    assert not [key for key, value in told.items() if "secret" in value or "north" in value]


def test_a_run_is_followed_to_its_end_and_a_round_that_is_done_again_is_shown_once(
    tmp_path, monkeypatch
):
    """The coordinator dies after round 2 was shown, before its checkpoint was whole."""
    folder = train(tmp_path / "run", until=2)
    looks = threading.Semaphore(0)
    monkeypatch.setattr(following, "LOOK_S", 0.02)
    look = following.Following.look

    def looked(self):
        look(self)
        looks.release()

    monkeypatch.setattr(following.Following, "look", looked)
    runs = following.Following(folder, usable_tracker("tensorboard"), "x", None, by_site=False)
    told = []
    follower = threading.Thread(
        target=lambda: told.extend(following.track(runs, folder, follow=True)), daemon=True
    )
    follower.start()
    assert looks.acquire(timeout=PATIENCE_S)
    (folder / "checkpoints" / "round-0002.json").unlink()
    train(folder, resume=True)
    follower.join(PATIENCE_S)
    assert told == [f"run: {ROUNDS} rounds, finished"]
    events = folder / "tensorboard" / "run"
    assert sorted(shown(events, FIGURES[0])) == [*range(1, ROUNDS + 1)]
    assert shown(events, FIGURES[0]) == pytest.approx(expected(folder, FIGURES[0]))


def test_a_row_that_stands_twice_in_the_history_is_one_round(copied):
    """An MLflow server would show the same step twice; only a row that differs replaces another."""
    lines = (copied / "history.jsonl").read_bytes().splitlines(keepends=True)
    changed = {**json.loads(lines[1]), "seconds": 99.0}
    (copied / "history.jsonl").write_bytes(
        b"".join([*lines, lines[-1], json.dumps(changed).encode() + b"\n"])
    )
    found = TrackedRun(copied, copied).new_rounds()
    assert [(each.number, each.is_again) for each in found] == [
        *((number, False) for number in range(1, ROUNDS + 1)),
        (2, True),
    ]


def test_arms_of_a_simulation_are_followed_until_its_results_are_there(copied, tmp_path):
    out = tmp_path / "out"
    for arm in ("federated", "fedavg"):
        shutil.copytree(copied, out / "runs" / "fold-0" / arm)
    with_results = following.Following(out, None, "x", None, by_site=False)
    with_results._runs = {Path(): _Ended()}
    assert not with_results.has_ended(), "another arm may begin"
    (out / "metrics.json").write_text("{}")
    assert with_results.has_ended()
    assert track(out) == 0
    assert {p.name for p in (out / "tensorboard" / "fold-0").iterdir()} == {"federated", "fedavg"}


class _Ended:
    ending = "finished"


def test_an_arm_has_ended_with_its_last_round_and_where_one_is_chosen_with_the_choice(
    copied, tmp_path
):
    assert TrackedRun(copied, copied).ending() == "finished"
    (copied / "history.jsonl").write_bytes(
        b"".join((copied / "history.jsonl").read_bytes().splitlines(keepends=True)[:-1])
    )
    assert TrackedRun(copied, copied).ending() == "running"
    chosen = train(tmp_path / "chosen", early_stopping={"monitor": SCORED})
    assert TrackedRun(chosen, chosen).ending() == "finished"
    track(chosen)
    events = chosen / "tensorboard" / "chosen"
    assert [*shown(events, SCORED)] == [*range(ROUNDS + 1)], "the last model was scored too"
    (chosen / "chosen-round.json").unlink()
    assert TrackedRun(chosen, chosen).ending() == "running"


def test_a_figure_that_is_not_finite_is_left_out(copied):
    lines = (copied / "history.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    row["metrics"]["loss_bad"] = math.nan
    row["metrics"]["loss_good"] = 1.5
    lines[1] = json.dumps(row)
    (copied / "history.jsonl").write_text("\n".join(lines) + "\n")
    assert track(copied) == 0
    events = copied / "tensorboard" / "run"
    assert shown(events, "loss_good") == {2: 1.5}
    with pytest.raises(KeyError):
        shown(events, "loss_bad")


def wandb_records(raw):
    """Yield the records of a .wandb file: LevelDB's log format, after seven bytes of its own."""
    whole = b""
    for start in range(0, len(raw), BLOCK):
        block, at = raw[start : start + BLOCK], 7 if start == 0 else 0
        while at + 7 <= len(block):
            _, length, kind = struct.unpack("<IHB", block[at : at + 7])
            if kind == 0:
                break
            whole += block[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # whole, or the last part
                yield whole
                whole = b""


def track_alone(folder, at):
    """Track in a process of its own: W&B leaves threads behind in one that goes on."""
    words = [sys.executable, "-m", "healthfm_server", "track", str(folder)]
    words += ["--to", "wandb", "--at", str(at)]
    env = {**os.environ, "WANDB_BASE_URL": "http://127.0.0.1:9"}  # nobody is there
    subprocess.run(words, env=env, check=True)


def test_weights_and_biases_gets_a_folder_that_sends_nothing_and_names_no_machine(copied, tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record

    track_alone(copied, tmp_path / "wb")
    (folder,) = (tmp_path / "wb" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    rounds, hosts, raw = [], set(), b""
    for data in wandb_records(file.read_bytes()):
        raw += data
        record = Record()
        record.ParseFromString(data)
        hosts |= {record.run.host} if record.HasField("run") else set()
        if record.HasField("history"):
            items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            if FIGURES[0] in items:
                rounds.append(int(float(items["round"])))
    assert rounds == [*range(1, ROUNDS + 1)]
    assert hosts == {"coordinator"}
    for secret in ("site/", str(copied)):
        assert secret.encode() not in raw, secret
    track_alone(copied, tmp_path / "wb")
    assert len([*(tmp_path / "wb" / "wandb").glob("offline-run-*")]) == 1


def test_a_server_of_mlflow_that_does_not_answer_is_one_sentence(copied, capsys):
    at = f"http://127.0.0.1:{free_port()}"
    assert track(copied, "--at", at, to="mlflow") == 8
    said = capsys.readouterr().err
    assert said.startswith("RunError[HF-731]")
    assert (said.count("\n"), at in said) == (1, True)


@pytest.mark.parametrize(
    ("at", "seen"),
    [
        ("mlruns", "is no server's address"),
        ("https://ann:secret@mlflow.example.org", "an account in the address"),
        ("https://ann@mlflow.example.org", "an account in the address"),
    ],
)
def test_an_address_that_is_none_or_tells_an_account_is_refused(copied, capsys, at, seen):
    assert track(copied, "--at", at, to="mlflow") != 0
    said = capsys.readouterr().err
    assert seen in said
    assert "secret" not in said


def test_a_tracker_that_is_not_installed_says_how(copied, capsys, monkeypatch):
    monkeypatch.setattr("healthfm_server.tracking.tracker.find_spec", lambda name: None)
    assert track(copied) == 2
    assert "pip install 'healthfm[tracking-tensorboard]'" in capsys.readouterr().err


def test_a_folder_without_a_run_is_one_sentence(tmp_path, capsys):
    assert track(tmp_path) == 8
    assert capsys.readouterr().err.startswith("RunError[HF-701]")


def test_the_trackers_are_those_that_help_names():
    assert tracker_names() == ("mlflow", "tensorboard", "wandb")
