"""Secure aggregation over Flower's messages, with the real apps and a model of a few numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.errors import PrivacyError, RunError
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import NodeSpec, run_federation
from tests import three_numbers as small


def masked(**more: Any) -> dict[str, Any]:
    """Settings of `federation` for a masked run."""
    return {"aggregation": {"secure": {"enabled": True, **more}}}


def five_sites(folder: Path) -> list[NodeSpec]:
    """Three sites with wearables, two without; nobody has scores."""
    both = ("ehr", "wearable")
    return [
        small.site(folder, "a", pull=1.0, n=10, modalities=both),
        small.site(folder, "b", pull=2.0, n=20),
        small.site(folder, "c", pull=3.0, n=30, modalities=both),
        small.site(folder, "d", pull=-1.0, n=7),
        small.site(folder, "e", pull=0.5, n=3, modalities=both),
    ]


UNBOUNDED = small.config(aggregation={"max_norm_ratio": 1e6, "max_weight_share": 1.0})
"""No site is held to the others, as in a sum that nobody can look into."""


def close(one: Any, other: Any, atol: float) -> bool:
    assert one.parameters.keys() == other.parameters.keys()
    return all(
        np.allclose(one.parameters[name], value, rtol=0, atol=atol)
        for name, value in other.parameters.items()
    )


@pytest.mark.parametrize(("bits", "atol"), [(32, 2e-6), (64, 2e-7)])
def test_a_masked_run_ends_where_the_plain_one_does(tmp_path: Path, bits: int, atol: float) -> None:
    nodes = five_sites(tmp_path / "sites")
    plain = run_federation(UNBOUNDED, nodes, tmp_path / "plain", apps=small.apps())
    config = small.config(**masked(ring_bits=bits))
    hidden = run_federation(config, nodes, tmp_path / "masked", apps=small.apps())
    assert close(hidden, plain, atol)
    for one, other in zip(hidden.history, plain.history, strict=True):
        assert one["answered"] == other["answered"] == [*"abcde"]
        weights = {group: found["weight"] for group, found in other["groups"].items()}
        assert {group: found["weight"] for group, found in one["groups"].items()} == weights
        assert one["site_metrics"] == {}


def test_the_study_has_every_modality_and_no_record_says_whose(tmp_path: Path) -> None:
    nodes = five_sites(tmp_path / "sites")
    run_federation(small.config(**masked()), nodes, tmp_path / "run", apps=small.apps())
    store = RunStore(tmp_path / "run", 1)
    study = store.study()
    assert study is not None
    assert study.modalities == ("ehr", "wearable")
    prepared = [event for event in store.events() if event["event"] == "prepared"]
    assert [(event["modalities"], event["coverage"]) for event in prepared] == [([], {})] * 5


def test_plain_fedavg_over_masked_sums_keeps_what_every_site_has(tmp_path: Path) -> None:
    nodes = five_sites(tmp_path / "sites")
    config = small.config(aggregation={"groups": "shared", **masked()["aggregation"]})
    result = run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    assert result.study.modalities == ("ehr",)


@pytest.mark.parametrize("wrong", ["nan", "shape", "missing", "weight", "raise"])
def test_a_site_whose_update_is_unfit_leaves_the_sum_and_the_round_goes_on(
    tmp_path: Path, wrong: str
) -> None:
    """The site finds out itself: nobody else could look at its update."""
    nodes = five_sites(tmp_path / "sites")
    apps = small.apps({"b": wrong}, round_=2)
    config = small.config(**masked(hide_modalities=False))
    hidden = run_federation(config, nodes, tmp_path / "masked", apps=apps)
    assert [row["answered"] for row in hidden.history][1] == [*"acde"]
    assert "must not leave" not in hidden.history[1]["set_aside"]["b"]
    plain = run_federation(UNBOUNDED, nodes, tmp_path / "plain", apps=apps)
    assert close(hidden, plain, 2e-6)


@pytest.mark.parametrize("late", ["d", "e"])
def test_what_a_late_site_has_does_not_show_in_the_weights(tmp_path: Path, late: str) -> None:
    """They fall by its people in every group, whichever modality it holds."""
    nodes = five_sites(tmp_path / "sites")
    apps = small.apps({late: "raise"}, round_=2)
    result = run_federation(small.config(**masked()), nodes, tmp_path / "run", apps=apps)
    whole, without, again = (
        {group: found["weight"] for group, found in row["groups"].items()} for row in result.history
    )
    assert whole == again
    people = {"d": 7, "e": 3}[late]
    for group, weight in whole.items():
        assert without[group] == pytest.approx(weight * (1 - people / 70))
    assert whole["wearable"] == 43


def test_a_site_that_lacks_a_modality_moves_the_others_mean_by_nothing(tmp_path: Path) -> None:
    nodes = five_sites(tmp_path / "sites")
    apps = small.apps({"d": "raise"}, round_=2)
    hidden = run_federation(small.config(**masked()), nodes, tmp_path / "masked", apps=apps)
    plain = run_federation(UNBOUNDED, nodes, tmp_path / "plain", apps=apps)
    for name in ("backbone.w", "encoders.ehr.w"):
        np.testing.assert_allclose(hidden.parameters[name], plain.parameters[name], atol=2e-6)
    moved, wanted = (r.parameters["encoders.wearable.w"] - 1 for r in (hidden, plain))
    np.testing.assert_allclose(moved, wanted, rtol=0.1)  # 63 of 70 people stand for all 43


@pytest.mark.parametrize("hidden", [False, True])
def test_an_update_over_the_clip_is_shortened_and_counted(tmp_path: Path, hidden: bool) -> None:
    nodes = five_sites(tmp_path / "sites")
    config = small.config(rounds=1, **masked(clip=0.5, hide_modalities=hidden))
    result = run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    found = result.history[0]["groups"]["backbone"]
    assert found["clipped_sites"] == 3  # those that pull more than 0.5 over three numbers
    assert found["norm"] <= 0.5 + 1e-6


def test_too_few_sites_left_end_the_round_unopened_and_it_can_be_resumed(tmp_path: Path) -> None:
    nodes = five_sites(tmp_path / "sites")
    bad = small.apps({"a": "raise", "c": "nan"}, round_=2)
    config = small.config(**masked())
    with pytest.raises(PrivacyError, match=r"HF-611.*3 sites are left.*4 at least"):
        run_federation(config, nodes, tmp_path / "run", apps=bad)
    assert RunStore(tmp_path / "run", 1).checkpoints.rounds() == [0, 1]
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    resumed = run_federation(config, nodes, tmp_path / "run", resume=True, apps=small.apps())
    assert close(resumed, whole, 1e-7)


@pytest.mark.parametrize("round_", [1, 3])
def test_ctrl_c_in_a_masked_round_leaves_a_run_that_ends_as_an_unbroken_one(
    tmp_path: Path, round_: int
) -> None:
    config = small.config(
        aggregation={"server_optimizer": {"name": "adam"}, **masked()["aggregation"]}
    )
    nodes = five_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    stopped = small.apps({"d": "interrupt"}, round_=round_)
    with pytest.raises(RunError, match="HF-705"):
        run_federation(config, nodes, tmp_path / "run", apps=stopped)
    resumed = run_federation(config, nodes, tmp_path / "run", resume=True, apps=small.apps())
    assert close(resumed, whole, 1e-7)


def test_two_sites_are_too_few_for_a_sum(tmp_path: Path) -> None:
    nodes = five_sites(tmp_path / "sites")[:2]
    with pytest.raises(PrivacyError, match=r"HF-611.*2 sites are left.*3 at least"):
        run_federation(small.config(**masked()), nodes, tmp_path / "run", apps=small.apps())


def test_a_run_with_a_budget_says_what_it_spent_and_no_metric_leaves(tmp_path: Path) -> None:
    nodes = five_sites(tmp_path / "sites")
    config = small.config(**masked(epsilon=50.0, clip=4.0, unit="site"))
    result = run_federation(config, nodes, tmp_path / "run", apps=small.apps())
    spent = [row["privacy"]["epsilon"] for row in result.history]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(50.0, rel=1e-3)
    assert spent[0] < spent[1] < spent[2] <= 50.0
    assert all(row["metrics"] == {} for row in result.history)
    assert all(np.isfinite(value).all() for value in result.parameters.values())
