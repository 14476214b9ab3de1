"""Updates that the coordinator sees as a sum: masked at the sites, encoded by a codec.

Every site gets the parameters of every group, so that neither messages nor sums tell which
modality a site has. Metrics and whether an update was shortened come out of the same sum, weights
of groups where the study does not hide modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from flwr.app import Message, RecordDict

from healthfm_core.arrays import Float32, Float64
from healthfm_core.errors import PrivacyError
from healthfm_core.federation import protocol
from healthfm_core.federation.compression.compressor import Compressor
from healthfm_core.federation.protocol import Study
from healthfm_core.federation.secure.codecs import codec_for
from healthfm_core.federation.secure.contracted_sums import ROUND
from healthfm_core.federation.secure.update_codec import RoundSum, UpdateCodec
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.seeding import seed_for
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.run_folder.people_told import told_people
from healthfm_server.study_setup.registered_sites import RegisteredSite
from healthfm_server.transport.downlink import Downlink, Pieces, holders_of
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.interface import Collected, GroupTally, OpenRound
from healthfm_server.transport.kept_sum import KeptSum
from healthfm_server.transport.measured_deadline import measured_timeouts
from healthfm_server.transport.orders import Orders
from healthfm_server.transport.secure_session import SummingSession, secure_exchange

_OF_OTHER_SITES: Final = 614


class SummedUpdates:
    """The groups of a sum that somebody moved.

    Args:
        means: Group → parameter → mean change.
    """

    def __init__(self, means: Mapping[str, Mapping[str, Float64]]) -> None:
        self._means = dict(means)

    def has_enough_sites(self, group: str) -> bool:
        """Return whether any site moved `group`."""
        return group in self._means

    def result(self, group: str) -> Mapping[str, Float64]:
        """Return parameter → mean change of `group`, and free it."""
        return self._means.pop(group)


class SecureTransport:
    """Sends orders and opens the sum of the masked updates.

    Args:
        study: What the sites agreed on.
        sites: Participating sites by name.
        exchange: Sends and receives.
        timeouts: Of the exchange that carries the arrays.
        orders: Writes the orders.
        downlink: How changes of the model are encoded; None: it travels whole.
    """

    def __init__(
        self,
        study: Study,
        sites: Mapping[str, RegisteredSite],
        exchange: Exchange,
        timeouts: Timeouts,
        orders: Orders,
        downlink: Compressor | None = None,
    ) -> None:
        self._downlink = downlink
        self._study = study
        self._sites = sites
        self._exchange = exchange
        self._longest = timeouts
        self._orders = orders
        self._closed: set[int] = set()
        self._masked = secure_exchange(exchange, timeouts, study.config, orders.signer)

    def groups(self, site: RegisteredSite, schema: UpdateSchema) -> tuple[str, ...]:
        """Return all groups: what a site is asked for tells nothing about it."""
        return tuple(schema.groups)

    def collect(self, current: OpenRound, state: ServerState, schema: UpdateSchema) -> Collected:
        """Open the sum of the round's updates.

        A sum that was asked for and not opened when the coordinator was stopped is opened first.
        Where the sites opened a sum of the same numbers with others before, the round brings
        nothing: what they would send again could be subtracted.

        Raises:
            PrivacyError: Too few sites took part (HF-611), or their shares do not open it (HF-610).
        """
        down = self._down(current, state, schema)
        kept = self._kept(current, schema)
        if kept is not None:
            return replace(kept, reference=self._reference(down))
        federation = self._study.config.federation
        self._masked.timeouts = measured_timeouts(
            self._longest, federation, current.store, self._exchange
        )
        summing = self._begin(current)
        book = self._masked.agree(summing)
        kept_sum = KeptSum(summing.server, {n: self._sites[n].n_subjects for n in book.adverts})
        capacity = kept_sum.capacity
        people = told_people(current.store)
        codec = codec_for(self._study, schema, book, capacity, people.by_modality)
        summing.server.sizes(codec.sizes())
        contents = self._contents(current, down)
        all_of_it = self._contents(current, replace(down, holders=frozenset()))

        def whole(site: str) -> RecordDict:
            current.store.note("model sent whole", round=current.number, site=site)
            return all_of_it(site)

        def keep() -> None:
            kept_sum.save(current.store.folder)

        try:
            more = {"capacity": capacity}
            sums = self._masked.sum(summing, protocol.TRAIN, contents, more, keep, whole)
        except PrivacyError as error:
            if error.number != _OF_OTHER_SITES:
                raise
            collected = self._without_update(current, codec, error)
        else:
            opened = codec.decode(sums, people.share(kept_sum.senders()))
            collected = _collected(current, opened, codec.rho)
        return replace(collected, reference=self._reference(down))

    def _down(self, current: OpenRound, state: ServerState, schema: UpdateSchema) -> Downlink:
        """Return how the model goes down; the same for a round that is asked for again."""
        if self._downlink is None:
            return Downlink(state.parameters)
        seed = seed_for(self._study.config.seed, "downlink", current.number)
        holders = holders_of(state, current, current.asked)
        return Downlink.of(state, schema.groups, holders, self._downlink, seed)

    def _reference(self, down: Downlink) -> Mapping[str, Float32]:
        return {} if self._downlink is None else down.model

    def _contents(self, current: OpenRound, down: Downlink) -> Callable[[str], RecordDict]:
        """Return what makes the records of a site's order, without the message of the session."""
        pieces: dict[bool, Pieces] = {}
        score = current.number - 1 not in self._closed

        def contents(site: str) -> RecordDict:
            held = site in down.holders
            if held not in pieces:
                pieces[held] = down.pieces(held=held)
            sent, groups = pieces[held], current.asked[site]
            record, more = sent.record(groups), sent.fields(groups)
            current.bytes_down += sum(len(array.data) for array in record.values())
            return self._orders.to_train(
                current, site, record, sent.digests, score=score, more=more
            )

        return contents

    def _kept(self, current: OpenRound, schema: UpdateSchema) -> Collected | None:
        """Return the sum that the coordinator had asked for when it was stopped, if it opens."""
        folder, known = current.store.folder, self._masked.known
        kept = KeptSum.load(folder, self._study.hash, current.number, known)
        if kept is None:
            return None
        names = {self._sites[name].node_id: name for name in current.asked}
        summing = SummingSession(names, kept.server, lambda *_: None, lambda *_: None)
        people = told_people(current.store)
        book, capacity = kept.server.book, kept.capacity
        codec = codec_for(self._study, schema, book, capacity, people.by_modality)
        try:
            sums = self._masked.open(summing)
            opened = codec.decode(sums, people.share(kept.senders()))
        except PrivacyError as error:
            current.store.note("sum not opened", round=current.number, reason=str(error))
            return None
        for site in kept.server.survivors:
            current.accept(site, {})
        return _collected(current, opened, codec.rho)

    def _without_update(
        self, current: OpenRound, codec: UpdateCodec, error: PrivacyError
    ) -> Collected:
        """Close a round that no sum may be opened of; its noise counts as if one had been."""
        self._closed.add(current.number)
        current.store.note("round without an update", round=current.number, reason=str(error))
        return _collected(current, RoundSum({}, {}, {}, {}), codec.rho)

    def _begin(self, current: OpenRound) -> SummingSession:
        names = {self._sites[name].node_id: name for name in current.asked}
        terms = self._masked.terms(self._study.hash, ROUND, current.number)

        def done(site: str, reply: Message) -> None:
            arrays = reply.content.array_records[protocol.ARRAYS]
            current.bytes_up += sum(len(array.data) for array in arrays.values())
            current.accept(site, {})

        def set_aside(site: str, reason: str) -> None:
            if "HF-404" in reason:
                self._orders.unprepared.add(site)
            current.reject(site, reason)

        return self._masked.begin(terms, names, done, set_aside)


def _collected(current: OpenRound, opened: RoundSum, rho: float | None) -> Collected:
    answered = len(current.metrics)
    return Collected(
        results=SummedUpdates(opened.means),
        tallies={
            group: GroupTally(answered, weight, {"clipped_sites": opened.clipped.get(group)})
            for group, weight in opened.weights.items()
        },
        metrics=opened.metrics,
        site_metrics={},
        rho=rho,
    )
