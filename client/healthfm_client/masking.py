"""The site's part in secure aggregation between Flower's messages: sessions, keys, memory.

A site's process may live for one message, so a session waits as text in the node's context. The
context stays at the site. It also remembers which sessions it saw, what it helped to open, and
under which signing key each other site is known: the first one seen, unless the node's
configuration names a list of peers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import ConfigRecord, Context

from healthfm_client.home import SiteHome
from healthfm_client.node import HOME
from healthfm_core.errors import ConfigError, PrivacyError
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.privacy.secure_aggregation.masks import Ring
from healthfm_core.trust import site_keys

_STATE: Final = "secure_aggregation"
SIGNING_KEY: Final = "signing-key"
PEERS: Final = "peers"
"""Keys of the node's configuration: a PEM file with the site's ed25519 key, and a JSON file with
the other sites' public keys (name → hex). An enrolled site signs with the key of its folder; a
simulated one makes a key of its own."""

_MOST_OPENINGS: Final = 2
"""A round is opened a second time where the coordinator was killed before it wrote the first."""
_MOST_SESSIONS: Final = 4096


@dataclass
class _Memory:
    """What the site remembers of all sessions; secret, as JSON in the context."""

    signing: str = ""
    session: str = ""
    pins: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    opened: dict[str, list[int]] = field(default_factory=dict)


class Masking:
    """One site's sessions.

    Args:
        site: The site's name.
        context: Flower's context of the node.
    """

    def __init__(self, site: str, context: Context) -> None:
        self._site = site
        self._context = context
        record = context.state.config_records.get(_STATE)
        self._memory = _Memory(**json.loads(str(record["json"]))) if record else _Memory()
        self._signer = self._signing_key()

    def keys(self, terms: str) -> str:
        """Begin a session and return the site's keys.

        Raises:
            PrivacyError: The terms cannot be read (HF-610); the session or the round was seen
                before (HF-612).
        """
        read = secure.Terms.from_json(terms)
        self._refuse_what_was_seen(read)
        session, advert = secure.begin(self._site, read, self._signer)
        self._memory.seen = [*self._memory.seen[-_MOST_SESSIONS:], read.session.hex()]
        self._keep(session)
        return advert.to_json()

    def shares(self, book: str) -> str:
        """Return sealed shares for the neighbours in the book of keys.

        Raises:
            PrivacyError: A key is not what it should be (HF-610), or too few sites (HF-611).
        """
        read = secure.KeyBook.from_json(book)
        pins = self._peers() or {n: bytes.fromhex(k) for n, k in self._memory.pins.items()}
        self._refuse_strangers(read)
        session, sealed = secure.share(self._session(), read, pins)
        keys = {name: advert.signing_key.hex() for name, advert in read.adverts.items()}
        self._memory.pins = keys | self._memory.pins
        self._keep(session)
        return sealed.to_json()

    def mask(self, mailbox: str, arrays: Mapping[str, Ring]) -> None:
        """Mask `arrays` in place.

        Raises:
            PrivacyError: A letter is not what it should be (HF-610), or too few sites (HF-611).
        """
        session = secure.mask(self._session(), secure.Mailbox.from_json(mailbox), arrays)
        self._keep(session)

    @property
    def book(self) -> secure.KeyBook:
        """Everybody's keys in this session."""
        return secure.KeyBook.from_json(self._session().book)

    def unmask(self, request: str) -> str:
        """Return the shares asked for; the session is over and its secrets are gone.

        Raises:
            PrivacyError: The request would expose a site (HF-612), or too few are left (HF-611).
        """
        session = self._session()
        reply = secure.unmask(session, secure.UnmaskRequest.from_json(request))
        terms = secure.Terms.from_json(session.terms)
        number, times = self._memory.opened.get(_kind(terms), [terms.number, 0])
        times = times + 1 if number == terms.number else 1
        self._memory.opened[_kind(terms)] = [terms.number, times]
        self._memory.session = ""
        self._save()
        return reply.to_json()

    def _refuse_what_was_seen(self, terms: secure.Terms) -> None:
        number, times = self._memory.opened.get(_kind(terms), [-1, 0])
        again = terms.number == number and times >= _MOST_OPENINGS
        if terms.session.hex() in self._memory.seen or terms.number < number or again:
            raise PrivacyError(
                612,
                where=f"secure aggregation, {terms.purpose} {terms.number}",
                seen="a session or a round that this site took part in before",
                wanted="every sum is opened once; two of the same round could be subtracted",
                do="Go on with a later round, or begin a new run",
            )

    def _refuse_strangers(self, book: secure.KeyBook) -> None:
        strangers = sorted(book.adverts.keys() - (self._peers() or book.adverts).keys())
        if strangers := [name for name in strangers if name != self._site]:
            raise PrivacyError(
                610,
                where="secure aggregation, book of keys",
                seen=f"{len(strangers)} sites that are not on this site's list of peers",
                wanted="every site of a sum is on the list",
                do="Add them to the list of peers once their fingerprints were compared",
            )

    def _session(self) -> secure.SiteSession:
        if not self._memory.session:
            raise PrivacyError(
                612,
                where="secure aggregation",
                seen="a message of a session that this site is not in",
                wanted="a session begins with keys and ends with shares",
                do="Begin another session; the coordinator does so in the next round",
            )
        return secure.SiteSession.from_json(self._memory.session)

    def _keep(self, session: secure.SiteSession) -> None:
        self._memory.session = session.to_json()
        self._save()

    def _save(self) -> None:
        text = json.dumps(vars(self._memory))
        self._context.state[_STATE] = ConfigRecord({"json": text})

    def _signing_key(self) -> secure.SigningKey:
        config = self._context.node_config
        if SIGNING_KEY in config:
            return _read_key(Path(str(config[SIGNING_KEY])))
        if HOME in config:
            return _read_key(SiteHome(Path(str(config[HOME]))).keys / site_keys.SIGNING_KEY)
        if not self._memory.signing:
            self._memory.signing = secure.SigningKey.generate().private.hex()
            self._save()
        return secure.SigningKey(bytes.fromhex(self._memory.signing))

    def _peers(self) -> dict[str, bytes]:
        """Return the keys of the sites this one knows; none where it takes the first it sees."""
        if PEERS not in self._context.node_config:
            return {}
        path = Path(str(self._context.node_config[PEERS]))
        try:
            raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
            return {name: bytes.fromhex(key) for name, key in raw.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise _unusable(path, "it is not a list of peers (JSON: name → key in hex)") from error


def _kind(terms: secure.Terms) -> str:
    return f"{terms.study}/{terms.purpose}"


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
        wanted="the site's signing key as PEM, the peers as JSON",
        do="Name the right file in the node's configuration",
    )
