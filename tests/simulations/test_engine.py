"""The in-process engine with the real apps of server and site, over a model of a few numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.errors import ConfigError, ProtocolError, RunError
from healthfm_core.federation.parameter_groups import group_of
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import ProgressEvent, rounds_done, run_federation
from tests import three_numbers as small

BAD = ("nan", "huge", "overflow", "shape", "missing", "extra", "dtype", "weight", "raise")


def _same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].tobytes() == right[name].tobytes() for name in left
    )


def test_a_run_ends_with_the_weighted_mean_of_the_sites(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    result = run_federation(small.config(rounds=12), nodes, tmp_path / "run", apps=small.apps())
    everyone = (10 * 1 + 20 * 2 + 30 * 3) / 60
    worn = (10 * 1 + 30 * 3) / 40
    np.testing.assert_allclose(result.parameters["backbone.w"], everyone, atol=0.03)
    np.testing.assert_allclose(result.parameters["encoders.wearable.w"], worn, atol=0.03)
    assert "encoders.genomics.w" not in result.parameters
    assert [row["round"] for row in result.history] == list(range(1, 13))
    assert result.history[0]["metrics"] == {"loss_pull": pytest.approx(everyone)}


def test_progress_is_told_for_every_site_and_round(tmp_path: Path) -> None:
    heard: list[ProgressEvent] = []
    nodes = small.three_sites(tmp_path / "sites")
    run_federation(
        small.config(), nodes, tmp_path / "run", apps=small.apps(), progress=heard.append
    )
    assert [e.phase for e in heard[:7]] == ["statistics"] * 3 + ["prepare"] * 3 + ["site"]
    assert [(e.site, e.done, e.sites) for e in heard[6:9]] == [
        ("a", 1, 3),
        ("b", 2, 3),
        ("c", 3, 3),
    ]
    assert [(e.round, e.rounds) for e in heard if e.phase == "round"] == [(1, 3), (2, 3), (3, 3)]


def test_only_what_the_policy_lists_leaves(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    result = run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())
    assert set(result.history[0]["site_metrics"]["a"]) == {"loss_pull"}
    written = "".join(p.read_text() for p in (tmp_path / "run").glob("*.j*"))
    assert "secret" not in written


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    runs = [
        run_federation(small.config(), nodes, tmp_path / name, apps=small.apps())
        for name in ("first", "second")
    ]
    other = small.config().model_copy(update={"seed": 4})
    runs.append(run_federation(other, nodes, tmp_path / "third", apps=small.apps()))
    assert _same(runs[0].parameters, runs[1].parameters)
    assert not _same(runs[0].parameters, runs[2].parameters)


def test_an_encoder_nobody_can_move_in_a_round_keeps_its_weights(tmp_path: Path) -> None:
    """The only site with wearables fails in round 2; its encoder waits for round 3."""
    nodes = [
        small.site(tmp_path, "a", pull=1.0),
        small.site(tmp_path, "b", pull=2.0),
        small.site(tmp_path, "c", pull=3.0, modalities=("ehr", "wearable")),
    ]
    config = small.config(keep_checkpoints=9, aggregation={"server_optimizer": {"name": "adam"}})
    run_federation(config, nodes, tmp_path / "run", apps=small.apps({"c": "raise"}, round_=2))
    store = RunStore(tmp_path / "run", keep=9)
    one, two, three = (store.checkpoints.load(round_) for round_ in (1, 2, 3))
    assert one is not None
    assert two is not None
    assert three is not None
    for name in small.SHAPES:
        if name not in one.parameters:
            continue
        moved = group_of(name) not in ("wearable", "head/masked_wearable")
        assert (one.parameters[name].tobytes() != two.parameters[name].tobytes()) == moved
        assert two.parameters[name].tobytes() != three.parameters[name].tobytes()
        for kind in ("first", "second"):
            before, after = (s.optimizer.to_arrays()[f"{kind}/{name}"] for s in (one, two))
            assert (before.tobytes() != after.tobytes()) == moved


def test_sites_without_a_modality_never_get_or_send_its_encoder(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}

    class Watching(small.ClientWork):
        def train_round(self, parameters, data, study, order, private=None, drift=None):
            seen[data["name"]] = {group_of(name) for name in parameters}
            return super().train_round(parameters, data, study, order, private, drift)

    apps = small.Apps(small.ServerWork(), Watching())
    nodes = small.three_sites(tmp_path / "sites")
    run_federation(small.config(rounds=1), nodes, tmp_path / "run", apps=apps)
    assert seen["b"] == {"ehr", "backbone", "head/next_visit"}
    assert seen["a"] == seen["b"] | {"wearable", "head/masked_wearable"}


def test_plain_fedavg_leaves_out_what_not_all_hold(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    config = small.config(aggregation={"groups": "shared"})
    result = run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    assert result.study.modalities == ("ehr",)
    assert {group_of(name) for name in result.parameters} == {"ehr", "backbone", "head/next_visit"}


def test_plain_fedavg_without_a_shared_modality_is_refused_before_round_1(tmp_path: Path) -> None:
    nodes = [
        small.site(tmp_path, "a", pull=1.0, modalities=("ehr",)),
        small.site(tmp_path, "b", pull=1.0, modalities=("wearable",)),
    ]
    with pytest.raises(ProtocolError, match="HF-406"):
        run_federation(
            small.config(aggregation={"groups": "shared"}),
            nodes,
            tmp_path / "run",
            apps=small.apps(),
        )


@pytest.mark.parametrize("wrong", BAD)
def test_a_bad_reply_is_set_aside_and_the_round_goes_on(tmp_path: Path, wrong: str) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    apps = small.apps({"b": wrong}, round_=2)
    result = run_federation(small.config(keep_checkpoints=9), nodes, tmp_path / "bad", apps=apps)
    assert [row["answered"] for row in result.history] == [["a", "b", "c"], ["a", "c"], list("abc")]
    reason = result.history[1]["set_aside"]["b"]
    assert reason
    assert "must not leave" not in reason
    noted = [e for e in RunStore(tmp_path / "bad", 1).events() if e["event"] == "set aside"]
    assert [(e["round"], e["site"], e["reason"]) for e in noted] == [(2, "b", reason)]
    assert all(np.isfinite(value).all() for value in result.parameters.values())


def test_a_site_set_aside_has_no_part_in_the_round(tmp_path: Path) -> None:
    """Round 2 without b's reply is the round in which b could not be reached."""
    nodes = small.three_sites(tmp_path / "sites")
    one, other = (
        run_federation(
            small.config(), nodes, tmp_path / wrong, apps=small.apps({"b": wrong}, round_=2)
        )
        for wrong in ("nan", "raise")
    )
    assert _same(one.parameters, other.parameters)


def test_a_missed_quorum_ends_the_run_and_it_can_be_resumed(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    bad = small.apps({"a": "raise", "c": "nan"}, round_=2)
    with pytest.raises(ProtocolError, match=r"HF-403.* 1 of 3 sites"):
        run_federation(small.config(), nodes, tmp_path / "run", apps=bad)
    assert RunStore(tmp_path / "run", 1).checkpoints.rounds() == [0, 1]
    whole = run_federation(small.config(), nodes, tmp_path / "whole", apps=small.apps())
    resumed = run_federation(
        small.config(), nodes, tmp_path / "run", resume=True, apps=small.apps()
    )
    assert _same(resumed.parameters, whole.parameters)
    assert [row["round"] for row in resumed.history] == [1, 2, 3]


@pytest.mark.parametrize("optimizer", ["none", "momentum", "adam"])
@pytest.mark.parametrize("round_", [1, 2, 3])
def test_ctrl_c_leaves_a_run_that_ends_as_an_unbroken_one(
    tmp_path: Path, optimizer: str, round_: int
) -> None:
    config = small.config(aggregation={"server_optimizer": {"name": optimizer}}, fraction=0.6)
    nodes = small.three_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    site = whole.history[round_ - 1]["asked"][-1]
    stopped = small.apps({site: "interrupt"}, round_=round_)
    with pytest.raises(RunError, match="HF-705"):
        run_federation(config, nodes, tmp_path / "run", apps=stopped)
    resumed = run_federation(config, nodes, tmp_path / "run", resume=True, apps=small.apps())
    assert _same(resumed.parameters, whole.parameters)
    assert [row["asked"] for row in resumed.history] == [row["asked"] for row in whole.history]


def test_a_finished_run_resumed_gives_its_result_again(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    first = run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())
    again = run_federation(small.config(), nodes, tmp_path / "run", resume=True, apps=small.apps())
    assert _same(first.parameters, again.parameters)
    assert again.history == first.history


def test_a_share_of_the_sites_is_asked_and_it_depends_on_seed_and_round_alone(
    tmp_path: Path,
) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    config = small.config(fraction=0.5, rounds=8)
    result = run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    asked = [tuple(row["asked"]) for row in result.history]
    assert {len(sites) for sites in asked} == {2}
    assert len(set(asked)) > 1


def test_a_folder_with_a_run_is_not_begun_again(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())
    with pytest.raises(RunError, match="HF-704"):
        run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())


def test_a_run_is_not_resumed_with_another_configuration(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())
    with pytest.raises(RunError, match=r"HF-702.*another federation"):
        run_federation(
            small.config(rounds=4), nodes, tmp_path / "run", resume=True, apps=small.apps()
        )


def test_two_sites_of_one_name_are_refused(tmp_path: Path) -> None:
    node = small.site(tmp_path, "a", pull=1.0)
    with pytest.raises(ConfigError, match="HF-103"):
        run_federation(small.config(), [node, node], tmp_path / "run", apps=small.apps())


def test_a_run_stopped_after_a_round_goes_on_with_other_sites(tmp_path: Path) -> None:
    """Sites a and c for two rounds, then b as well: the study stays, the new site is asked."""
    nodes = small.three_sites(tmp_path / "sites")
    config, run = small.config(rounds=4), tmp_path / "run"
    two = run_federation(config, [nodes[0], nodes[2]], run, apps=small.apps(), until=2)
    assert rounds_done(run) == 2
    four = run_federation(config, nodes, run, apps=small.apps(), resume=True, until=4)
    assert [row["answered"] for row in four.history] == [["a", "c"], ["a", "c"], [*"abc"], [*"abc"]]
    assert four.study == two.study
    assert rounds_done(tmp_path / "nowhere") == 0


@pytest.mark.parametrize("name", ["coordinate_median", "trimmed_mean", "krum", "multi_krum"])
def test_a_hostile_site_moves_the_mean_and_not_a_robust_centre(tmp_path: Path, name: str) -> None:
    """Site x pulls everything to -40, within the norm that the server allows."""
    nodes = [small.site(tmp_path, f"s{i}", pull=1.0 + 0.01 * i) for i in range(4)]
    nodes.append(small.site(tmp_path, "x", pull=-40.0, n=30))
    free = small.config(aggregation={"max_norm_ratio": 1e6})
    plain = run_federation(free, nodes, tmp_path / "plain", apps=small.apps())
    config = small.config(rounds=8, aggregation={"method": name, "max_norm_ratio": 1e6})
    robust = run_federation(config, nodes, tmp_path / name, apps=small.apps())
    assert (plain.parameters["backbone.w"] < -10).all()
    np.testing.assert_allclose(robust.parameters["backbone.w"], 1.0, atol=0.06)
