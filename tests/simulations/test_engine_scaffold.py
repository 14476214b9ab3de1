"""SCAFFOLD over the engine: control variates at sites and server, kept, resumed, equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from healthfm_client import training_round
from healthfm_core.federation import protocol
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import run_federation
from tests import three_numbers as small

SCAFFOLD = {"method": "scaffold"}
ETA = 0.5
"""The small model takes one step a round."""


def by_the_paper(pulls: dict[str, float], rounds: int) -> tuple[float, float]:
    """Return x and c after `rounds` of SCAFFOLD with equal weights, without the small noise."""
    x, server, own = 1.0, 0.0, dict.fromkeys(pulls, 0.0)
    for _ in range(rounds):
        ys, changes = [], []
        for site, pull in pulls.items():
            y = x - ETA * ((x - pull) + server - own[site])
            after = own[site] - server + (x - y) / ETA
            ys.append(y)
            changes.append(after - own[site])
            own[site] = after
        x, server = float(np.mean(ys)), server + float(np.mean(changes))
    return x, server


def test_the_engine_does_what_the_paper_says(tmp_path: Path) -> None:
    pulls = {"a": 1.0, "b": 2.0, "c": 6.0}
    nodes = [small.site(tmp_path / "sites", name, pull=pull) for name, pull in pulls.items()]
    config = small.config(rounds=5, aggregation=SCAFFOLD)
    result = run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    x, server = by_the_paper(pulls, 5)
    np.testing.assert_allclose(result.parameters["backbone.w"], x, atol=0.03)
    state = RunStore(tmp_path / "run", keep=3).checkpoints.load()
    np.testing.assert_allclose(state.control_variates["backbone.w"], server, atol=0.12)
    assert set(state.control_variates) == set(state.parameters)


def test_the_servers_control_is_the_mean_of_the_sites_own(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    nodes = [small.site(tmp_path / "s", f"s{i}", pull=float(i)) for i in range(4)]
    config = small.config(rounds=6, fraction=0.5, aggregation=SCAFFOLD)
    run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    state = RunStore(tmp_path / "run", keep=3).checkpoints.load()
    folders = list((tmp_path / "run" / "sites").glob("*/control/*"))
    assert len(folders) == 4
    latest = [load_file(max(folder.glob("round-*"))) for folder in folders]
    for name, control in state.control_variates.items():
        mean = np.mean([own[name] for own in latest], axis=0)
        np.testing.assert_allclose(control, mean, atol=1e-5)


def test_a_site_without_a_modality_moves_no_control_of_it(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    config = small.config(rounds=3, aggregation=SCAFFOLD)
    run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    state = RunStore(tmp_path / "run", keep=3).checkpoints.load()
    assert np.abs(state.control_variates["encoders.wearable.w"]).min() > 0


@pytest.mark.parametrize("until", [1, 2, 4])
def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, until: int) -> None:
    config = small.config(rounds=5, fraction=0.7, aggregation=SCAFFOLD)
    nodes = small.three_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    run = tmp_path / "run"
    run_federation(config, nodes, run, apps=small.apps(), until=until)
    resumed = run_federation(config, nodes, run, apps=small.apps(), resume=True)
    same_bits(whole.parameters, resumed.parameters)
    controls = [
        RunStore(tmp_path / name, keep=3).checkpoints.load().control_variates
        for name in ("whole", "run")
    ]
    same_bits(*controls)


def test_a_round_that_is_asked_for_twice_starts_from_the_state_before_it(tmp_path: Path) -> None:
    """The coordinator dies after the sites trained round 3 and before its checkpoint was whole."""
    config = small.config(rounds=4, aggregation=SCAFFOLD)
    nodes = small.three_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    run = tmp_path / "run"
    run_federation(config, nodes, run, apps=small.apps(), until=3)
    (run / "checkpoints" / "round-0003.json").unlink()
    resumed = run_federation(config, nodes, run, apps=small.apps(), resume=True)
    same_bits(whole.parameters, resumed.parameters)


def test_the_weights_are_others_than_without_and_no_reply_has_another_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    real = training_round.train_one_round

    def watched(*given):
        records = real(*given)
        seen.append(set(records))
        return records

    monkeypatch.setattr("healthfm_client.app.train_one_round", watched)
    nodes = small.three_sites(tmp_path / "sites")
    plain = run_federation(small.config(), nodes, tmp_path / "plain", apps=small.apps())
    config = small.config(aggregation=SCAFFOLD)
    corrected = run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    assert not np.array_equal(plain.parameters["backbone.w"], corrected.parameters["backbone.w"])
    assert all(records <= protocol.LEAVING[protocol.TRAIN] for records in seen)


def same_bits(one, other) -> None:
    assert set(one) == set(other)
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes(), name


def test_the_correction_is_taken_at_every_steps_learning_rate() -> None:
    from healthfm_core.training import DriftCorrection

    model = torch.nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    before = model.weight.detach().clone()
    correct = DriftCorrection(
        {"weight": np.array([[1, -2]], np.float32), "bias": np.array([9], np.float32)}
    )
    bias = model.bias.detach().clone()
    for rate in (0.1, 0.3):
        correct(model, rate)
    torch.testing.assert_close(model.weight.detach(), before - 0.4 * torch.tensor([[1.0, -2.0]]))
    assert torch.equal(model.bias, bias)
