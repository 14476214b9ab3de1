"""How long a round waits for its sites: some times what their answers took so far.

A deadline of an hour is right for a study whose rounds take half an hour, and costs one whose
rounds take ten seconds an hour whenever an answer is lost. So the deadline follows what was
measured, and `federation.deadline_s` is the longest it may be, and the first one.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Final

from healthfm_core.config.federation import FederationConfig
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.transport.exchange import Exchange, Timeouts

SHORTEST_S: Final = 60.0
"""A site whose node was killed is back within a minute, and Flower asks it again."""
RECENT: Final = 10
"""Rounds, the newest, by whose slowest answer the next is measured."""


def measured_timeouts(
    longest: Timeouts, config: FederationConfig, store: RunStore, exchange: Exchange
) -> Timeouts:
    """Return the timeouts of the next round.

    An answer that comes when its round is over counts too, so that a site that has become slower
    is waited for again; and of rounds in which sites score the model one at least is among those
    that are looked at.

    Args:
        longest: The run's own; `patience` 0: always these.
        config: Says how often sites score the model.
        store: The run's rounds.
        exchange: Knows the late answers.
    """
    rows = islice(store.newest_rows(), max(RECENT, config.evaluate_every + 1))
    took = [s for row in rows for s in dict(row.get("site_seconds", {})).values()]
    slowest = max([*took, *exchange.late_s.values()], default=0.0)
    if not longest.patience or not slowest:
        return longest
    wait_s = max(SHORTEST_S, longest.patience * slowest)
    return replace(longest, deadline_s=min(longest.deadline_s, wait_s))
