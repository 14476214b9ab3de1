"""The start of a run: wait until enough nodes are connected."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path

from flwr.serverapp import Grid

from healthfm_core.config.federation import FederationConfig
from healthfm_core.errors import ProtocolError
from healthfm_server.clock import SYSTEM_CLOCK, Clock
from healthfm_server.run_folder.run_waiting import WaitingNote
from healthfm_server.transport.exchange import POLL_S, run_was_stopped


def wait_for_nodes(
    grid: Grid,
    wanted: int,
    federation: FederationConfig,
    deadline_s: float,
    stopped: Callable[[], bool],
    folder: Path,
    only: Collection[int] = (),
    clock: Clock = SYSTEM_CLOCK,
) -> list[int]:
    """Return the ids of the connected nodes, sorted, once there are enough of them.

    Enough are all that are wanted, and after ``federation.gather_s`` the quorum of them.

    Args:
        grid: Flower's grid.
        wanted: How many nodes the run waits for.
        federation: Says the quorum.
        deadline_s: After it the run ends.
        stopped: Asked between two looks.
        folder: The run's, where it is noted who is connected while others are waited for.
        only: The nodes that the run is for, whoever else is connected; empty: all.
        clock: By which it waits.

    Raises:
        ProtocolError: Too few connected before the deadline (HF-403).
        RunError: The run was stopped (HF-705).
    """
    started_s = clock.monotonic()
    note = WaitingNote(folder, "connections", "start", wanted)
    quorum = max(1, math.ceil(federation.quorum * wanted - 1e-9))

    def there() -> list[int]:
        return sorted(node for node in grid.get_node_ids() if not only or node in only)

    while len(nodes := there()) < wanted:
        if stopped():
            raise run_was_stopped()
        waited_s = clock.monotonic() - started_s
        if waited_s > min(federation.gather_s, deadline_s) and len(nodes) >= quorum:
            break
        if waited_s > deadline_s:
            raise ProtocolError(
                403,
                where="start",
                seen=f"{len(nodes)} nodes are connected",
                wanted=f"the run waits for {quorum} of {wanted}",
                do="Start the missing nodes; a study's run goes on by itself, a simulation with "
                "resume=true",
            )
        note.of(nodes)
        clock.sleep(POLL_S)
    note.over()
    return nodes
