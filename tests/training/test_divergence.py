"""Training that diverged stops in one sentence, and nothing of the round is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.errors import RunError
from healthfm_core.federation.alarms import alarms
from healthfm_core.training.divergence import refuse_divergence
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.transport.exchange import too_few
from healthfm_simulations.__main__ import main
from healthfm_simulations.engine import run_federation
from tests import three_numbers as small
from tests.simulations.test_simulate_command import SMALL


def test_a_loss_or_a_weight_that_is_not_finite_is_named() -> None:
    update = {"backbone.w": np.ones(2, np.float32), "heads.label.w": np.zeros(1, np.float32)}
    refuse_divergence(3, update, {"loss_label": 0.7, "tuning_auroc": float("nan")})
    with pytest.raises(RunError, match=r"HF-726.*round 3: loss_label is not finite.*train\.lr"):
        refuse_divergence(3, update, {"loss_label": float("inf")})
    update["heads.label.w"][0] = np.nan
    with pytest.raises(RunError, match=r"HF-726.*round 3: heads\.label\.w is not finite"):
        refuse_divergence(3, update, {"loss_label": 0.7})


def test_a_rate_that_makes_every_site_diverge_ends_the_run_and_says_what_to_lower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    few = ["simulation.arms=[federated]", "train.lr=1e20", "train.warmup_rounds=0"]
    assert main([*SMALL, *few, f"out={out}"]) == 8
    said = capsys.readouterr().err
    assert "HF-726" in said
    assert "round 1: training went out of bounds at 4 of 4 sites" in said
    assert "is not finite" in said
    assert "Lower train.lr" in said
    store = RunStore.open(out / "runs" / "fold-0" / "federated")
    assert store.checkpoints.rounds() == [0]
    assert store.history() == []
    assert not (out / "metrics.json").exists()


@pytest.mark.parametrize(("wrong", "reason"), [("nan", "not finite"), ("huge", "the norm of")])
def test_one_site_that_diverges_is_left_out_and_an_alarm_says_so(
    tmp_path: Path, wrong: str, reason: str
) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    apps = small.apps({"b": wrong}, round_=2)
    result = run_federation(small.config(), nodes, tmp_path / "run", apps=apps)
    assert [row["alarms"] for row in result.history] == [
        [],
        [
            "Training diverges at some sites, whose updates are left out (lower train.lr): "
            "1 of 3 now."
        ],
        [],
    ]
    assert reason in result.history[1]["set_aside"]["b"]


def test_a_site_that_is_late_sets_off_no_alarm() -> None:
    row = {"asked": ["a", "b"], "set_aside": {"b": "it did not answer in time"}, "metrics": {}}
    assert alarms([row]) == []


def test_too_few_sites_are_told_as_divergence_only_where_most_of_them_diverged() -> None:
    lost = {"a": "RunError[HF-726]: round 3: loss_label is not finite", "b": "it was busy"}
    assert too_few("round 3", 3, 0, lost).number == 403
    assert (
        too_few("round 3", 3, 1, {**lost, "b": "the norm of group ehr exceeds 100"}).number == 726
    )


def test_a_loss_that_is_not_finite_counts_for_nothing_even_where_the_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site of an earlier release sends it all the same."""
    spoilt = small.site(tmp_path / "sites", "x", pull=float("nan"), n=5)
    monkeypatch.setattr(
        small.ClientWork, "train_round", _finite_update(small.ClientWork.train_round)
    )
    nodes = [*small.three_sites(tmp_path / "sites"), spoilt]
    result = run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())
    assert result.history[0]["set_aside"] == {"x": "loss_pull is not finite"}


def _finite_update(train_round):
    def train(self, parameters, data, *rest):
        result = train_round(self, parameters, {**data, "pull": np.nan_to_num(data["pull"])}, *rest)
        result.metrics["loss_pull"] = data["pull"]
        return result

    return train


def test_weights_that_are_not_finite_after_the_step_are_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from healthfm_server import round_loop

    step = round_loop.apply_means

    def overflowing(*given):
        parameters, optimizer = step(*given)
        parameters["backbone.w"] = parameters["backbone.w"] * np.float32(np.inf)
        return parameters, optimizer

    monkeypatch.setattr(round_loop, "apply_means", overflowing)
    nodes = small.three_sites(tmp_path / "sites")
    with pytest.raises(RunError, match=r"HF-726.*round 1: backbone\.w is not finite"):
        run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())
    store = RunStore.open(tmp_path / "run")
    assert store.checkpoints.rounds() == [0]
    assert store.history() == []


def test_a_site_does_not_score_with_answers_that_are_not_finite(monkeypatch) -> None:
    from types import SimpleNamespace

    from healthfm_core.config.compose import compose
    from healthfm_core.models.inference import Answers
    from healthfm_core.training import tuning_metrics as module

    none, nothing = np.zeros(2, np.int64), np.zeros((2, 1), np.float32)
    logit = np.array([[0.1], [np.nan]], np.float32)
    answers = Answers(
        none, none, logit, nothing > 0, nothing, nothing[:, 0], nothing, nothing[:, 0]
    )
    monkeypatch.setattr(module, "answer", lambda *given: answers)
    people = SimpleNamespace(n_subjects=1)
    loader = SimpleNamespace(sequences=people, in_order=lambda **given: iter((None,)))
    study = SimpleNamespace(config=compose([]))
    model = SimpleNamespace(heads={"next_visit"})
    with pytest.raises(RunError, match=r"HF-726.*answers that are not finite"):
        module.tuning_metrics.__wrapped__(model, loader, study)
