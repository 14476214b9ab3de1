"""No one site of several carries the model where it likes, by its size or a long update."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.config.train import TrainConfig
from healthfm_core.evaluation.report.plots.style import new_figure, svg
from healthfm_core.federation.aggregation.method_registry import methods
from healthfm_core.federation.alarms import alarms
from healthfm_core.federation.influence_bounds import (
    running_medians,
    shortened,
    weight_beside,
    weight_cap,
)
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.training.schedule import round_rate
from healthfm_server.run_folder.run_progress import ignore_progress
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.transport.interface import OpenRound
from healthfm_server.transport.round_inbox import RoundInbox
from healthfm_simulations.engine import run_federation
from tests import enrolled
from tests import three_numbers as small


@pytest.mark.parametrize(
    ("sizes", "share", "cap"),
    [
        ([10, 20, 30], 0.5, math.inf),
        ([10, 20, 2**39], 0.5, 30.0),
        ([1] * 9 + [2**39], 0.5, 9.0),
        ([10, 10, 60, 60], 0.3, 15.0),
        ([10, 10, 60, 60], 0.25, 10.0),
        ([1, 2**39], 0.5, math.inf),
    ],
)
def test_no_site_has_more_than_its_share_whatever_it_says(
    sizes: list[int], share: float, cap: float
) -> None:
    assert weight_cap([float(size) for size in sizes], share) == pytest.approx(cap)
    if math.isfinite(cap):
        held = [min(size, cap) for size in sizes]
        assert max(held) <= share * sum(held) * (1 + 1e-9)


@pytest.mark.parametrize("share", [0.5, 0.4, 1.0])
def test_who_knows_only_the_sum_of_the_others_bounds_a_site_alike(share: float) -> None:
    cap = weight_cap([10.0, 20.0, 25.0, 1e6], share)
    assert weight_beside(55.0, share) == pytest.approx(cap)


def test_an_update_too_long_is_shortened_and_one_that_is_not_is_the_same_bits() -> None:
    update = {"backbone.w": np.array([3.0, 4.0], np.float32)}
    schema = UpdateSchema.of(update, 100.0)
    kept, norm = shortened(update, "backbone", schema, 5.0)
    assert norm == 5.0
    assert kept["backbone.w"] is update["backbone.w"]
    short, norm = shortened(update, "backbone", schema, 1.0)
    assert norm == 5.0
    assert np.linalg.norm(short["backbone.w"]) == pytest.approx(1.0)


def rows_of(*norms: float) -> list[dict[str, Any]]:
    return [
        {"round": number, "groups": {"backbone": {"median_norm": norm}}}
        for number, norm in enumerate(norms, 1)
    ]


def test_the_bound_comes_from_the_rounds_on_disk_and_one_outlier_does_not_move_it() -> None:
    assert running_medians(rows_of(1.0, 1.2, 900.0), lambda _: 1.0, 4) == {"backbone": 1.2}
    assert running_medians([{"groups": {"backbone": {}}}], lambda _: 1.0, 2) == {}


def test_a_round_may_move_further_than_one_of_warm_up_and_no_less_than_one_of_a_higher_rate():
    rate = {1: 0.02, 2: 1.0, 3: 0.5}.__getitem__
    assert running_medians(rows_of(0.1), rate, 2) == {"backbone": pytest.approx(5.0)}
    assert running_medians(rows_of(5.0, 5.0), lambda n: 1.0 / n, 3) == {"backbone": 5.0}


def test_the_rate_of_a_round_is_the_mean_over_its_steps():
    train = TrainConfig(warmup_rounds=0.5, lr=1.0, lr_final=1.0)
    assert round_rate(train, 1, 4) == pytest.approx(0.75, abs=0.02)
    assert round_rate(train, 2, 4) == pytest.approx(1.0)
    one = train.model_copy(update={"max_steps": 1})
    assert round_rate(one, 1, 4) == pytest.approx(0.002)
    assert round_rate(one, 2, 4) == pytest.approx(1.0)
    falling = train.model_copy(update={"lr_final": 0.0, "regression_rounds": 2})
    assert 0 < round_rate(falling, 2, 4) < 0.5
    assert round_rate(falling, 3, 4) == round_rate(falling, 4, 4) == 1.0


def test_a_site_that_says_it_has_half_a_trillion_people_moves_the_model_by_half_at_most(
    tmp_path: Path,
) -> None:
    honest = [small.site(tmp_path, f"h{n}", pull=1.0, n=10) for n in range(9)]
    liar = small.site(tmp_path, "liar", pull=-1000.0, n=2**39)
    config = small.config(rounds=1, aggregation={"max_update_norm": 1e6})
    result = run_federation(config, [*honest, liar], tmp_path / "run", apps=small.apps())
    (row,) = result.history
    assert row["groups"]["backbone"]["weight"] == 180
    assert "more than 50% of the round" in row["outliers"]["liar"]
    assert any("liar" in sentence for sentence in row["alarms"])
    moved = result.parameters["backbone.w"]
    assert np.abs(moved).max() < 0.6 * 500


def test_a_site_whose_update_is_far_longer_than_the_others_is_shortened_and_named(
    tmp_path: Path,
) -> None:
    sites = small.three_sites(tmp_path)
    wrong = small.ClientWork({sites[1].stores[0][0].name: "long"}, round_=2)
    apps = small.apps()
    apps = type(apps)(apps.server, wrong)
    config = small.config(rounds=3)
    result = run_federation(config, sites, tmp_path / "run", apps=apps)
    assert "times too long" in result.history[1]["outliers"]["b"]
    assert "outliers" not in result.history[0]
    assert result.history[1]["answered"] == ["a", "b", "c"]


@pytest.mark.parametrize(("warmup_rounds", "named"), [(0.5, set()), (0.0, {"a", "b", "c"})])
def test_sites_that_warm_up_in_the_first_round_are_not_named_in_the_second(
    tmp_path: Path, warmup_rounds: float, named: set[str]
) -> None:
    """Of one step, the first round's rate is a five-hundredth of the second's: all move further."""
    sites = small.three_sites(tmp_path)
    apps = small.apps()
    long = small.ClientWork({site.stores[0][0].name: "long" for site in sites}, round_=2)
    config = small.config(rounds=3)
    train = config.train.model_copy(update={"max_steps": 1, "warmup_rounds": warmup_rounds})
    config = config.model_copy(update={"train": train})
    result = run_federation(config, sites, tmp_path / "run", apps=type(apps)(apps.server, long))
    assert set(result.history[1].get("outliers", {})) == named


def test_in_the_first_round_too(tmp_path: Path) -> None:
    sites = small.three_sites(tmp_path)
    apps = small.apps({sites[1].stores[0][0].name: "long"})
    config = small.config(rounds=1)
    result = run_federation(config, sites, tmp_path / "run", apps=apps)
    assert "times too long" in result.history[0]["outliers"]["b"]
    usual = run_federation(config, sites, tmp_path / "usual", apps=small.apps())
    longest = 10 * usual.history[0]["groups"]["backbone"]["median_norm"]
    assert np.linalg.norm(result.parameters["backbone.w"] - 1.0) < longest


def test_a_site_cannot_have_more_than_its_share_of_a_modality_that_few_hold(
    tmp_path: Path,
) -> None:
    """Its size is like the others', who have few people with the modality."""
    both = ("ehr", "wearable")
    large = [small.site(tmp_path, f"h{n}", pull=1.0, n=100) for n in range(3)]
    few = [small.site(tmp_path, f"w{n}", pull=1.0, n=10, modalities=both) for n in range(2)]
    liar = small.site(tmp_path, "liar", pull=-9.0, n=100, modalities=both)
    config = small.config(rounds=2)
    result = run_federation(config, [*large, *few, liar], tmp_path / "run", apps=small.apps())
    for row in result.history:
        assert row["groups"]["wearable"]["weight"] == 40
        assert row["groups"]["backbone"]["weight"] == 420
        assert "50% of the round in head/masked_wearable, wearable" in row["outliers"]["liar"]


def an_inbox(folder: Path, asked: list[str], medians: dict[str, float]) -> RoundInbox:
    schema = UpdateSchema.of({"backbone.w": np.ones(2, np.float32)}, 1e6)
    config = AggregationConfig()
    store = RunStore.create(folder, small.config())
    return RoundInbox(
        OpenRound(2, 3, dict.fromkeys(asked, ("backbone",)), store, ignore_progress),
        schema,
        config,
        methods()["weighted_mean"].aggregator(schema, config, 1000.0),
        medians,
        {},
    )


def test_after_a_restart_the_first_round_waits_until_the_others_sizes_are_known(
    tmp_path: Path,
) -> None:
    inbox = an_inbox(tmp_path, ["a", "b", "c", "d"], {"backbone": 1.0})
    update = {"backbone.w": np.ones(2, np.float32)}
    inbox.take("a", update, {"backbone": 1e9})
    inbox.take("b", update, {"backbone": 10.0})
    assert inbox.weights == {}
    inbox.take("c", update, {"backbone": 10.0})
    inbox.close()
    assert inbox.weights["a"] == {"backbone": 20.0}
    assert inbox.waiting == {}


def test_an_outlier_is_an_alarm_that_names_it() -> None:
    row = {"metrics": {}, "asked": ["a"], "outliers": {"a": "its size"}}
    assert any("a (its size)" in sentence for sentence in alarms([row]))


def test_a_site_with_more_people_than_was_agreed_takes_no_part(tmp_path: Path) -> None:
    """Site a was admitted before sizes were recorded, and goes on."""
    study, sites = enrolled.three(tmp_path)
    rows = json.loads((study / "sites.json").read_text())
    for row in rows:
        row["most_subjects"] = {"b": 19, "c": 30}.get(row["name"], 0)
    del rows[0]["most_subjects"]
    (study / "sites.json").write_text(json.dumps(rows))
    store = enrolled.run(enrolled.Wire(sites), study, tmp_path / "run", quorum=0.5)
    assert store.history()[0]["answered"] == ["a", "c"]
    assert any("HF-826" in str(event.get("reason")) for event in store.events())


def test_a_figures_title_cannot_leave_its_attribute() -> None:
    figure, _ = new_figure(2.0, 2.0, 1, 1)
    drawn = svg(figure, "n", 'x" onload="alert(1)')
    assert 'onload="' not in drawn
    assert "x&quot; onload=&quot;alert(1)" in drawn
