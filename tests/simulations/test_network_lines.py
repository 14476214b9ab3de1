"""Lines and computers of simulated sites: what each carries, what is shared, what chance does."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from healthfm_core.config.network import NetworkConfig
from healthfm_core.errors import ConfigError
from healthfm_simulations.network.line_sharing import LineSharing, Transfer
from healthfm_simulations.network.order_course import begin_work_s, order_luck
from healthfm_simulations.network.site_connections import (
    LineValues,
    SiteConnection,
    site_connections,
)

MBIT = 1e6


def line(down: float = 10.0, up: float = 10.0, **more: float) -> SiteConnection:
    values = {"latency_ms": 0.0, "loss": 0.0, "steps_per_s": 1.0, **more}
    return SiteConnection((0.0,), (LineValues(down, up, **values),))


def moved(
    sharing: LineSharing, *transfers: tuple[SiteConnection, float, bool, float]
) -> list[float]:
    """Return when each transfer (line, megabits, up, begin) was done."""
    done = [math.nan] * len(transfers)
    for place, (of, megabits, up, begins_s) in enumerate(transfers):

        def note(at_s: float, place: int = place) -> None:
            done[place] = at_s

        sharing.add(Transfer(of, megabits * MBIT, up, begins_s, note))
    while sharing.waiting:
        sharing.advance(sharing.next_s())
    return done


def test_a_transfer_alone_takes_its_bits_over_its_line() -> None:
    assert moved(LineSharing(1000.0), (line(down=20), 100.0, False, 5.0)) == pytest.approx([10.0])
    assert moved(LineSharing(8.0), (line(up=20), 16.0, True, 0.0)) == pytest.approx([2.0])


def test_two_share_the_coordinators_line_and_the_slow_one_takes_no_more_than_its_own() -> None:
    slow, fast = line(down=2), line(down=100)
    done = moved(LineSharing(10.0), (slow, 10.0, False, 0.0), (fast, 80.0, False, 0.0))
    assert done == pytest.approx([5.0, 9.0])  # 8 Mbit/s beside it, then all 10 for 40 Mbit
    up_and_down = moved(LineSharing(10.0), (fast, 10.0, False, 0.0), (fast, 10.0, True, 0.0))
    assert up_and_down == pytest.approx([1.0, 1.0]), "the two ways are apart"


def test_who_comes_later_slows_down_who_is_there() -> None:
    done = moved(LineSharing(10.0), (line(100), 20.0, False, 0.0), (line(100), 5.0, False, 1.0))
    assert done == pytest.approx([2.5, 2.0])


def test_a_thousand_transfers_end_when_their_sum_over_the_shared_line_says() -> None:
    done = moved(LineSharing(100.0), *[(line(down=10), 1.0, False, 0.0)] * 1000)
    assert done == pytest.approx([10.0] * 1000)


def test_a_line_that_changes_changes_a_transfer_on_it() -> None:
    first = line(down=10).values[0]
    of = SiteConnection((0.0, 2.0, 7.0), (first, LineValues(0, 0, 0, 0, 1, online=False), first))
    assert moved(LineSharing(1000.0), (of, 30.0, False, 0.0)) == pytest.approx([8.0])


def test_loss_slows_tcp_down_by_its_root_and_the_time_there_and_back() -> None:
    clean, lossy = (line(down=1000, latency_ms=40.0, loss=x).values[0] for x in (0.0, 0.01))
    assert clean.bits_per_s(up=False) == 1000 * MBIT
    assert lossy.bits_per_s(up=False) == pytest.approx(11_680 / 0.04 * math.sqrt(150))
    assert line(down=1, latency_ms=40.0, loss=0.01).values[0].bits_per_s(up=False) == MBIT


@pytest.mark.parametrize(
    ("hours", "zone_h", "now_h", "begins_h"),
    [
        (None, 0, 12.0, 12.0),
        ((20, 6), 0, 12.0, 20.0),
        ((20, 6), 0, 23.0, 23.0),
        ((20, 6), 0, 29.0, 29.0),
        ((20, 6), 0, 30.0, 44.0),
        ((20, 6), 2, 17.0, 18.0),
        ((9, 17), -5, 13.0, 14.0),
        ((9, 17), 0, 16.99, 16.99),
    ],
)
def test_work_begins_in_a_sites_hours_by_its_own_clock(
    hours: tuple[float, float] | None, zone_h: float, now_h: float, begins_h: float
) -> None:
    assert begin_work_s(hours, zone_h, now_h * 3600) == pytest.approx(begins_h * 3600)


def test_a_sites_values_follow_from_the_seed_and_its_name_alone() -> None:
    config = NetworkConfig(up_mbit_s={"median": 5, "factor": 2}, time_zones=(-5, 3))
    few, more = (site_connections(config, names, seed=1) for names in (["a", "b"], ["c", "b", "a"]))
    assert few["a"] == more["a"] != more["b"]
    assert site_connections(config, ["a"], seed=2)["a"] != few["a"]


def test_two_thirds_of_the_sites_are_within_the_factor() -> None:
    config = NetworkConfig(up_mbit_s={"median": 5, "factor": 2})
    lines = site_connections(config, [f"s{i}" for i in range(2000)], seed=0).values()
    up = np.array([of.values[0].up_mbit_s for of in lines])
    assert np.median(up) == pytest.approx(5, rel=0.1)
    assert ((up > 2.5) & (up < 10)).mean() == pytest.approx(0.68, abs=0.04)
    assert {of.values[0].down_mbit_s for of in lines} == {100.0}


def test_so_many_orders_are_lost_and_so_many_slow() -> None:
    config = NetworkConfig(dropout=0.1, slow_share=0.3, slow_factor=4)
    luck = [order_luck(config, 0, "a", f"train/{n}") for n in range(4000)]
    assert np.mean([one.is_lost for one in luck]) == pytest.approx(0.1, abs=0.02)
    assert np.mean([one.slowness == 4 for one in luck]) == pytest.approx(0.3, abs=0.03)
    assert order_luck(config, 0, "a", "train/7") == luck[7]


def test_a_clock_that_is_too_far_off_is_refused() -> None:
    assert SiteConnection((0.0,), (), clock_error_s=10.5).is_refused
    assert SiteConnection((0.0,), (), clock_error_s=-301).is_refused
    assert not SiteConnection((0.0,), (), clock_error_s=-299).is_refused


TRACE = "site,at_s,up_mbit_s,online\nnorth,0,4,\nnorth,60,1,\nnorth,90,,0\nsouth,0,9,1\n"


def test_a_trace_says_what_holds_when_and_others_are_like_one_of_its_sites(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(TRACE)
    config = NetworkConfig(trace=str(tmp_path / "trace.csv"))
    lines = site_connections(config, ["north", "south", *(f"x{i}" for i in range(20))], seed=0)
    assert [lines["north"].at(s).up_mbit_s for s in (0, 59, 60, 100)] == [4, 4, 1, 1]
    assert [lines["north"].at(s).online for s in (89.9, 90)] == [True, False]
    assert lines["north"].next_change_s(60) == 90
    assert lines["south"].values[0].down_mbit_s == 100, "what it does not say is the settings'"
    ups = {line.values[0].up_mbit_s for name, line in lines.items() if name.startswith("x")}
    assert ups == {4, 9}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "it cannot be read"),
        ("", "its columns are none"),
        ("site,at_s\n", "it has no rows"),
        ("site,up_mbit_s\na,1\n", "its columns are site, up_mbit_s"),
        ("site,at_s,speed\na,0,1\n", "a column 'speed'"),
        ("site,at_s,loss\na,0,2\n", "line 2 has '2' for loss"),
        ("site,at_s,up_mbit_s\na,0,1\na,x,1\n", "line 3 has 'x' for at_s"),
    ],
)
def test_a_trace_that_cannot_be_used_is_refused_by_what_is_wrong(
    tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "trace.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=f"HF-102.*{said}"):
        site_connections(NetworkConfig(trace=str(path)), ["a"], seed=0)
