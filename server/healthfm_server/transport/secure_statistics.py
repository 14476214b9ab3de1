"""Round 0 of a secure study: two sums, from which the vocabulary is made.

The first says how many distinct codes and buckets the sites have, the second is of tables with
room for them. A table that cannot be read back is asked for again under another salt.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from flwr.app import ConfigRecord, Message, RecordDict

from healthfm_core.config.run import RunConfig
from healthfm_core.errors import PrivacyError, ProtocolError
from healthfm_core.federation import protocol
from healthfm_core.federation.parameter_groups import agree_on_modalities
from healthfm_core.federation.secure.contracted_sums import MOST_TRIES, STATISTICS
from healthfm_core.federation.secure.statistics_codec import StatisticsLayout, mark_sizes
from healthfm_core.modalities.ehr import EHR
from healthfm_core.privacy.secure_aggregation.masks import Ring
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.registered_sites import RegisteredSite
from healthfm_server.transport.secure_session import SecureExchange

_PASSING: Final = (402, 614)
"""A table that cannot be read back, or a site that was away: worth another try."""
Ask = Callable[[Mapping[str, Any]], ConfigRecord]
"""Returns a new statistics order that says something besides the question."""


class SecureStatistics:
    """Asks registered sites for their statistics, as sums.

    Args:
        masked: Runs the sessions.
        store: Takes the events.
        config: The run's.
        agreement: What the run's sums of statistics name as their study.
    """

    def __init__(
        self, masked: SecureExchange, store: RunStore, config: RunConfig, agreement: str
    ) -> None:
        self._masked = masked
        self._store = store
        self._config = config
        self._agreement = agreement

    def sum(
        self, sites: Mapping[str, RegisteredSite], ask: Ask
    ) -> tuple[SiteStatistics, int, tuple[str, ...]]:
        """Return the statistics of all sites, how many hold codes, and the study's modalities.

        Raises:
            PrivacyError: Too few sites took part (HF-611), or others than in an earlier sum
                (HF-614).
            ProtocolError: The tables could not be read back (HF-402), or no modality is left
                (HF-406).
        """
        for number in range(MOST_TRIES - 1):
            try:
                return self._try(sites, ask, 2 * number)
            except (ProtocolError, PrivacyError) as error:
                if error.number not in _PASSING:
                    raise
                self._store.note("statistics again", reason=str(error))
        return self._try(sites, ask, 2 * (MOST_TRIES - 1))

    def _try(
        self,
        sites: Mapping[str, RegisteredSite],
        ask: Ask,
        number: int,
    ) -> tuple[SiteStatistics, int, tuple[str, ...]]:
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
        return statistics, holders.get(EHR, 0), self._modalities(holders, answered)

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
        ask: Ask,
        number: int,
        sizes: Mapping[str, tuple[int, str]],
        order: Mapping[str, str | int],
        salt: int,
    ) -> dict[str, Ring]:
        terms = self._masked.terms(self._agreement, STATISTICS, number)

        def done(site: str, reply: Message) -> None:
            return None

        def set_aside(site: str, reason: str) -> None:
            self._store.note("set aside", phase="statistics", site=site, reason=reason)

        names = {site.node_id: name for name, site in sites.items()}
        summing = self._masked.begin(terms, names, done, set_aside)
        book = self._masked.agree(summing)
        capacity = sum(sites[name].n_subjects for name in book.adverts)
        summing.server.sizes(sizes)
        which = {"study": self._agreement, "number": number, "salt": salt}
        asked = ask({**order, **which})

        def contents(site: str) -> RecordDict:
            return RecordDict({protocol.ORDER: asked})

        return self._masked.sum(summing, protocol.STATISTICS, contents, {"capacity": capacity})
