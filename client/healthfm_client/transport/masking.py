"""The site's part in secure aggregation between Flower's messages: sessions, keys, memory.

A site's process may live for one message, so a session waits as text in the node's context. The
context stays at the site. It also remembers which sessions it saw, what it helped to open, and
under which signing key each other site is known: the first one seen, unless the site's policy lists
its peers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import ConfigRecord, Context

from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_node import HOME_KEY
from healthfm_core.errors import ConfigError, PrivacyError
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.privacy.secure_aggregation.masks import Ring
from healthfm_core.trust import fingerprint, site_keys

_log = logging.getLogger(__name__)

_STATE: Final = "secure_aggregation"
SIGNING_KEY: Final = "signing-key"
"""Key of the node's configuration: a PEM file with the site's ed25519 key. An enrolled site signs
with the key of its folder; a simulated one makes a key of its own."""

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
        peers: Other site → fingerprint of its signing key, as the site's policy lists them; empty
            where whoever comes first under a name is believed.
    """

    def __init__(
        self, site: str, context: Context, peers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._site = site
        self._peers = peers
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
        if self._peers:
            self._refuse_strangers(read)
        pins = {name: bytes.fromhex(key) for name, key in self._memory.pins.items()}
        session, sealed = secure.share(self._session(), read, {} if self._peers else pins)
        for name, advert in read.adverts.items():
            if name != self._site and pins.get(name) != advert.signing_key:
                _log.info("site %s signs with %s", name, _fingerprint(advert.signing_key))
                self._memory.pins[name] = advert.signing_key.hex()
        self._keep(session)
        return sealed.to_json()

    def mask(self, mailbox: str, arrays: Mapping[str, Ring]) -> None:
        """Mask `arrays` in place.

        Raises:
            PrivacyError: A message is not what it should be (HF-610), or too few sites (HF-611).
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
        for name in sorted(book.adverts.keys() - {self._site}):
            signer = _fingerprint(book.adverts[name].signing_key)
            if not fingerprint.same(self._peers.get(name, ""), signer):
                raise PrivacyError(
                    610,
                    where="site policy, peers",
                    seen=f"site {name!r} signs with {signer}, "
                    + ("the list has another key" if name in self._peers else "it is not listed"),
                    wanted="every site of a sum is on this site's list of peers, with its key",
                    do="Compare the fingerprint with that site by telephone, then list it",
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
        if HOME_KEY in config:
            return _read_key(SiteHome(Path(str(config[HOME_KEY]))).keys / site_keys.SIGNING_KEY)
        if not self._memory.signing:
            self._memory.signing = secure.SigningKey.generate().private.hex()
            self._save()
        return secure.SigningKey(bytes.fromhex(self._memory.signing))


def _kind(terms: secure.Terms) -> str:
    return f"{terms.study}/{terms.purpose}"


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
