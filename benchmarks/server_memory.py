"""Peak memory of the coordinator's round loop, per number of sites, with a model of 200 MB.

    python benchmarks/server_memory.py [--model-mb 200] [--sites 2 4 8]

The real round loop over Flower's real grid, with checkpoints; behind the grid's client stands a
double of the SuperLink that takes what is sent and serves replies of the model's size from files,
so that no memory but the ServerApp's is counted. Each count of sites has a process of its own. What
is counted is private memory (RssAnon) at its highest, less what the process had before there was a
model; beside it stands the same with pages of mapped files (RssFile: checkpoint and reply), which
the system takes back when it needs them. Goal: at most 3 times the model, whatever the number of
sites.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
GOAL = 3.0
MB = 1e6


class SuperLink:
    """Flower's client to a SuperLink: takes messages, and serves one reply for each from files."""

    def __init__(self, folder: Path, arrays: dict[str, Any]) -> None:
        self._folder, self._arrays = folder, arrays
        self._trees: list[Any] = []
        self._known: list[Any] = []

    def prepare(self, sites: int) -> None:
        """Write every site's reply."""
        from flwr.app import ConfigRecord, Metadata, MetricRecord, RecordDict
        from flwr.app.message import make_message, remove_content_from_message
        from flwr.common.serde import message_to_proto
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
        )

        from healthfm_client.transport.site_array_records import to_record

        for node in range(1, sites + 1):
            name = f"site-{node}"
            content = RecordDict(
                {
                    "site": ConfigRecord({"site": name, "node": str(node)}),
                    "arrays": to_record(self._arrays),
                    "weights": MetricRecord({"backbone": 100.0}),
                    "metrics": MetricRecord({"loss": 1.0}),
                }
            )
            about = Metadata(1, "", node, 1, f"order-{node}", "1", 0.0, 60.0, "train")
            reply = make_message(about, content)
            reply.metadata.__dict__["_message_id"] = reply.object_id
            for key, value in get_all_nested_objects(reply).items():
                (self._folder / key).write_bytes(value.deflate())
            self._trees.append(get_object_tree(reply))
            self._known.append(message_to_proto(remove_content_from_message(reply)))
        self._arrays = {}

    def PushMessages(self, request: Any) -> Any:
        """Take messages; their ids are those that the replies answer."""
        from flwr.proto.runtime_pb2 import PushAppMessagesResponse
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

        ids = [f"order-{m.metadata.dst_node_id}" for m in request.messages_list]
        wanted = {
            t.object_id for tree in request.message_object_trees for t in iterate_object_tree(tree)
        }
        return PushAppMessagesResponse(message_ids=ids, objects_to_push=wanted, session_id="s")

    def PushObject(self, request: Any) -> Any:
        """Take a piece."""
        from flwr.proto.message_pb2 import PushObjectResponse

        return PushObjectResponse(stored=True)

    def PullMessages(self, request: Any) -> Any:
        """Tell of every reply that is asked for."""
        from flwr.proto.runtime_pb2 import PullAppMessagesResponse

        return PullAppMessagesResponse(messages_list=self._known, message_object_trees=self._trees)

    def PullObject(self, request: Any) -> Any:
        """Serve a piece."""
        from flwr.proto.message_pb2 import PullObjectResponse

        content = (self._folder / request.object_id).read_bytes()
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> None:
        """Take note of nothing."""


def resident_mb() -> tuple[float, float]:
    """Return the private memory of this process, and that with pages of files, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split()[0]: int(line.split()[1]) * 1024 / MB for line in lines if "kB" in line}
    return found["RssAnon:"], found["RssAnon:"] + found["RssFile:"]


class Peak(threading.Thread):
    """Looks at the memory a hundred times a second and keeps the highest, less what was before."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.base = resident_mb()
        self.most = (0.0, 0.0)

    def run(self) -> None:
        """Look."""
        while True:
            now = zip(resident_mb(), self.base, strict=True)
            over = [seen - before for seen, before in now]
            self.most = max(self.most[0], over[0]), max(self.most[1], over[1])
            time.sleep(0.01)


def one(sites: int, model_mb: float) -> dict[str, float]:
    """Run a round with so many sites; return base and peak in MB."""
    import numpy as np
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid.http_grid import HttpGrid

    from healthfm_core.config.run import RunConfig
    from healthfm_core.federation.aggregation.server_optimizer import OptimizerState
    from healthfm_core.federation.protocol import VERSION, Study
    from healthfm_server.app import make_round_loop
    from healthfm_server.run_folder.checkpoints import ServerState
    from healthfm_server.run_folder.run_store import RunStore
    from healthfm_server.study_setup.core_model_setup import CoreModelSetup
    from healthfm_server.study_setup.registered_sites import RegisteredSite
    from healthfm_server.transport.exchange import Exchange, Timeouts

    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    assert CoreModelSetup  # what a real ServerApp has imported by then
    config = RunConfig.model_validate({"federation": {"rounds": 1, "keep_checkpoints": 1}})
    columns = 1000
    rows = int(model_mb * MB / 4 / columns / 20)

    def arrays(value: float) -> dict[str, Any]:
        shape = (rows, columns)
        return {f"backbone.layer{n}.w": np.full(shape, value, np.float32) for n in range(20)}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "objects").mkdir()
        link = SuperLink(folder / "objects", arrays(1e-6))
        link.prepare(sites)
        import gc

        gc.collect()
        peak = Peak()
        peak.start()
        grid = HttpGrid(token="t")
        grid._client = link  # type: ignore[assignment]
        grid.set_run(Run.create_empty(1))
        people = {
            f"site-{n}": RegisteredSite(f"site-{n}", n, frozenset({"ehr"}), 100)
            for n in range(1, sites + 1)
        }
        study = Study(VERSION, "r", config, None, ("ehr",))  # type: ignore[arg-type]
        study.__dict__["hash"] = "h"
        store = RunStore.create(folder / "run", config)
        state = store.save(ServerState(0, arrays(0.5), OptimizerState()))
        exchange = Exchange(grid, store.folder)
        loop = make_round_loop(study, people, exchange, store, Timeouts(600.0, 600.0))
        state = loop.round(state)
        assert len(store.history()[-1]["answered"]) == sites, store.history()[-1]["set_aside"]
    private, with_files = peak.most
    return {
        "sites": sites,
        "base_mb": peak.base[0],
        "peak_mb": private,
        "peak_with_files_mb": with_files,
    }


def main() -> None:
    """Measure each in a process of its own, print, and write results/server_memory.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-mb", type=float, default=200.0)
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.model_mb)))
        return
    rows = []
    for sites in given.sites:
        words = ["--one", str(sites), "--model-mb", str(given.model_mb)]
        done = subprocess.run(
            [sys.executable, __file__, *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        share = rows[-1]["peak_mb"] / given.model_mb
        print(
            f"{sites:3} sites: {rows[-1]['peak_mb']:.0f} MB over {rows[-1]['base_mb']:.0f} MB, "
            f"{share:.2f} times the model (goal {GOAL:g}); "
            f"{rows[-1]['peak_with_files_mb'] / given.model_mb:.2f} with pages of files"
        )
    RESULTS.mkdir(exist_ok=True)
    figures = {"model_mb": given.model_mb, "goal": GOAL, "rows": rows}
    (RESULTS / "server_memory.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
