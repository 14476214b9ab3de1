"""The handshake of a sum as a machine of states: a coordinator that lies, sites that come and go.

The sites are real (`Masking`, with its folder on disk); the coordinator keeps every message and
says to each site what it likes. After each step all sets of sites are tried whose masked arrays it
could add up with the secrets that it has by then.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, RecordDict
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import tests.quiet_flower  # noqa: F401
from healthfm_client.site.site_home import SiteHome
from healthfm_client.transport.masking import Masking
from healthfm_core.errors import PrivacyError
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.trust.site_keys import SiteKeys

SITES = ("a", "b", "c", "d", "e", "f")
MIN_SITES = 3
SETS = [frozenset(names) for names in ("abcdef", "abcde", "bcdef", "abc", "def")]


@dataclass
class Attempt:
    """One session as the coordinator holds it.

    Attributes:
        server: Keeps the book and the sealed shares.
        key: Round and model: sums with one of both in common are of the same numbers.
        partners: Site that gave its input → the sites it was told of.
        own: Site → who gave a share of its own mask's secret.
        pair: Site → who gave a share of its masks with others.
    """

    server: secure.ServerSession
    key: tuple[int, int]
    partners: dict[str, frozenset[str]] = field(default_factory=dict)
    own: dict[str, set[str]] = field(default_factory=dict)
    pair: dict[str, set[str]] = field(default_factory=dict)

    def opened(self) -> set[frozenset[str]]:
        """Return the sets of sites whose sum can be computed."""
        if not self.partners:
            return set()
        book = self.server.book
        knows = {s for s, who in self.own.items() if len(who) >= book.needed(s)}
        pairs = {s for s, who in self.pair.items() if len(who) >= book.needed(s)}
        with_own = sorted(knows & self.partners.keys())
        sets = (
            frozenset(found)
            for size in range(1, len(with_own) + 1)
            for found in itertools.combinations(with_own, size)
        )
        return {found for found in sets if self._cancels(found, pairs)}

    def _cancels(self, found: frozenset[str], pairs: set[str]) -> bool:
        return all(
            site in pairs or other in pairs or (other in found and site in self.partners[other])
            for site in found
            for other in self.partners[site] - {site}
        )


def isolates(sets: Collection[frozenset[str]], sites: Collection[str] = SITES) -> bool:
    """Return whether a combination of the sums has fewer than `MIN_SITES` senders in it."""
    rows = np.array([[site in found for site in sites] for found in sets], float)
    rank = np.linalg.matrix_rank(rows) if len(rows) else 0
    for few in itertools.combinations(range(len(sites)), MIN_SITES - 1):
        others = [column for column in range(len(sites)) if column not in few]
        if rank and np.linalg.matrix_rank(rows[:, others]) < rank:
            return True
    return False


class Handshake(RuleBasedStateMachine):
    """Any order of messages, of restarts and of lies."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        for name in SITES:
            SiteKeys.create(SiteHome(self.folder / name).keys)
        self.contexts = {name: self.context(name) for name in SITES}
        self.attempts: list[Attempt] = []
        self.nonces = itertools.count()

    def teardown(self) -> None:
        """Remove the sites' folders."""
        shutil.rmtree(self.folder)

    def context(self, name: str) -> Context:
        """Return a new context of Flower's, as after a restart."""
        return Context(1, 1, {"home": str(self.folder / name)}, RecordDict(), {})

    def ask(self, name: str, attempt: Attempt, step: Callable[[Masking], Any]) -> Any:
        """Return a site's answer, None where it refuses."""
        with suppress(PrivacyError):
            masking = Masking(name, self.contexts[name])
            masking.check_session(attempt.server.terms.session.hex())
            return step(masking)
        return None

    @rule(
        names=st.one_of(
            st.sampled_from(SETS), st.frozensets(st.sampled_from(SITES), min_size=MIN_SITES)
        ),
        number=st.integers(1, 2),
        model=st.integers(0, 1),
    )
    def begin(self, names: Collection[str], number: int, model: int) -> None:
        """Keys and sealed shares of some sites, for a round of a model."""
        terms = secure.Terms("s", "round", number, f"{next(self.nonces):04x}", 2 / 3, MIN_SITES)
        attempt = Attempt(secure.ServerSession(terms), (number, model))
        for name in sorted(names):
            with suppress(PrivacyError):
                text = Masking(name, self.contexts[name]).keys(terms.to_json())
                attempt.server.take_advert(name, secure.KeyAdvert.from_json(text))
        with suppress(PrivacyError):
            book = attempt.server.book
            for name in sorted(names):
                sealed = self.ask(name, attempt, lambda site: site.shares(book.to_json()))
                if sealed is not None:
                    attempt.server.take_shares(name, secure.SealedShares.from_json(sealed))
            attempt.server.mailboxes()
            self.attempts.append(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def inputs(self, data: st.DataObject) -> None:
        """Ask some sites for their input, each with a list of senders of its own."""
        attempt = data.draw(st.sampled_from(self.attempts[-3:]))
        senders = frozenset(attempt.server._senders)
        some, told = (data.draw(st.frozensets(st.sampled_from(sorted(senders)))) for _ in "ab")
        for name in sorted(data.draw(st.sampled_from([senders, some]))):
            self.give(attempt, name, data.draw(st.sampled_from([senders, told])) | {name})

    def give(self, attempt: Attempt, name: str, told: frozenset[str]) -> None:
        """Ask a site for its input."""
        messages = attempt.server.mailboxes()[name].messages
        box = secure.Mailbox(tuple(sorted(told)), messages).to_json()
        model = (f"trained {attempt.key[1]}",)

        def mask(site: Masking) -> bool:
            site.mask(box, {"x": np.zeros(1, np.uint32)}, inputs=model)
            return True

        if self.ask(name, attempt, mask):
            attempt.partners[name] = told

    @precondition(lambda self: any(attempt.partners for attempt in self.attempts))
    @rule(data=st.data())
    def unmask(self, data: st.DataObject) -> None:
        """Ask sites for shares, telling each of one of two sets of survivors."""
        attempt = data.draw(st.sampled_from([one for one in self.attempts if one.partners]))
        there = frozenset(attempt.partners)
        some = data.draw(st.frozensets(st.sampled_from(sorted(there))))
        for name in sorted(there):
            if data.draw(st.booleans()):
                self.share(attempt, name, data.draw(st.sampled_from([there, some])))

    def share(self, attempt: Attempt, name: str, survivors: frozenset[str]) -> None:
        """Ask a site for shares, and keep who gave which."""
        known = attempt.partners[name]
        left, gone = sorted(survivors & known), sorted(known - survivors)
        request = secure.UnmaskRequest(tuple(left), tuple(gone)).to_json()
        text = self.ask(name, attempt, lambda site: site.unmask(request))
        if text is not None:
            reply = secure.UnmaskReply.from_json(text)
            for shares, kept in ((reply.own, attempt.own), (reply.pairwise, attempt.pair)):
                for site in shares:
                    kept.setdefault(site, set()).add(name)

    @rule(names=st.sampled_from(SETS), number=st.integers(1, 2), model=st.integers(0, 1))
    def whole(self, names: frozenset[str], number: int, model: int) -> None:
        """A session from end to end over some sites, with one that leaves where it likes."""
        before = len(self.attempts)
        Handshake.begin(self, names, number, model)
        for attempt in self.attempts[before:]:
            senders = frozenset(attempt.server._senders)
            for name in sorted(senders):
                self.give(attempt, name, senders)
            for name in sorted(attempt.partners):
                self.share(attempt, name, frozenset(attempt.partners))

    @rule(name=st.sampled_from(SITES))
    def restart(self, name: str) -> None:
        """A site's process, or Flower's run, is another one; its disk is the same."""
        self.contexts[name] = self.context(name)

    @invariant()
    def no_two_openings_differ_in_fewer_than_min_sites_senders(self) -> None:
        """Nor does any combination of the openings of the same numbers have fewer in it."""
        for part in (0, 1):
            same: dict[int, set[frozenset[str]]] = {}
            for attempt in self.attempts:
                same.setdefault(attempt.key[part], set()).update(attempt.opened())
            for sets in same.values():
                assert not isolates(sets), sorted(map(sorted, sets))


Handshake.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestNoCombinationOfOpeningsIsolatesASite = Handshake.TestCase


def test_pairs_that_differ_by_min_sites_are_not_enough() -> None:
    """Why a site helps with one set, and not with any that differs by `MIN_SITES` or more."""
    sets = [frozenset("abc"), frozenset("abcdef"), frozenset("defg")]
    assert all(len(one ^ other) >= MIN_SITES for one, other in itertools.combinations(sets, 2))
    assert not isolates(sets[:2], "abcdefg")
    assert isolates(sets, "abcdefg"), "the first and the third, less the second, are g"
