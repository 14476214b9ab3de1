"""The site's part in secure aggregation between Flower's messages: sessions, keys, memory.

A site's process may live for one message, so a session waits as text in the node's context. The
context stays at the site. What must outlive the run is in the site's folder: which sums it helped
to open (`opened_sums`), and under which signing key each other site is known, the first one seen
unless the site's policy lists its peers. A simulated site has no folder and keeps both in the
context.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import ConfigRecord, Context

from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_node import HOME_KEY, SiteNode
from healthfm_client.site.sum_rules import SumRules
from healthfm_client.transport.opened_sums import (
    OpenedSum,
    OpenedSums,
    RememberedSums,
    SumsFile,
    opened_sum,
)
from healthfm_core.errors import ConfigError, PolicyError, PrivacyError
from healthfm_core.federation.secure.contracted_sums import ROUND
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.privacy.secure_aggregation.graph import choose_degree
from healthfm_core.privacy.secure_aggregation.masks import Ring
from healthfm_core.trust import files, fingerprint, signed, site_keys

_log = logging.getLogger(__name__)

_STATE: Final = "secure_aggregation"
SIGNING_KEY: Final = "signing-key"
"""Key of the node's configuration: a PEM file with the site's ed25519 key. An enrolled site signs
with the key of its folder; a simulated one makes a key of its own."""

_MOST_SESSIONS: Final = 4096
SUMS_FILE: Final = "opened-sums.jsonl"
PEER_KEYS_FILE: Final = "peer-keys.json"
SESSION_FILE: Final = "masked-session.json"
"""In the state folder of an enrolled site."""
_LEFT: Final = ("session", "inputs", "answered")


@dataclass
class _Memory:
    """What the site remembers of all sessions; secret, as JSON in the context."""

    signing: str = ""
    session: str = ""
    inputs: list[str] = field(default_factory=list)
    answered: dict[str, str] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    sums: list[dict[str, Any]] = field(default_factory=list)


class Masking:
    """One site's sessions.

    Args:
        site: The site's name.
        context: Flower's context of the node.
        peers: Other site → fingerprint of its signing key, as the site's policy lists them; empty
            where whoever comes first under a name is believed.
        rules: What the site asks of every sum.
    """

    def __init__(
        self,
        site: str,
        context: Context,
        peers: Mapping[str, str] = MappingProxyType({}),
        rules: SumRules | None = None,
    ) -> None:
        self._site = site
        self._peers = peers
        self._context = context
        self._rules = rules or SumRules()
        config, record = context.node_config, context.state.config_records.get(_STATE)
        self._home = SiteHome(Path(str(config[HOME_KEY]))) if HOME_KEY in config else None
        self._memory = _Memory(**json.loads(str(record["json"]))) if record else self._left()
        self._remembered = [opened_sum(raw) for raw in self._memory.sums]
        self._sums: OpenedSums = (
            RememberedSums(self._remembered)
            if self._home is None
            else SumsFile(self._home.state_folder / SUMS_FILE)
        )
        self._signer = self._signing_key()

    @classmethod
    def of(cls, node: SiteNode, context: Context) -> Self:
        """Return the sessions of a node, under its policy."""
        return cls(node.name, context, node.policy.peers, node.policy.sums)

    def keys(self, terms: str) -> str:
        """Begin a session and return the site's keys.

        Raises:
            PrivacyError: The terms cannot be read (HF-610); the session was seen before, or a
                later round (HF-612).
            PolicyError: They are of a sum of fewer sites than the policy wants (HF-501).
        """
        read = secure.Terms.from_json(terms)
        self._refuse_what_was_seen(read)
        self._refuse_few(read.min_sites)
        session, advert = secure.begin(self._site, read, self._signer)
        self._memory.seen = [*self._memory.seen[-_MOST_SESSIONS:], read.session.hex()]
        self._keep(session)
        return advert.to_json()

    def shares(self, book: str) -> str:
        """Return sealed shares for the neighbours in the book of keys.

        Raises:
            PrivacyError: A key is not what it should be or a site has too few neighbours
                (HF-610), or too few sites (HF-611).
        """
        read = secure.KeyBook.from_json(book)
        if self._peers:
            self._refuse_strangers(read)
        _refuse_thin(read)
        pins = {name: bytes.fromhex(key) for name, key in self._pins().items()}
        session, sealed = secure.share(self._session(), read, {} if self._peers else pins)
        self._pin(read, pins)
        self._keep(session)
        return sealed.to_json()

    def mask(
        self,
        mailbox: str,
        arrays: Mapping[str, Ring],
        *,
        capacity: int | None = None,
        inputs: Sequence[str] = (),
    ) -> None:
        """Mask `arrays` in place.

        Args:
            mailbox: The neighbours' sealed shares.
            arrays: What is sent.
            capacity: Training subjects of all sites, where the coordinator says it.
            inputs: Hashes of what `arrays` follow from.

        Raises:
            PrivacyError: A message is not what it should be (HF-610), too few sites (HF-611); in a
                session whose sites do not all hold shares of each other, an earlier input may be
                of the same numbers (HF-614).
            PolicyError: Fewer people than the policy wants (HF-501).
        """
        if capacity is not None and capacity < self._rules.min_subjects:
            raise _refusal("min_subjects", f"a sum of {capacity} people")
        session = secure.mask(self._session(), secure.Mailbox.from_json(mailbox), arrays)
        self._memory.inputs = list(inputs)
        if not _ties_all_to_all(self.book):
            self._sums.add(self._opened(session, ()), self._rules)
        self._keep(session)
        self._leave()

    @property
    def book(self) -> secure.KeyBook:
        """Everybody's keys in this session."""
        return secure.KeyBook.from_json(self._session().book)

    def unmask(self, request: str) -> str:
        """Return the shares asked for; the session is over and its secrets are gone.

        Asked again for the same shares of the same session, it gives the same answer.

        Raises:
            PrivacyError: The request would expose a site (HF-612), too few are left (HF-611), or
                an earlier sum of the same numbers was of other sites (HF-614).
        """
        if not self._memory.session and self._memory.answered.get("request") == request:
            return self._memory.answered["reply"]
        session, asked = self._session(), secure.UnmaskRequest.from_json(request)
        reply = secure.unmask(session, asked).to_json()
        self._sums.add(self._opened(session, tuple(sorted(asked.survivors))), self._rules)
        name = self.session_name
        self._memory.answered = {"session": name, "request": request, "reply": reply}
        self._memory.session = ""
        self._save()
        self._leave()
        return reply

    @property
    def session_name(self) -> str:
        """The current session in hex, or the last one that was opened."""
        if not self._memory.session:
            return self._memory.answered.get("session", "")
        return secure.Terms.from_json(self._session().terms).session.hex()

    def check_session(self, name: str) -> None:
        """Refuse a message of another session.

        Raises:
            PrivacyError: It is (HF-612).
        """
        if not name or name != self.session_name:
            raise _not_in_it()

    def check_sum(self, purpose: str, study: str, number: int | None = None) -> None:
        """Refuse to give the session anything but what its terms are about.

        Args:
            purpose: What is to be summed.
            study: The study that it is of.
            number: Its round; None where the order names none.

        Raises:
            PrivacyError: The session is about something else (HF-612).
        """
        terms = secure.Terms.from_json(self._session().terms)
        given = (purpose, study, terms.number if number is None else number)
        if (terms.purpose, terms.study, terms.number) != given:
            raise PrivacyError(
                612,
                where=f"secure aggregation, {terms.purpose} {terms.number}",
                seen=f"an order about {purpose} {given[2]}, or about another study",
                wanted="a session adds up what its terms name",
            )

    def _opened(self, session: secure.SiteSession, senders: tuple[str, ...]) -> OpenedSum:
        terms = secure.Terms.from_json(session.terms)
        return OpenedSum(
            session=terms.session.hex(),
            run=terms.study,
            purpose=terms.purpose,
            number=terms.number,
            inputs=tuple(self._memory.inputs),
            senders=senders,
        )

    def _refuse_what_was_seen(self, terms: secure.Terms) -> None:
        last = self._sums.last_number(terms.study, terms.purpose) if terms.purpose == ROUND else -1
        if terms.session.hex() in self._memory.seen or terms.number < last:
            raise PrivacyError(
                612,
                where=f"secure aggregation, {terms.purpose} {terms.number}",
                seen="a session that this site took part in before, or an earlier round",
                wanted="every session is new, and no round comes before one that was opened",
                do="Go on with a later round, or begin a new run",
            )

    def _refuse_few(self, sites: int) -> None:
        if sites < self._rules.min_sites:
            raise _refusal("min_sites", f"a sum that {sites} sites open")

    def _pins(self) -> dict[str, str]:
        """Return site → signing key, hex.

        Raises:
            PrivacyError: The file is damaged (HF-615).
        """
        if self._home is None:
            return self._memory.pins
        path = self._home.state_folder / PEER_KEYS_FILE
        if not path.exists():
            return {}
        try:
            return {str(k): str(v) for k, v in json.loads(path.read_bytes()).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise PrivacyError(615, where=path.name, seen="it is damaged") from error

    def _pin(self, book: secure.KeyBook, known: Mapping[str, bytes]) -> None:
        """Remember the keys that are seen for the first time, on disk before anything is sent."""
        pins, before = dict(self._pins()), dict(self._pins())
        for name, advert in book.adverts.items():
            if name != self._site and known.get(name) != advert.signing_key:
                words = fingerprint.in_words(_fingerprint(advert.signing_key))
                _log.info("site %s signs with the key %s", name, words)
                pins[name] = advert.signing_key.hex()
        if self._home is None:
            self._memory.pins = pins
        elif pins != before:
            path = self._home.state_folder / PEER_KEYS_FILE
            files.replace(path, signed.canonical(pins), files.PRIVATE)

    def _refuse_strangers(self, book: secure.KeyBook) -> None:
        for name in sorted(book.adverts.keys() - {self._site}):
            signer = _fingerprint(book.adverts[name].signing_key)
            if not fingerprint.same(self._peers.get(name, ""), signer):
                raise PrivacyError(
                    610,
                    where="site policy, peers",
                    seen=f"site {name!r} signs with the key {fingerprint.in_words(signer)!r}, "
                    + ("the list has another key" if name in self._peers else "it is not listed"),
                    wanted="every site of a sum is on this site's list of peers, with its key",
                    do="Compare the words with that site by telephone, then list them",
                )

    def _session(self) -> secure.SiteSession:
        if not self._memory.session:
            raise _not_in_it()
        return secure.SiteSession.from_json(self._memory.session)

    def _keep(self, session: secure.SiteSession) -> None:
        self._memory.session = session.to_json()
        self._save()

    def _save(self) -> None:
        self._memory.sums = [asdict(opened) for opened in self._remembered]
        text = json.dumps(vars(self._memory))
        self._context.state[_STATE] = ConfigRecord({"json": text})

    def _leave(self) -> None:
        """Put the session on the site's disk.

        A coordinator that was stopped asks again in another run of Flower's, with another context.
        """
        if self._home is not None:
            left = {name: getattr(self._memory, name) for name in _LEFT}
            path = self._home.state_folder / SESSION_FILE
            files.replace(path, signed.canonical(left), files.PRIVATE)

    def _left(self) -> _Memory:
        """Return the memory that a new context begins with."""
        path = None if self._home is None else self._home.state_folder / SESSION_FILE
        if path is None or not path.exists():
            return _Memory()
        try:
            left = json.loads(path.read_bytes())
            return _Memory(**{name: left[name] for name in _LEFT})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PrivacyError(615, where=path.name, seen="it is damaged") from error

    def _signing_key(self) -> secure.SigningKey:
        config = self._context.node_config
        if SIGNING_KEY in config:
            return _read_key(Path(str(config[SIGNING_KEY])))
        if self._home is not None:
            return _read_key(self._home.keys / site_keys.SIGNING_KEY)
        if not self._memory.signing:
            self._memory.signing = secure.SigningKey.generate().private.hex()
            self._save()
        return secure.SigningKey(bytes.fromhex(self._memory.signing))


def _ties_all_to_all(book: secure.KeyBook) -> bool:
    """Return whether every site holds shares of every other.

    Then two thirds of all sites open a sum, and any two such parties have honest sites in common,
    each of which helps with one set of senders only. On a sparser graph a site's neighbours differ
    from session to session, and a second session could go past those who know the first.
    """
    return all(len(near) == len(book.adverts) - 1 for near in book.graph.values())


def _refuse_thin(book: secure.KeyBook) -> None:
    """Refuse fewer neighbours than hide a site, where the terms name their number."""
    terms, sites = book.terms, len(book.adverts)
    least = choose_degree(
        sites,
        terms.threshold,
        colluding_fraction=terms.colluding_fraction,
        dropout_fraction=terms.dropout_fraction,
    )
    if min(book.degree, sites - 1) < least:
        raise PrivacyError(
            610,
            where="secure aggregation, book of keys",
            seen=f"{book.degree} neighbours for each of {sites} sites",
            wanted=f"{least} at least, as federation.aggregation.secure.degree=0 chooses",
        )


def _not_in_it() -> PrivacyError:
    return PrivacyError(
        612,
        where="secure aggregation",
        seen="a message of a session that this site is not in",
        wanted="a session begins with keys and ends with shares",
        do="Begin another session; the coordinator does so in the next round",
    )


def _refusal(rule: str, seen: str) -> PolicyError:
    return PolicyError(501, where=f"site policy, sums.{rule}", seen=seen)


def _fingerprint(key: bytes) -> str:
    return fingerprint.of_key(Ed25519PublicKey.from_public_bytes(key))


def _read_key(path: Path) -> secure.SigningKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "it is not a private key without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "its key is not ed25519")
    return secure.SigningKey(key.private_bytes_raw())


def _unusable(path: Path, seen: str) -> ConfigError:
    return ConfigError(
        102,
        where=path.name,
        seen=seen,
        wanted="the site's signing key as PEM",
        do="Name the right file in the node's configuration",
    )
