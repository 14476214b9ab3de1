"""Whole runs over simulated lines: virtual time, late and lost sites, the same bits as without."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from healthfm_core.config import RunConfig
from healthfm_core.config.network import NetworkConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.federation.protocol import for_the_wire
from healthfm_simulations.engine import FederationResult, NodeSpec, run_federation
from tests import three_numbers as small
from tests.simulations.test_engine_codec import same_bits

EVEN: dict[str, Any] = {"idle_s": 0, "latency_ms": {"median": 1e-6}, "steps_per_s": {"median": 0.1}}
"""A round's computing takes ten seconds, and else next to nothing."""


def behind(network: dict[str, Any], **federation: Any) -> RunConfig:
    plain = small.config(**federation)
    return plain.model_copy(
        update={"network": NetworkConfig.model_validate({"enabled": True, **network})}
    )


def five(folder: Path) -> list[NodeSpec]:
    return [small.site(folder, name, pull=i, n=10 + i) for i, name in enumerate("abcde")]


def run(folder: Path, config: RunConfig, **more: Any) -> FederationResult:
    nodes = five(folder.parent / "sites")
    return run_federation(config, nodes, folder, apps=small.apps(), **more)


def test_a_network_that_loses_nobody_changes_no_bit(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", small.config())
    slow = {"down_mbit_s": {"median": 0.01, "factor": 3}, "steps_per_s": {"median": 1, "factor": 3}}
    there = run(tmp_path / "there", behind(slow))
    same_bits(there.parameters, plain.parameters)
    assert [row["answered"] for row in there.history] == [[*"abcde"]] * 3


def test_time_passes_in_the_history_and_nowhere_else(tmp_path: Path) -> None:
    begun = time.monotonic()
    config = behind({**EVEN, "steps_per_s": {"median": 1e-6}}, deadline_s=1e8, ttl_s=1e8)
    history = run(tmp_path / "run", config).history
    assert [row["seconds"] for row in history] == pytest.approx([1e6] * 3, rel=1e-3)
    assert [row["simulated_s"] for row in history] == pytest.approx([1e6, 2e6, 3e6], rel=1e-3)
    assert time.monotonic() - begun < 600, "eleven days did not pass"


def test_a_round_takes_as_long_as_its_bytes_over_the_lines_and_its_steps(tmp_path: Path) -> None:
    line = {"down_mbit_s": {"median": 0.02}, "up_mbit_s": {"median": 0.01}}
    history = run(tmp_path / "run", behind({**EVEN, **line, "idle_s": 3})).history
    down, up = (history[1]["bytes"][way] / 5 for way in ("down", "up"))
    bits_down, bits_up = 8 * (down + 20_000), 8 * (up + 20_000)  # with eight requests each
    wanted = bits_down / 2e4 + bits_up / 1e4 + 10 + 3
    assert history[1]["seconds"] == pytest.approx(wanted, rel=0.02)


def test_who_is_late_misses_the_round_and_the_next_and_comes_back(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "site,at_s,steps_per_s\n" + "".join(f"{s},0,0.1\n" for s in "abcd") + "e,0,0.015\ne,60,1\n"
    )
    config = behind({**EVEN, "trace": str(trace)}, rounds=9, deadline_s=15.0, ttl_s=500.0)
    history = run(tmp_path / "run", config).history
    assert history[0]["set_aside"] == {"e": "it did not answer in time"}
    assert history[1]["set_aside"] == {"e": "it was busy"}
    assert history[0]["seconds"] == pytest.approx(15)
    back = [row["round"] for row in history if "e" in row["answered"]]
    assert back == list(range(back[0], 10)), "after its late answer it takes part again"
    assert back[0] == 8, "it answers after 67 seconds, in the seventh round"


def test_lost_orders_cost_their_own_part_and_the_same_seed_loses_the_same(tmp_path: Path) -> None:
    config = behind({**EVEN, "dropout": 0.2}, rounds=8, deadline_s=30.0, ttl_s=40.0, quorum=0.2)
    once, again = (run(tmp_path / name, config).history for name in ("one", "two"))
    assert [row["answered"] for row in once] == [row["answered"] for row in again]
    assert [row["simulated_s"] for row in once] == [row["simulated_s"] for row in again]
    assert 20 < sum(len(row["answered"]) for row in once) < 40


def test_hours_and_time_zones_make_a_night_of_a_round(tmp_path: Path) -> None:
    config = behind({**EVEN, "hours": [20, 6]}, rounds=2, deadline_s=1e6, ttl_s=1e6)
    first, second = run(tmp_path / "run", config).history
    assert first["simulated_s"] == pytest.approx(10, abs=1), "midnight is within them"
    assert second["simulated_s"] == pytest.approx(20, abs=1)
    config = behind({**EVEN, "hours": [8, 9]}, rounds=1, deadline_s=1e6, ttl_s=1e6)
    (only,) = run(tmp_path / "day", config).history
    assert only["simulated_s"] == pytest.approx(8 * 3600 + 10, abs=1)


def test_a_run_that_is_gone_on_with_has_its_clock_go_on(tmp_path: Path) -> None:
    config = behind(EVEN, rounds=4)
    whole = run(tmp_path / "whole", config)
    run(tmp_path / "run", config, until=2)
    resumed = run(tmp_path / "run", config, resume=True)
    same_bits(resumed.parameters, whole.parameters)
    shown = [row["simulated_s"] for row in resumed.history]
    assert shown[:2] == [row["simulated_s"] for row in whole.history][:2]
    assert shown == sorted(shown)
    assert shown[3] - shown[2] == pytest.approx(10, abs=1)


def test_sites_whose_clocks_are_wrong_are_not_in_the_study(tmp_path: Path) -> None:
    config = behind({**EVEN, "clock_error_s": 25}, quorum=0.2, gather_s=30.0)
    history = run(tmp_path / "run", config).history
    assert 0 < len(history[0]["asked"]) < 5


def test_where_nobody_answers_in_time_the_quorum_is_missed(tmp_path: Path) -> None:
    config = behind({**EVEN, "steps_per_s": {"median": 1e-3}}, deadline_s=60.0)
    with pytest.raises(ProtocolError, match=r"HF-403.*0 of 5 sites"):
        run(tmp_path / "run", config)


def test_masked_sums_cross_the_lines_four_times(tmp_path: Path) -> None:
    secure = {"aggregation": {"secure": {"enabled": True}}}
    line = {**EVEN, "latency_ms": {"median": 1000}}
    plain, masked = (
        run(tmp_path / str(len(more)), behind(line, **more)).history for more in ({}, secure)
    )
    assert plain[1]["seconds"] == pytest.approx(10 + 2 * 8, rel=0.1)
    assert masked[1]["seconds"] == pytest.approx(10 + 4 * 2 * 8, rel=0.1)


def test_the_network_is_the_simulations_own_and_no_part_of_a_study() -> None:
    config = behind({"dropout": 0.5})
    assert for_the_wire(config).network == NetworkConfig()


def test_who_trains_alone_does_so_at_home(tmp_path: Path) -> None:
    node = small.site(tmp_path / "sites", "a", pull=1.0)
    config = behind({"up_mbit_s": {"median": 1e-5}, "steps_per_s": {"median": 0.1}, "dropout": 0.9})
    history = run_federation(config, [node], tmp_path / "run", apps=small.apps()).history
    assert [row["seconds"] for row in history] == pytest.approx([10] * 3, abs=0.1)
