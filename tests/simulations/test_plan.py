"""How long a study would take: as a run takes, of what it takes, and what a coordinator reads."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.federation.protocol import VERSION, Study
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.__main__ import main
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.planning.measured_start import (
    MeasuredStart,
    SiteKind,
    measured_start,
)
from healthfm_simulations.planning.message_sizes import MessageSizes
from healthfm_simulations.planning.planned_rounds import PlannedRounds
from healthfm_simulations.planning.study_plan import (
    PlanLine,
    planned_sites,
    settings_to_plan,
    sooner_deadline,
    told,
)
from healthfm_simulations.sites import prepare_sites
from tests import three_numbers as small

TINY = (
    *("data=cohort", "data.cohort.subjects=150", "data.cohort.sites=3", "data.cohort.years=2"),
    *("data.cohort.wearable_hours=0", "tokens.k_min=5", "tokens.max_len=48", "model.memory=false"),
    *("rounds=3", "federation.evaluate_every=0", "federation.deadline_s=1e6"),
    *("network.enabled=true", "network.steps_per_s={median: 2, factor: 2}"),
    *("network.down_mbit_s={median: 0.5, factor: 2}", "network.up_mbit_s={median: 0.2, factor: 2}"),
)
FEW = ("federation.codec.uplink=int8", "federation.codec.downlink=int8")
SECURE = ("federation.aggregation.secure.enabled=true",)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[MeasuredStart, Path]:
    """Return what plans of the tiny cohort start from, and where its stores are."""
    folder = tmp_path_factory.mktemp("stores")
    return measured_start(compose(TINY), folder), folder


@pytest.mark.parametrize("more", [(), FEW, SECURE], ids=["plain", "int8", "secure"])
def test_a_plan_takes_as_long_as_the_run_that_it_is_of(
    tmp_path: Path, start: tuple[MeasuredStart, Path], more: Sequence[str]
) -> None:
    config = compose((*TINY, *more))
    sites = cross_validation_folds(config, prepare_sites(config, start[1]))[0].train
    nodes = [NodeSpec(site.name, ((site.path, site.modalities),)) for site in sites]
    history = history_without_a_second_try(config, nodes, tmp_path)
    kinds = dict(zip((site.name for site in sites), start[0].kinds, strict=True))
    planned = PlannedRounds(config, MessageSizes(start[0], config), kinds)
    planned.run()
    took = [row["seconds"] for row in history]
    assert [one.seconds for one in planned.rounds] == pytest.approx(took, rel=0.05)
    assert planned.beside_s == pytest.approx(history[0]["simulated_s"] - took[0], rel=0.2)
    for one, row in zip(planned.rounds, history, strict=True):
        travelled = sum(row["bytes"].values())
        assert one.bytes_down + one.bytes_up == pytest.approx(travelled, rel=0.15)


def history_without_a_second_try(
    config: RunConfig, nodes: Sequence[NodeSpec], folder: Path
) -> Sequence[dict[str, Any]]:
    """Return the history of a run whose masked statistics could be read at once.

    One table of sums in sixty cannot, by its hashes, and is asked for again; no plan counts on it.
    """
    for number in range(5):
        history = run_federation(config, nodes, folder / f"run-{number}").history
        events = {event["event"] for event in RunStore(folder / f"run-{number}", 1).events()}
        if "statistics again" not in events:
            return history
    raise AssertionError("five tables in a row could not be read")


def made_start(numbers: int = 1_000_000) -> MeasuredStart:
    """Return a start of a model of so many numbers, without data."""
    study = Study(VERSION, "plan", RunConfig(), small.VOCABULARY, ("ehr",))
    chance = np.random.default_rng(0)
    model = {"backbone.w": np.zeros(numbers, np.float32)}
    update = {"backbone.w": chance.standard_normal(numbers).astype(np.float32)}
    return MeasuredStart(study, model, update, 10.0, [SiteKind(800, frozenset({"ehr"}))])


def config_of(**network: Any) -> RunConfig:
    told_of = {
        "federation": {"rounds": 5, "evaluate_every": 0},
        "train": {"batch_size": 8},
        "network": {"enabled": True, "idle_s": 0, "steps_per_s": {"median": 10}, **network},
        "plan": {"sites": 64},
    }
    return RunConfig.model_validate(told_of)


def lines_of(config: RunConfig) -> dict[str, PlanLine]:
    start = made_start()
    sites = planned_sites(config, start)
    lines = {}
    for name, settings in settings_to_plan(config):
        planned = PlannedRounds(settings, MessageSizes(start, settings), sites)
        planned.run()
        lines[name] = PlanLine.of(name, planned)
    return lines


def test_sixty_four_sites_on_thin_lines_take_what_their_bytes_do_and_int8_a_quarter() -> None:
    line = {"down_mbit_s": {"median": 1}, "up_mbit_s": {"median": 1}, "latency_ms": {"median": 1}}
    lines = lines_of(config_of(**line))
    plain = lines["these settings"]
    assert plain.round_s == pytest.approx(32 + 10 + 32, rel=0.02)  # 32 Mbit each way, 100 steps
    assert plain.bytes_per_site == pytest.approx(8e6, rel=0.01)
    int8 = lines["federation=int8"]
    assert 1.6e6 < int8.bytes_per_site < 2e6
    travels = int8.bytes_per_site / plain.bytes_per_site
    assert int8.round_s == pytest.approx(10 + (plain.round_s - 10) * travels, rel=0.1)
    assert plain.shares["up"] == pytest.approx(0.43, abs=0.02)
    assert plain.what_takes_it().startswith("line "), plain.what_takes_it()


def test_the_coordinators_own_line_is_shared_by_all() -> None:
    config = config_of(coordinator_mbit_s=64, latency_ms={"median": 1})
    assert lines_of(config)["these settings"].round_s == pytest.approx(74, rel=0.03)


def test_lost_sites_are_waited_for_until_the_deadline_and_a_sooner_one_is_named() -> None:
    config = config_of(dropout=0.03)
    start = made_start(1000)
    planned = PlannedRounds(config, MessageSizes(start, config), planned_sites(config, start))
    planned.run()
    line = PlanLine.of("these settings", planned)
    assert line.waited >= 3
    assert line.seconds > 3 * 3600
    sooner = sooner_deadline(config, planned)
    assert sooner is not None
    assert sooner.federation.deadline_s == 60
    again = PlannedRounds(sooner, MessageSizes(start, sooner), planned.sites)
    again.run()
    assert again.seconds < 8 * 60


def test_a_study_that_does_not_end_is_said_not_to() -> None:
    config = config_of(steps_per_s={"median": 0.01})
    start = made_start(1000)
    sites = planned_sites(config, start)
    planned = PlannedRounds(config, MessageSizes(start, config), sites)
    planned.run()
    line = PlanLine.of("these settings", planned)
    assert (line.closed, line.seconds) == (0, float("inf"))
    page = Console(file=io.StringIO(), width=100)
    for text in told(config, start, sites, [line]):
        page.print(text)
    assert "the study does not end" in page.file.getvalue()


def test_people_and_sites_are_drawn_from_the_seed() -> None:
    config = config_of()
    plan = config.plan.model_copy(update={"people": 3000, "people_factor": 2.0, "sites": 900})
    config = config.model_copy(update={"plan": plan})
    sites = planned_sites(config, made_start(10))
    assert sites == planned_sites(config, made_start(10))
    people = np.array([kind.people for kind in sites.values()])
    assert np.median(people) == pytest.approx(3000, rel=0.1)
    assert ((people > 1500) & (people < 6000)).mean() == pytest.approx(0.68, abs=0.05)


def test_a_coordinator_reads_how_long_it_takes_and_what_would_be_quicker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan"
    thin = ("network.up_mbit_s={median: 0.05}", "plan.sites=8", "plan.measure=false", f"out={out}")
    assert main([*TINY, *thin]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "8 sites with" in page
    assert "8 sites at these settings:" in page
    assert "federation=int8:" in page
    assert "line up" in page
    written = json.loads((out / "plan.json").read_text())
    assert [line["name"] for line in written["lines"]][:2] == ["these settings", "federation=int8"]
    assert not (out / "report.html").exists(), "nothing was trained"
