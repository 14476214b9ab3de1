"""A dry run: every site is asked whether it would begin, and nothing is computed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from healthfm_core.config.run import RunConfig
from healthfm_core.error_codes import CODES
from healthfm_core.errors import RunError
from healthfm_core.federation import protocol
from healthfm_core.federation.contracting import terms_before
from healthfm_server.deploy.expected_cost import NOT_KNOWN, expected_cost
from healthfm_server.run_folder.dry_run_file import DryRunTold, SiteWould
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.transport.exchange import POLL_S, Exchange, Timeouts

CONNECT_S: Final = 15.0
"""Who has not connected by then is told as not connected."""
ANSWER_S: Final = 60.0
"""A site only reads its own rules and counts its people."""
PHASE: Final = "dry run"
FAILED: Final = 407
"""The site met an error that is none of its rules'."""


def dry_run(
    grid: Grid,
    exchange: Exchange,
    store: RunStore,
    config: RunConfig,
    signer: ContractSigner,
    nodes: Collection[int],
) -> DryRunTold:
    """Ask the sites, write what they said into the run's folder, and return it.

    Args:
        grid: Says who is connected.
        exchange: Sends and receives.
        store: The run's folder, among the study's other runs.
        config: What the run would do.
        signer: Signs the contracts and knows the sites.
        nodes: Whom the run is for.
    """
    connected = _connected(grid, exchange, nodes)
    sites = {
        signer.name_of(node): SiteWould("not connected") for node in set(nodes) - set(connected)
    }
    sites |= {signer.name_of(node): SiteWould("no answer") for node in connected}

    def question() -> RecordDict:
        contract = signer.sign(lambda: terms_before(store.run_id(), config), config)
        return RecordDict({protocol.ORDER: ConfigRecord({"version": protocol.VERSION, **contract})})

    contents = {node: question() for node in connected}
    timeouts = Timeouts(ANSWER_S, ANSWER_S)
    for reply in exchange(contents, protocol.DRY_RUN, PHASE, timeouts):
        sites[signer.name_of(reply.metadata.src_node_id)] = _would(reply)
    cost, said = None, NOT_KNOWN
    try:
        cost = expected_cost(store.folder.parent, config)
    except RunError as error:  # what the sites said is told all the same
        said = f"bytes and time are not known: {error}"
    told = DryRunTold(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        sites=dict(sorted(sites.items())),
        expected=None if cost is None else asdict(cost),
        said=said if cost is None else cost.sentence(),
    )
    told.save(store.folder)
    return told


def _connected(grid: Grid, exchange: Exchange, nodes: Collection[int]) -> list[int]:
    until = exchange.clock.monotonic() + CONNECT_S
    while True:
        there = sorted(node for node in grid.get_node_ids() if node in nodes)
        if len(there) == len(nodes) or exchange.clock.monotonic() >= until:
            return there
        exchange.rest(POLL_S)


def _would(reply: Message) -> SiteWould:
    """Return what a reply says; a release without dry runs answers with an error of Flower's."""
    if reply.has_error():
        code = reply.error.code
        reason = reply.error.reason or f"the node failed with code {code}"
        is_refusal = code in CODES and code != FAILED
        return SiteWould("refuse" if is_refusal else "no answer", reason[:300])
    begin = reply.content.config_records.get(protocol.WOULD, ConfigRecord()).get("begin")
    if begin not in (0, 1):
        return SiteWould("no answer", "its answer is not one of a dry run")
    return SiteWould("begin" if begin else "ask a person")
