"""The coordinator's memory does not grow with the number of sites."""

from __future__ import annotations

import tracemalloc

import pytest
from flwr.app import Context, RecordDict

from healthfm_client.app import make_app as make_client_app
from healthfm_server.app import make_app as make_server_app
from healthfm_simulations.engine.inprocess import InProcessGrid
from tests import three_numbers as small

PARAMETERS = 1_000_000


def peak_of_a_run(folder, sites: int) -> int:
    """Return the most bytes held at once in a run of one round, sites and coordinator together."""
    nodes = [small.site(folder, f"s{i}", pull=1.0, n=10) for i in range(sites)]
    grid = InProcessGrid(make_client_app(small.ClientWork()), nodes)
    config = small.config(rounds=1).model_dump_json()
    raw = {"config": config, "folder": str(folder / "run"), "nodes": sites}
    tracemalloc.start()
    try:
        make_server_app(small.ServerWork())(grid, Context(1, 0, {}, RecordDict(), raw))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_eight_sites_take_no_more_memory_than_four(tmp_path, monkeypatch):
    monkeypatch.setitem(small.SHAPES, "backbone.w", (PARAMETERS,))
    four, eight = (peak_of_a_run(tmp_path / str(n), n) for n in (4, 8))
    assert eight == pytest.approx(four, rel=0.02)
    assert four > 4 * PARAMETERS  # the model itself was measured
