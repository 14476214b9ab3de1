"""Arms that are trained by several processes are those that one process trains."""

from __future__ import annotations

import multiprocessing
import os
import signal
from io import StringIO

import pytest
from rich.console import Console

from healthfm_core.config.compose import compose
from healthfm_core.errors import HealthFMError, RunError
from healthfm_simulations.arms import arms_of_fold
from healthfm_simulations.arms.arms_of_fold import ArmsOfFold
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.run_bar import RunProgressBar
from healthfm_simulations.sites import prepare_sites

SMALL = [
    "data.cohort.subjects=160",
    "data.cohort.sites=3",
    "data.cohort.years=2",
    "tokens.k_min=5",
    "model.width=16",
    "model.ffn=32",
    "rounds=2",
    "train.max_steps=2",
    "federation.evaluate_every=0",
]


TWO = ("simulation.workers=2", "simulation.arms=[federated,centralised]")


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    return prepare_sites(compose(SMALL), tmp_path_factory.mktemp("sites"))


def arms_of(sites, folder, *settings):
    config = compose([*SMALL, *settings])
    (fold,) = cross_validation_folds(config, sites)
    console = Console(file=StringIO(), width=200)
    return ArmsOfFold(config, fold, folder, RunProgressBar(console, 1.0), console)


def weights(folder):
    files = folder.rglob("round-0002.safetensors")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def of_two(arms):
    """Return the weights of the arms of `TWO` among those of all."""
    found = weights(arms.folder).items()
    return {name: one for name, one in found if "federated" in name or "centralised" in name}


@pytest.fixture(scope="module")
def one_by_one(sites, tmp_path_factory):
    arms = arms_of(sites, tmp_path_factory.mktemp("one"), "simulation.workers=1")
    arms.train()
    return arms


def test_weights_are_the_same_bits_from_one_process_and_from_two(sites, one_by_one, tmp_path):
    arms = arms_of(sites, tmp_path, "simulation.workers=2")
    arms.train()
    assert weights(tmp_path) == weights(one_by_one.folder)
    assert len(weights(tmp_path)) == 3 + len(sites)
    assert list(arms.trained) == ["federated", "fedavg", "local", "centralised"]
    for arm, trained in arms.trained.items():
        assert trained.models.keys() == one_by_one.trained[arm].models.keys()
        assert len(trained.history) == 2
        assert trained.seconds > 0


def test_an_arm_whose_process_was_killed_is_trained_by_who_asked(
    sites, one_by_one, tmp_path, monkeypatch
):
    asked = arms_of_fold.train_side_by_side

    def kill_once(*args, on_progress, **kwargs):
        def kill(*_):
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGKILL)

        return asked(*args, on_progress=kill, **kwargs)

    monkeypatch.setattr(arms_of_fold, "train_side_by_side", kill_once)
    arms = arms_of(sites, tmp_path, *TWO)
    arms.train()
    assert weights(tmp_path) == of_two(one_by_one)
    assert "not finished side by side, so one at a time now" in arms.console.file.getvalue()


def test_what_an_arm_cannot_do_is_told_as_one_process_tells_it(sites, tmp_path):
    alone = ("federation=secure", "federation.aggregation.secure.min_sites=9")
    said = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        arms = arms_of(sites, folder, *TWO, *alone, f"simulation.workers={workers}")
        with pytest.raises(HealthFMError, match="HF-") as raised:
            arms.train()
        said.append(str(raised.value))
    assert said[0] == said[1]


def test_an_interruption_ends_the_processes_and_the_run_goes_on(
    sites, one_by_one, tmp_path, monkeypatch
):
    asked = arms_of_fold.train_side_by_side

    def interrupted(*args, on_progress, **kwargs):
        def interrupt(*_):
            raise KeyboardInterrupt

        return asked(*args, on_progress=interrupt, **kwargs)

    arms = arms_of(sites, tmp_path, *TWO)
    with monkeypatch.context() as patch:
        patch.setattr(arms_of_fold, "train_side_by_side", interrupted)
        with pytest.raises(RunError, match="HF-705"):
            arms.train()
    assert not multiprocessing.active_children()
    arms_of(sites, tmp_path, *TWO, "simulation.workers=1").train()
    assert weights(tmp_path) == of_two(one_by_one)
