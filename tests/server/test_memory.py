"""The coordinator's memory does not grow with the number of sites."""

from __future__ import annotations

import gc
import tracemalloc

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
    gc.collect()  # what tests before this one left is not of this run
    often = gc.get_threshold()
    gc.set_threshold(50, 2, 2)  # a reply in a circle of references is not a reply held
    tracemalloc.start()
    try:
        make_server_app(small.ServerWork())(grid, Context(1, 0, {}, RecordDict(), raw))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.set_threshold(*often)


def test_eight_sites_take_no_more_memory_than_four(tmp_path, monkeypatch):
    monkeypatch.setitem(small.SHAPES, "backbone.w", (PARAMETERS,))
    four, eight = (peak_of_a_run(tmp_path / str(n), n) for n in (4, 8))
    model = 4 * PARAMETERS
    assert eight < four + 2 * model  # four more replies held would be four models, and their sums
    assert four > model  # the model itself was measured
