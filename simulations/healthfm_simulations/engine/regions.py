"""Sites behind regional coordinators, in one process: a region is a node of the national grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from healthfm_core.config import RunConfig
from healthfm_core.errors import ConfigError
from healthfm_server.region import regional_coordinator
from healthfm_server.transport.exchange import Timeouts
from healthfm_simulations.engine.inprocess import InProcessGrid
from healthfm_simulations.engine.nodes import NodeSpec


class RegionalGrid(InProcessGrid):
    """A national coordinator's grid, whose nodes are regional coordinators.

    Args:
        regions: Name → the region's app, in the order of the nodes.
    """

    def __init__(self, regions: Mapping[str, ClientApp]) -> None:
        super().__init__(ClientApp(), [NodeSpec(name, ()) for name in regions])
        self._apps = dict(enumerate(regions.values(), start=1))

    def _run_app(self, message: Message, context: Context) -> Message:
        return self._apps[context.node_id](message, context)


def regional_grid(
    config: RunConfig,
    nodes: Sequence[NodeSpec],
    folder: Path,
    site_app: ClientApp,
    stopped: Callable[[], bool],
) -> RegionalGrid:
    """Return the grid of a run whose sites are divided among regional coordinators.

    Args:
        config: Says how many regions there are.
        nodes: The sites; each region gets neighbours in this order.
        folder: The run's; a region's own is in it.
        site_app: What every site runs.
        stopped: Asked between replies.

    Raises:
        ConfigError: There are fewer sites than regions (HF-103).
    """
    count, federation = config.simulation.regions, config.federation
    if count > len(nodes):
        raise ConfigError(
            103,
            where="simulation.regions",
            seen=f"{count} regions of {len(nodes)} sites",
            wanted="a site for each region at least",
            do="Ask for fewer regions",
        )
    timeouts = Timeouts(federation.deadline_s, federation.ttl_s)
    apps = {}
    for number in range(count):
        first, last = (place * len(nodes) // count for place in (number, number + 1))
        name = f"region-{number + 1}"
        grid = InProcessGrid(site_app, nodes[first:last])
        own = folder / "regions" / name
        apps[name] = regional_coordinator.make_app(grid, own, timeouts, stopped)
    return RegionalGrid(apps)
