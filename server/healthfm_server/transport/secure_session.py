"""A secure sum over Flower's messages: keys, shares, masked arrays, shares that open the sum.

Around one exchange that carries the arrays stand three with messages of a few kilobytes. A reply
that does not fit is set aside with its reason, and the session goes on with the others; below its
threshold it ends with HF-611 and nothing was opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from flwr.app import ConfigRecord, Message, RecordDict

from healthfm_core.config.run import RunConfig
from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.errors import HealthFMError, PrivacyError
from healthfm_core.federation import protocol
from healthfm_core.federation.secure.contracted_sums import SESSION, session_terms
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.privacy.secure_aggregation.masks import Ring
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.transport.array_records import read
from healthfm_server.transport.downlink import LACKS_THE_MODEL
from healthfm_server.transport.exchange import Exchange, Timeouts

_OF_OTHER_SITES: Final = "HF-614"


@dataclass
class SummingSession:
    """One session at work.

    Attributes:
        names: Node → site.
        server: The session.
        done: Hears of each site whose masked arrays are in the sum.
        set_aside: Hears of each site that is not, and why.
        gone: The sites that are not.
        refusals: What sites refused with, at whichever exchange.
    """

    names: Mapping[int, str]
    server: secure.ServerSession
    done: Callable[[str, Message], None]
    set_aside: Callable[[str, str], None]
    gone: set[str] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)

    def because(self, error: PrivacyError) -> PrivacyError:
        """Return why a sum was not opened: what the sites refuse for, else `error`."""
        found = next((text for text in self.refusals if _OF_OTHER_SITES in text), None)
        if found is None:
            return error
        return PrivacyError(
            614,
            where=f"{self.server.terms.purpose} {self.server.terms.number}",
            seen=f"sites that refuse it ({found[:300]})",
        )


def secure_exchange(
    exchange: Exchange, timeouts: Timeouts, config: RunConfig, signer: ContractSigner
) -> SecureExchange:
    """Return what runs the sessions of a run.

    Args:
        exchange: Sends and receives.
        timeouts: Of the exchange that carries the arrays.
        config: The run's.
        signer: Signs the messages.
    """
    secure, factor = config.federation.aggregation.secure, config.federation.deadline_s
    message_timeout_s = secure.message_timeout_s * timeouts.deadline_s / factor
    return SecureExchange(exchange, timeouts, secure, message_timeout_s, signer)


class SecureExchange:
    """Runs sessions of secure aggregation.

    Args:
        exchange: Sends and receives.
        timeouts: Of the exchange that carries the arrays.
        config: Thresholds.
        message_timeout_s: How long the other three wait for sites.
        signer: Signs the messages; does nothing in a simulation.

    Attributes:
        timeouts: As given, until a round's are measured.
    """

    def __init__(
        self,
        exchange: Exchange,
        timeouts: Timeouts,
        config: SecureAggregationConfig,
        message_timeout_s: float,
        signer: ContractSigner,
    ) -> None:
        self._signer = signer
        self._exchange = exchange
        self.timeouts = timeouts
        self._config = config
        self._known: dict[str, bytes] = {}
        self._letters = Timeouts(min(message_timeout_s, timeouts.deadline_s), timeouts.ttl_s)

    def terms(self, study: str, purpose: str, number: int) -> secure.Terms:
        """Return terms of a new session; the nonce makes it unlike every other."""
        return session_terms(self._config, study, purpose, number, secrets.token_hex(16))

    @property
    def known(self) -> Mapping[str, bytes]:
        """Site → signing key that it had in an earlier session."""
        return self._known

    def begin(
        self,
        terms: secure.Terms,
        names: Mapping[int, str],
        done: Callable[[str, Message], None],
        set_aside: Callable[[str, str], None],
    ) -> SummingSession:
        """Return a session with the sites `names`; keys seen in an earlier one are known."""
        return SummingSession(names, secure.ServerSession(terms, self._known), done, set_aside)

    def agree(self, summing: SummingSession) -> secure.KeyBook:
        """Return everybody's keys.

        Raises:
            PrivacyError: Too few sites sent theirs (HF-611).
        """
        terms = summing.server.terms.to_json()
        busy = self._exchange.busy()
        for node, site in summing.names.items():
            if node in busy:
                self._drop(summing, site, "it was busy")
        messages = {node: terms for node, site in summing.names.items() if node not in busy}
        for site, text in self._ask(summing, protocol.KEYS, messages):
            with self._setting_aside(summing, site):
                summing.server.take_advert(site, secure.KeyAdvert.from_json(text))
        book = summing.server.book
        self._known |= {site: advert.signing_key for site, advert in book.adverts.items()}
        return book

    def sum(
        self,
        summing: SummingSession,
        kind: str,
        contents: Callable[[str], RecordDict],
        more: Mapping[str, str | int],
        keep: Callable[[], None] = lambda: None,
        whole: Callable[[str], RecordDict] | None = None,
    ) -> dict[str, Ring]:
        """Return the opened sums of the masked arrays that `kind` brings back.

        Args:
            summing: After `agree`.
            kind: The message that carries the arrays.
            contents: Site → its records, without the secure-aggregation message.
            more: What every message says beside the mailbox.
            keep: Called once the inputs are in, before any site is asked to open their sum.
            whole: Likewise, for a site that lacks what its `contents` are a change of.

        Raises:
            PrivacyError: Too few sites are left (HF-611), the shares do not open it (HF-610), or
                sites opened a sum of the same numbers with others (HF-614).
        """
        try:
            self._add_up(summing, kind, contents, more, whole)
            keep()
            return self.open(summing)
        except PrivacyError as error:
            raise summing.because(error) from error

    def _add_up(
        self,
        summing: SummingSession,
        kind: str,
        contents: Callable[[str], RecordDict],
        more: Mapping[str, str | int],
        whole: Callable[[str], RecordDict] | None,
    ) -> None:
        nodes = {site: node for node, site in summing.names.items()}
        book = summing.server.book
        messages = {nodes[site]: book.to_json() for site in book.adverts}
        for site, text in self._ask(summing, protocol.SHARES, messages):
            with self._setting_aside(summing, site):
                summing.server.take_shares(site, secure.SealedShares.from_json(text))
        letters = {
            site: self._record(summing, site, kind, {"json": mailbox.to_json(), **more})
            for site, mailbox in summing.server.mailboxes().items()
        }

        def orders(
            to: Collection[str], records: Callable[[str], RecordDict]
        ) -> dict[int, RecordDict]:
            messages = {}
            for site in to:
                messages[nodes[site]] = records(site)
                messages[nodes[site]][protocol.SECURE_MESSAGE] = letters[site]
            return messages

        lacking = self._take_arrays(summing, kind, orders(letters, contents))
        if lacking and whole is not None:
            self._take_arrays(summing, kind, orders(lacking, whole))
        for site in letters:
            if site not in summing.server.survivors:
                self._drop(summing, site, "it did not answer in time")

    def _take_arrays(
        self, summing: SummingSession, kind: str, orders: Mapping[int, RecordDict]
    ) -> list[str]:
        """Add what comes back; return the sites that lack the model which theirs is a change of."""
        group, lacking = str(summing.server.terms.number), []
        for reply in self._exchange(orders, kind, group, self.timeouts):
            site = summing.names.get(reply.metadata.src_node_id, "")
            if site and reply.has_error() and reply.error.code == LACKS_THE_MODEL:
                lacking.append(site)
                continue
            with self._setting_aside(summing, site):
                _refuse_error(reply)
                summing.server.fold(site, read(reply.content.array_records[protocol.ARRAYS]))
                summing.done(site, reply)
        return lacking

    def open(self, summing: SummingSession) -> dict[str, Ring]:
        """Return the sums, opened by those of their sites that are still there.

        Raises:
            PrivacyError: Too few are (HF-611), or their shares do not open it (HF-610).
        """
        request = summing.server.request()
        text, asked = request.to_json(), set(request.survivors)
        messages = {node: text for node, site in summing.names.items() if site in asked}
        for site, text in self._ask(summing, protocol.UNMASK, messages, final=True):
            with self._setting_aside(summing, site, final=True):
                summing.server.take_reply(site, secure.UnmaskReply.from_json(text))
        return summing.server.open()

    def _ask(
        self,
        summing: SummingSession,
        kind: str,
        messages: Mapping[int, str],
        *,
        final: bool = False,
    ) -> Iterator[tuple[str, str]]:
        """Send messages and yield (site, answer); note who gives none."""
        contents = {
            node: RecordDict(
                {
                    protocol.SECURE_MESSAGE: self._record(
                        summing, summing.names[node], kind, {"json": text}
                    )
                }
            )
            for node, text in messages.items()
        }
        silent = {summing.names[node] for node in messages}
        group = str(summing.server.terms.number)
        for reply in self._exchange(contents, kind, group, self._letters):
            site = summing.names.get(reply.metadata.src_node_id, "")
            silent.discard(site)
            with self._setting_aside(summing, site, final=final):
                _refuse_error(reply)
                yield site, str(reply.content.config_records[protocol.SECURE_MESSAGE]["json"])
        for site in sorted(silent):
            self._drop(summing, site, "it did not answer in time", final=final)

    def _record(
        self, summing: SummingSession, site: str, kind: str, said: dict[str, str | int]
    ) -> ConfigRecord:
        named = {**said, SESSION: summing.server.terms.session.hex()}
        return ConfigRecord(self._signer.of_sum(site, kind, named))

    @contextmanager
    def _setting_aside(
        self, summing: SummingSession, site: str, *, final: bool = False
    ) -> Iterator[None]:
        """Set the site aside where its reply raises what a reply can cause."""
        try:
            yield
        except (HealthFMError, KeyError, ValueError, TypeError) as error:
            summing.refusals.append(str(error))
            self._drop(summing, site, str(error)[:300], final=final)

    def _drop(
        self, summing: SummingSession, site: str, reason: str, *, final: bool = False
    ) -> None:
        """Tell of a site that left; one that left after its input has its part in the sum."""
        if site not in summing.gone and not final:
            summing.gone.add(site)
            summing.set_aside(site, reason)


def _refuse_error(reply: Message) -> None:
    if reply.has_error():
        raise ValueError(reply.error.reason or f"the node failed with code {reply.error.code}")
