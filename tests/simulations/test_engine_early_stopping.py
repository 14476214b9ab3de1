"""A federation that stops early, or ends with its best round's model: the same after any kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import tests.quiet_flower  # noqa: F401
from healthfm_core.arrays import Float32
from healthfm_core.config import PrivacyConfig
from healthfm_core.errors import RunError
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.privacy.ledger import Ledger
from healthfm_core.trained import CARD
from healthfm_server.registry.model_export import export_model
from healthfm_server.run_folder.run_description import describe_run
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import Apps, FederationResult, NodeSpec, run_federation
from tests import three_numbers as small

METRIC = "tuning_auroc"


class ScoringWork(small.ClientWork):
    """The small model, scored by how near its backbone is to 1.9, half-way to where it goes."""

    def train_round(
        self,
        parameters: Mapping[str, Float32],
        data: Any,
        study: Study,
        order: RoundOrder,
        private: Any = None,
        drift: Any = None,
    ) -> RoundResult:
        score = 1 - abs(float(np.mean(parameters["backbone.w"])) - 1.9)
        result = super().train_round(parameters, data, study, order, private, drift)
        metrics = {**result.metrics, METRIC: score} if order.evaluate else dict(result.metrics)
        if not order.train:
            zeros = {name: np.zeros_like(array) for name, array in result.update.items()}
            return replace(result, update=zeros, metrics=metrics, learning_rate_sum=0.0)
        return replace(result, metrics=metrics)


APPS = Apps(small.ServerWork(), ScoringWork())


def federate(folder: Path, until: int | None = None, **federation: Any) -> FederationResult:
    stopping = {"monitor": METRIC, **federation.pop("early_stopping", {})}
    config = small.config(**{"rounds": 8, "early_stopping": stopping, **federation})
    nodes = small.three_sites(folder.parent / "sites")
    return run_federation(config, nodes, folder, resume=True, apps=APPS, until=until)


def values(result: FederationResult) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in result.parameters.items()}


def test_the_run_stops_when_patience_is_out_and_gives_the_best_round_s_weights(
    tmp_path: Path,
) -> None:
    """The pulls' mean is 2.33: from 1 over about 1.67 and 2.0, the best, on to 2.33."""
    result = federate(tmp_path / "run", early_stopping={"patience": 2}, keep_checkpoints=1)
    choice = result.choice
    assert choice is not None
    assert (choice.round, choice.trained, choice.rounds) == (2, 5, 8)
    assert sorted(choice.scores) == [0, 1, 2, 3, 4]
    assert len(result.history) == 5
    plain = small.config(rounds=2)
    short = run_federation(plain, small.three_sites(tmp_path / "sites"), tmp_path / "2", apps=APPS)
    assert values(result) == values(short)


def test_all_rounds_are_trained_without_patience_and_the_last_model_is_scored_too(
    tmp_path: Path,
) -> None:
    result = federate(tmp_path / "run")
    assert result.choice is not None
    assert sorted(result.choice.scores) == list(range(9))
    assert result.choice.round == 2
    last = federate(tmp_path / "last", early_stopping={"restore_best": False})
    assert last.choice is not None
    assert last.choice.round == 8
    assert last.choice.value == result.choice.scores[8]
    mean = float(np.mean(last.parameters["backbone.w"]))
    assert last.choice.value == pytest.approx(1 - abs(mean - 1.9))
    store = RunStore.open(tmp_path / "last")
    assert [row["round"] for row in store.history()] == list(range(1, 9))


def test_choosing_changes_no_weight_of_any_round(tmp_path: Path) -> None:
    chosen = federate(tmp_path / "run", early_stopping={"restore_best": False})
    plain = small.config(rounds=8)
    nodes = small.three_sites(tmp_path / "sites")
    assert values(chosen) == values(run_federation(plain, nodes, tmp_path / "plain", apps=APPS))


def test_secure_sums_and_control_variates_take_part_in_the_choice(tmp_path: Path) -> None:
    plain = federate(tmp_path / "plain")
    assert plain.choice is not None
    for name, aggregation in (
        ("secure", {"secure": {"enabled": True, "min_sites": 3, "threshold": 0.6, "clip": 50.0}}),
        ("scaffold", {"method": "scaffold"}),
    ):
        result = federate(tmp_path / name, aggregation=aggregation)
        assert result.choice is not None
        assert sorted(result.choice.scores) == list(range(9)), name
        assert result.choice.round in (1, 2, 3)


def test_the_exported_model_and_what_is_said_of_the_run_are_the_chosen_round_s(
    tmp_path: Path,
) -> None:
    result = federate(tmp_path / "run")
    assert export_model(tmp_path / "run", tmp_path / "model") == 2
    assert result.choice is not None
    assert result.choice.sentence() in list(describe_run(tmp_path / "run"))
    assert export_model(tmp_path / "run", tmp_path / "eight", 8) == 8
    chosen, last = ((tmp_path / name / CARD).read_text() for name in ("model", "eight"))
    scores = result.choice.scores
    eighth, best = f"{scores[8]:.3f} (round 8)", f"{scores[2]:.3f} (round 2)"
    assert f"| tuning_auroc | {best} | {eighth} | {best} |" in chosen
    assert f"| tuning_auroc | {eighth} | {eighth} | {best} |" in last
    assert result.choice.sentence() in chosen
    assert "| a | ehr, wearable | 2 of 2 |" in chosen
    assert "| a | ehr, wearable | 8 of 8 |" in last
    assert f"Run `run`, id `{result.study.run_id}`: 2 rounds are in this" in chosen


@pytest.mark.parametrize("patience", [2, None])
@pytest.mark.parametrize("until", [1, 4])
def test_a_run_stopped_anywhere_and_resumed_chooses_the_same_to_the_bit(
    tmp_path: Path, until: int, patience: int | None
) -> None:
    given = {"early_stopping": {"patience": patience}, "keep_checkpoints": 1}
    federate(tmp_path / "run", until=until, **given)
    assert RunStore.open(tmp_path / "run").choice() is None
    resumed, whole = federate(tmp_path / "run", **given), federate(tmp_path / "whole", **given)
    assert values(resumed) == values(whole)
    assert resumed.choice == whole.choice
    assert federate(tmp_path / "run", **given).choice == whole.choice


KILLED = """
import os, signal, sys
from pathlib import Path
from healthfm_server.run_folder.run_store import RunStore
from tests.simulations.test_engine_early_stopping import federate

def killed(self, choice):
    os.kill(os.getpid(), signal.SIGKILL)

RunStore.save_choice = killed
federate(Path(sys.argv[1]) / "run")
"""


def test_killed_before_the_choice_is_written_it_is_made_again(
    tmp_path: Path, repository: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert RunStore.open(tmp_path / "run").choice() is None
    resumed, whole = federate(tmp_path / "run"), federate(tmp_path / "whole")
    assert values(resumed) == values(whole)
    assert resumed.choice == whole.choice


def test_a_damaged_choice_is_told_and_not_taken(tmp_path: Path) -> None:
    federate(tmp_path / "run")
    (tmp_path / "run" / "chosen-round.json").write_text("{}")
    with pytest.raises(RunError, match="HF-703"):
        export_model(tmp_path / "run", tmp_path / "model")


def test_sites_that_report_no_such_metric_leave_the_last_round(tmp_path: Path) -> None:
    config = small.config(rounds=3, early_stopping={"monitor": METRIC, "patience": 1})
    nodes = small.three_sites(tmp_path / "sites")
    result = run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    assert result.choice is not None
    assert (result.choice.round, result.choice.value) == (3, None)


def test_scoring_the_last_model_costs_no_privacy_and_is_not_in_the_site_s_ledger(
    tmp_path: Path,
) -> None:
    private = {"mode": "dp", "noise_multiplier": 4.0, "tuning_metrics": True}
    plain = small.config(rounds=3, early_stopping={"monitor": METRIC, "restore_best": False})
    config = plain.model_copy(update={"privacy": PrivacyConfig.model_validate(private)})
    a, b, c = small.three_sites(tmp_path / "sites")
    file = tmp_path / "a.yaml"
    rules = {"epsilon_max": 500.0, "ledger": "a.jsonl"}
    file.write_text(yaml.safe_dump({"privacy": rules}))
    nodes = [NodeSpec(a.name, a.stores, file), b, c]
    result = run_federation(config, nodes, tmp_path / "run", apps=APPS)
    assert result.choice is not None
    assert sorted(result.choice.scores) == [0, 1, 2, 3]
    events = [entry.event for entry in Ledger(tmp_path / "a.jsonl").entries()]
    assert events == ["reserve", "spend", "commit"] * 3
