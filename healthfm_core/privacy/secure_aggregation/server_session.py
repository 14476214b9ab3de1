"""The coordinator's part in a session: it passes messages on, adds masked arrays, opens the sum.

It holds one running sum per array and never an unmasked array of one site. An input that comes
after it has asked for shares is not taken: the masks of its sender with others may be known by
then, and its own mask is all that would be left.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np

from healthfm_core.privacy.secure_aggregation import keys, shamir
from healthfm_core.privacy.secure_aggregation.masks import Ring, add_mask
from healthfm_core.privacy.secure_aggregation.messages import (
    Mailbox,
    SealedShares,
    UnmaskReply,
    UnmaskRequest,
)
from healthfm_core.privacy.secure_aggregation.reading import unfit
from healthfm_core.privacy.secure_aggregation.site_session import MASK, check_advert, too_few
from healthfm_core.privacy.secure_aggregation.terms import KeyAdvert, KeyBook, Terms

_MOST_TRIES: Final = 256
"""Sets of shares tried where one of them is wrong."""


class ServerSession:
    """One session; the methods are called in the order of the exchanges.

    Args:
        terms: The session's.
        known: Site → signing key under which it is known; one not named is believed.
    """

    def __init__(
        self,
        terms: Terms,
        known: Mapping[str, bytes] | None = None,
    ) -> None:
        self.terms = terms
        self._known = known or {}
        self._sums: dict[str, Ring] = {}
        self._adverts: dict[str, KeyAdvert] = {}
        self._book: KeyBook | None = None
        self._sealed: dict[str, SealedShares] = {}
        self._senders: tuple[str, ...] = ()
        self._folded: list[str] = []
        self._replies: dict[str, UnmaskReply] = {}
        self._asked = False

    def sizes(self, sizes: Mapping[str, tuple[int, str]]) -> None:
        """Say what is summed, before the first input.

        Args:
            sizes: Name → (length, ``uint16``, ``uint32`` or ``uint64``) of each array.
        """
        self._sums = {name: np.zeros(size, dtype) for name, (size, dtype) in sizes.items()}

    def take_advert(self, site: str, advert: KeyAdvert) -> None:
        """Take a site's keys.

        Raises:
            PrivacyError: They are another site's, not signed or not by the known key (HF-610).
        """
        if advert.site != site or self._book is not None:
            raise unfit(f"keys of site {site}", "another site's name on them, or too late")
        check_advert(advert, self.terms, self._known.get(site))
        self._adverts[site] = advert

    @property
    def book(self) -> KeyBook:
        """Everybody's keys; none are taken once it was read.

        Raises:
            PrivacyError: Too few sites sent theirs (HF-611).
        """
        if self._book is None:
            book = KeyBook(self.terms, dict(self._adverts))
            if len(self._adverts) < self.terms.min_sites or len(self._adverts) < book.least:
                raise too_few(len(self._adverts), max(2, self.terms.min_sites))
            self._book = book
        return self._book

    def take_shares(self, site: str, sealed: SealedShares) -> None:
        """Take a site's messages to its neighbours.

        Raises:
            PrivacyError: They are another site's, or not one for each neighbour (HF-610).
        """
        wanted = set(self.book.graph.get(site, ()))
        if sealed.site != site or set(sealed.messages) != wanted or self._senders:
            raise unfit(f"shares of site {site}", "not one message for each of its neighbours")
        self._sealed[site] = sealed

    def mailboxes(self) -> dict[str, Mailbox]:
        """Return what each site that sent messages gets; none are taken afterwards.

        Raises:
            PrivacyError: Too few sites sent theirs (HF-611).
        """
        self._senders = tuple(sorted(self._sealed))
        if len(self._senders) < self.book.least:
            raise too_few(len(self._senders), self.book.least)
        return {
            site: Mailbox(
                self._senders,
                {
                    name: self._sealed[name].messages[site]
                    for name in self.book.graph[site]
                    if name in self._sealed
                },
            )
            for site in self._senders
        }

    def fold(self, site: str, arrays: Mapping[str, Ring]) -> None:
        """Add a site's masked arrays to the sums; they are read once and not kept.

        Raises:
            PrivacyError: They have other names, types or lengths; the site has no part in the
                session, was folded already, or comes after shares were asked for (HF-610).
        """
        if site not in self._senders or site in self._folded or self._asked:
            raise unfit(f"input of site {site}", "twice, too late, or of no part in the session")
        fits = arrays.keys() == self._sums.keys() and all(
            array.dtype == self._sums[name].dtype and array.shape == self._sums[name].shape
            for name, array in arrays.items()
        )
        if not fits:
            raise unfit(f"input of site {site}", "arrays of another name, type or length")
        for name, array in arrays.items():
            self._sums[name] += array
        self._folded.append(site)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Sites whose input is in the sum, sorted."""
        return tuple(sorted(self._folded))

    def request(self) -> UnmaskRequest:
        """Return what every survivor is asked; no input is taken afterwards.

        Raises:
            PrivacyError: Too few inputs came (HF-611).
        """
        if len(self._folded) < self.book.least:
            raise too_few(len(self._folded), self.book.least)
        self._asked = True
        dropped = tuple(sorted(set(self._senders) - set(self._folded)))
        return UnmaskRequest(self.survivors, dropped)

    def to_state(self) -> tuple[dict[str, Any], Mapping[str, Ring]]:
        """Return the session once its inputs are in: what fits JSON, and the sums still masked."""
        sealed = {site: shares.to_json() for site, shares in self._sealed.items()}
        said = {"book": self.book.to_json(), "sealed": sealed}
        return {**said, "senders": list(self._senders), "folded": self._folded}, self._sums

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], sums: Mapping[str, Ring], known: Mapping[str, bytes]
    ) -> Self:
        """Return the session that `to_state` described, before it asked for shares.

        Args:
            state: From `to_state`.
            sums: Likewise; they are opened in place.
            known: Site → signing key under which it is known.
        """
        book = KeyBook.from_json(str(state["book"]))
        session = cls(book.terms, known)
        session._book, session._adverts = book, dict(book.adverts)
        session._sealed = {s: SealedShares.from_json(t) for s, t in state["sealed"].items()}
        session._senders, session._folded = tuple(state["senders"]), list(state["folded"])
        session._sums = dict(sums)
        return session

    def take_reply(self, site: str, reply: UnmaskReply) -> None:
        """Take the shares a site gives.

        Raises:
            PrivacyError: They are another site's, or not those asked for (HF-610).
        """
        near = {site, *self.book.graph.get(site, ())}
        own, pairwise = near & set(self._folded), near & (set(self._senders) - set(self._folded))
        fits = reply.site == site and reply.own.keys() == own and reply.pairwise.keys() == pairwise
        if site not in self._folded or not fits:
            raise unfit(f"shares of site {site}", "not those that were asked for")
        self._replies[site] = reply

    def open(self) -> dict[str, Ring]:
        """Return the sums without their masks.

        Raises:
            PrivacyError: Too few shares of a secret came (HF-611), or they give none (HF-610).
        """
        if len(self._replies) < self.terms.min_sites:
            raise too_few(len(self._replies), self.terms.min_sites)
        for site in self.survivors:
            secret = self._secret(site, own=True)
            for stream, name in enumerate(sorted(self._sums)):
                add_mask(self._sums[name], secret, stream, -1)
        for site in sorted(set(self._senders) - set(self._folded)):
            self._take_pairs_out(site, self._secret(site, own=False))
        return self._sums

    def _take_pairs_out(self, site: str, masking: bytes) -> None:
        """Take out what the survivors added for their pairs with a site that left."""
        for other in self.book.graph[site]:
            if other not in self._folded:
                continue
            peer = self.book.adverts[other].mask_key
            key = keys.agree(masking, peer, purpose=MASK, session=self.terms.session)
            for stream, name in enumerate(sorted(self._sums)):
                add_mask(self._sums[name], key, stream, -1 if other < site else 1)

    def _secret(self, site: str, *, own: bool) -> bytes:
        """Return the secret of which the survivors gave shares, known again by its public side."""
        given = {
            self.book.place[holder]: (reply.own if own else reply.pairwise)[site]
            for holder, reply in self._replies.items()
            if site in (reply.own if own else reply.pairwise)
        }
        needed = self.book.needed(site)
        if len(given) < needed:
            raise too_few(len(given), needed)
        tries = itertools.islice(itertools.combinations(sorted(given), needed), _MOST_TRIES)
        for places in tries:
            try:
                secret = shamir.combine({place: given[place] for place in places}, needed)
            except ValueError:
                continue
            if self._is_of(site, secret, own=own):
                return secret
        raise unfit(f"shares of site {site}", "shares that do not belong together")

    def _is_of(self, site: str, secret: bytes, *, own: bool) -> bool:
        if own:
            return keys.commitment(secret, self.terms.session) == self._sealed[site].commitment
        return keys.public_of(secret) == self.book.adverts[site].mask_key
