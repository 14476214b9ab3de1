"""What all sites of a session know alike: its terms, everybody's keys, and the graph from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

from healthfm_core.privacy.secure_aggregation.graph import choose_degree, holders_needed, neighbours
from healthfm_core.privacy.secure_aggregation.reading import canonical, reading


@dataclass(frozen=True)
class Terms:
    """What a session is for and what it takes to open it; part of every signature.

    Attributes:
        study: Hash of the study, or the run's name where there is no study yet.
        purpose: ``round`` or another use; a number is opened per purpose.
        number: Number of the round.
        nonce: Hex of random bytes: no two sessions are the same.
        threshold: Share of a secret's holders, and of all sites, that open a sum.
        min_sites: Fewest sites whose sum is opened.
        degree: Neighbours of a site; 0 is chosen from the number of sites.
        colluding_fraction: Share of sites that may collude, for the choice.
        dropout_fraction: Share of sites that may leave, for the choice.
    """

    study: str
    purpose: str
    number: int
    nonce: str
    threshold: float
    min_sites: int
    degree: int = 0
    colluding_fraction: float = 0.1
    dropout_fraction: float = 0.1

    @cached_property
    def session(self) -> bytes:
        """SHA-256 of the terms: the session's name."""
        return hashlib.sha256(self.to_json().encode()).digest()

    def to_json(self) -> str:
        """Return the terms as JSON."""
        return canonical({name: getattr(self, name) for name in _TERMS})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the terms that `to_json` wrote.

        Raises:
            PrivacyError: They cannot be read, or would protect nobody (HF-610).
        """
        return reading("terms", text, lambda raw: cls(**_typed(raw, _TERMS))._checked())

    def _checked(self) -> Self:
        if not (0.5 < self.threshold <= 1 and self.min_sites >= 2 and self.degree >= 0):
            raise ValueError("terms under which a sum could be one site's")
        if not (0 <= self.colluding_fraction < 1 and 0 <= self.dropout_fraction < 1):
            raise ValueError("shares of sites that are none")
        return self


_TERMS: Final[Mapping[str, type]] = {
    "study": str,
    "purpose": str,
    "number": int,
    "nonce": str,
    "threshold": float,
    "min_sites": int,
    "degree": int,
    "colluding_fraction": float,
    "dropout_fraction": float,
}


@dataclass(frozen=True)
class KeyAdvert:
    """A site's public keys in one session.

    Attributes:
        site: Its name.
        sealing_key: X25519, for messages to it.
        mask_key: X25519, for the masks between it and its neighbours.
        signing_key: ed25519, by which it is known.
        signature: Of `signed_text`.
    """

    site: str
    sealing_key: bytes
    mask_key: bytes
    signing_key: bytes
    signature: bytes

    def signed_text(self, session: bytes) -> bytes:
        """Return what the signature is of."""
        keys = [self.sealing_key.hex(), self.mask_key.hex()]
        return canonical(["healthfm keys", session.hex(), self.site, keys]).encode()

    def to_json(self) -> str:
        """Return the advert as JSON."""
        return canonical([self.site, *(getattr(self, name).hex() for name in _KEYS)])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the advert that `to_json` wrote.

        Raises:
            PrivacyError: It cannot be read (HF-610).
        """
        return reading("keys", text, cls._of)

    @classmethod
    def _of(cls, raw: Any) -> Self:
        site, *keys = raw
        sealing, mask, signing, signature = map(bytes.fromhex, keys)
        if not isinstance(site, str) or {len(sealing), len(mask), len(signing)} != {32}:
            raise ValueError("keys of another length")
        return cls(site, sealing, mask, signing, signature)


_KEYS: Final = ("sealing_key", "mask_key", "signing_key", "signature")


@dataclass(frozen=True)
class KeyBook:
    """The adverts of all sites of a session, from which each works out the same graph.

    Attributes:
        terms: The session's.
        adverts: Site → its keys.
    """

    terms: Terms
    adverts: Mapping[str, KeyAdvert]

    @cached_property
    def transcript(self) -> bytes:
        """SHA-256 of terms and adverts: what every message of the session is about."""
        return hashlib.sha256(self.to_json().encode()).digest()

    @cached_property
    def degree(self) -> int:
        """Neighbours of a site."""
        n, terms = len(self.adverts), self.terms
        return terms.degree or choose_degree(
            n,
            terms.threshold,
            colluding_fraction=terms.colluding_fraction,
            dropout_fraction=terms.dropout_fraction,
        )

    @cached_property
    def graph(self) -> Mapping[str, tuple[str, ...]]:
        """Each site's neighbours."""
        return neighbours(sorted(self.adverts), self.degree, self.transcript)

    def needed(self, site: str) -> int:
        """Return how many shares open a secret of `site`, which holds one of them itself."""
        return holders_needed(len(self.graph[site]) + 1, self.terms.threshold)

    @cached_property
    def least(self) -> int:
        """Fewest sites whose sum is opened."""
        return max(self.terms.min_sites, holders_needed(len(self.adverts), self.terms.threshold))

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Each site's position in a sharing, from 1."""
        return {name: i for i, name in enumerate(sorted(self.adverts), start=1)}

    def to_json(self) -> str:
        """Return the book as JSON."""
        adverts = [self.adverts[name].to_json() for name in sorted(self.adverts)]
        return canonical([self.terms.to_json(), adverts])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the book that `to_json` wrote.

        Raises:
            PrivacyError: It cannot be read (HF-610).
        """
        return reading("book of keys", text, cls._of)

    @classmethod
    def _of(cls, raw: Any) -> Self:
        terms, adverts = raw
        read = [KeyAdvert.from_json(advert) for advert in adverts]
        if len({advert.site for advert in read}) < len(read):
            raise ValueError("two adverts of one site")
        return cls(Terms.from_json(terms), {advert.site: advert for advert in read})


def _typed(raw: Any, fields: Mapping[str, type]) -> dict[str, Any]:
    if set(raw) != set(fields):
        raise ValueError("other fields than those wanted")
    for name, kind in fields.items():
        if type(raw[name]) not in ((int, float) if kind is float else (kind,)):
            raise TypeError("a field of another type")
    return {name: kind(raw[name]) for name, kind in fields.items()}
