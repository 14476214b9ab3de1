"""Round 0 of a secure study: two sums, from which the vocabulary is made.

The first says how many distinct codes and buckets the sites have, the second is of tables with
room for them. A table that cannot be read back is asked for again under another salt.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from flwr.app import ConfigRecord, Message, RecordDict

from healthfm_core.config.run import RunConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.federation import protocol
from healthfm_core.federation.parameter_groups import agree_on_modalities
from healthfm_core.federation.secure.statistics_codec import StatisticsLayout, mark_sizes
from healthfm_core.privacy.secure_aggregation.masks import Ring
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.registered_sites import RegisteredSite
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.secure_session import SecureExchange

_TRIES: Final = 3


class SecureStatistics:
    """Asks registered sites for their statistics, as sums.

    Args:
        exchange: Sends and receives.
        store: Takes the events.
        timeouts: Of the exchanges that carry arrays.
        config: The run's.
    """

    def __init__(
        self, exchange: Exchange, store: RunStore, timeouts: Timeouts, config: RunConfig
    ) -> None:
        factor = timeouts.deadline_s / config.federation.deadline_s
        secure = config.federation.aggregation.secure
        self._masked = SecureExchange(exchange, timeouts, secure, factor * secure.message_timeout_s)
        self._store = store
        self._config = config
        self._run = secrets.token_hex(16)

    def sum(
        self, sites: Mapping[str, RegisteredSite], ask: Callable[[], ConfigRecord]
    ) -> tuple[SiteStatistics, tuple[str, ...]]:
        """Return the statistics of all sites together, and the study's modalities.

        Raises:
            PrivacyError: Too few sites took part (HF-611).
            ProtocolError: The tables could not be read back (HF-402), or no modality is left
                (HF-406).
        """
        for number in range(_TRIES - 1):
            try:
                return self._try(sites, ask, 2 * number)
            except ProtocolError as error:
                self._store.note("statistics again", reason=str(error))
        return self._try(sites, ask, 2 * _TRIES)

    def _try(
        self, sites: Mapping[str, RegisteredSite], ask: Callable[[], ConfigRecord], number: int
    ) -> tuple[SiteStatistics, tuple[str, ...]]:
        salt = secrets.randbits(62)
        marks = self._session(sites, ask, number, mark_sizes(), {"step": "marks"}, salt)
        layout = StatisticsLayout.for_totals(marks, salt)
        order: dict[str, str | int] = {
            "step": "tables",
            "codes": layout.codes.cells,
            "sketch": layout.sketch.cells,
        }
        statistics, holders, answered = layout.decode(
            self._session(sites, ask, number + 1, layout.sizes(), order, salt)
        )
        return statistics, self._modalities(holders, answered)

    def _modalities(self, holders: Mapping[str, int], sites: int) -> tuple[str, ...]:
        """Return the study's modalities as `agree_on_modalities` would of the sites' own lists."""
        everywhere = [name for name, count in holders.items() if count == sites]
        anywhere = [name for name, count in holders.items() if count]
        return agree_on_modalities(
            [everywhere, anywhere], self._config.federation.aggregation.groups
        )

    def _session(
        self,
        sites: Mapping[str, RegisteredSite],
        ask: Callable[[], ConfigRecord],
        number: int,
        sizes: Mapping[str, tuple[int, str]],
        order: Mapping[str, str | int],
        salt: int,
    ) -> dict[str, Ring]:
        study = hashlib.sha256(f"{self._run}".encode()).hexdigest()
        terms = self._masked.terms(study, "statistics", number)

        def done(site: str, reply: Message) -> None:
            return None

        def set_aside(site: str, reason: str) -> None:
            self._store.note("set aside", phase="statistics", site=site, reason=reason)

        names = {site.node_id: name for name, site in sites.items()}
        summing = self._masked.begin(terms, names, done, set_aside)
        self._masked.agree(summing)
        summing.server.sizes(sizes)
        asked: dict[str, Any] = {**ask(), **order, "salt": salt}

        def contents(site: str) -> RecordDict:
            return RecordDict({protocol.ORDER: ConfigRecord(asked)})

        return self._masked.sum(summing, protocol.STATISTICS, contents, {})
