"""A run's signed contract: what the coordinator may ask, which a site checks every request by.

Canonical JSON and a detached ed25519 signature. A contract names one run of one study, is valid for
a time, and can be presented to a site once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from healthfm_core.errors import TrustError
from healthfm_core.trust import files, fingerprint, signed
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.nonces import UsedNonces, is_nonce, new_nonce

FORMAT: Final = 1
CLOCK_TOLERANCE: Final = timedelta(minutes=2)
"""How far the coordinator's clock may be ahead of the site's."""
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"

Step = Literal["statistics", "prepare"]


@dataclass(frozen=True)
class ContractTerms:
    """What a run is to do at a site.

    Attributes:
        step: ``statistics`` before there is a vocabulary, ``prepare`` with one.
        run: Names the run; the same in both steps.
        config: The run's whole configuration, less the coordinator's own folders.
        agreement: SHA-256 of the study as it is sent, empty before there is one.
        vocabulary: SHA-256 of the vocabulary, empty before there is one.
        panel: Polygenic scores that the model reads.
        channels: Wearable channels that the model reads.
        modalities: Modalities that the model has.
        k_min: No count under it is wanted.
        privacy: The privacy floor: what the run adds to protect people, as its configuration says.
        rounds: How many rounds there are.
        metrics: Patterns of the metrics wanted.
    """

    step: Step
    run: str
    config: Mapping[str, Any]
    agreement: str
    vocabulary: str
    panel: tuple[str, ...]
    channels: tuple[str, ...]
    modalities: tuple[str, ...]
    k_min: int
    privacy: Mapping[str, Any]
    rounds: int
    metrics: tuple[str, ...]

    @property
    def sums_only(self) -> bool:
        """Whether the coordinator sees sums over sites and no site's own part."""
        return bool(self._secure.get("enabled", False))

    @property
    def min_sites(self) -> int:
        """Fewest sites whose sum is opened; 1 where nothing is summed."""
        return int(self._secure.get("min_sites", 1))

    @property
    def noise_is_shared(self) -> bool:
        """Whether a site relies on the other sites' noise."""
        return self.privacy.get("mode") == "distributed" or self._secure.get("epsilon") is not None

    @property
    def _secure(self) -> Mapping[str, Any]:
        found = self.config.get("federation", {}).get("aggregation", {}).get("secure", {})
        return found if isinstance(found, Mapping) else {}

    @property
    def config_hash(self) -> str:
        """SHA-256 of the configuration's canonical JSON, in hex: the same in both steps."""
        return hashlib.sha256(signed.canonical(self.config)).hexdigest()


@dataclass(frozen=True)
class Contract:
    """Terms, with the study they belong to and the time they hold.

    Attributes:
        study: The study's name.
        terms: What is to be done.
        issued: When it was signed.
        expires: When it ends.
        nonce: 128 random bits; a site takes a contract once.
        statement: What the coordinator states for people to read: ``run``, the run's name, and
            what `healthfm_core.config.study_statement` names. No request is checked by it.
    """

    study: str
    terms: ContractTerms
    issued: datetime
    expires: datetime
    nonce: str = field(default_factory=new_nonce)
    statement: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return canonical JSON: equal contracts give equal text."""
        raw = {
            "format": FORMAT,
            "study": self.study,
            "terms": {**asdict(self.terms), "config_hash": self.terms.config_hash},
            "issued": write_time(self.issued),
            "expires": write_time(self.expires),
            "nonce": self.nonce,
            "statement": dict(self.statement),
        }
        return signed.canonical(raw).decode()

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Return the contract written by `to_json`.

        Raises:
            TrustError: It is none, or not in the canonical form (HF-814).
        """
        try:
            raw = json.loads(text)
            terms = dict(raw["terms"])
            del terms["config_hash"]
            lists = {name: tuple(terms[name]) for name in _LISTS}
            contract = cls(
                study=raw["study"],
                terms=ContractTerms(**{**terms, **lists}),
                issued=read_time(raw["issued"]),
                expires=read_time(raw["expires"]),
                nonce=raw["nonce"],
                statement=_statement(raw["statement"]),
            )
            as_written = contract.to_json() == text and is_nonce(contract.nonce)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise altered("text that is no contract") from error
        if not as_written:
            raise altered("text that is not as a coordinator of this release writes it")
        return contract

    def check_time(self, now: datetime | None = None) -> None:
        """Refuse a contract before and after its time.

        Raises:
            TrustError: It has expired (HF-816) or is not valid yet (HF-817).
        """
        now = now or now_utc()
        if now > self.expires:
            raise refusal(816, f"it expired on {self.expires:%Y-%m-%d at %H:%M} UTC")
        if now < self.issued - CLOCK_TOLERANCE:
            raise refusal(817, f"it is valid from {self.issued:%Y-%m-%d at %H:%M} UTC")


_LISTS: Final = ("panel", "channels", "modalities", "metrics")
_MOST_STATED: Final = 8000
"""Characters that a statement may have in all."""


def _statement(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return a contract's statement.

    Raises:
        TypeError: It is something else than some text by name.
    """
    words = [*raw, *raw.values()]
    if not all(isinstance(word, str) for word in words) or sum(map(len, words)) > _MOST_STATED:
        raise TypeError("a statement that is no text")
    return dict(raw)


@dataclass(frozen=True)
class SignedContract:
    """A contract as it travels.

    Attributes:
        contract: Canonical JSON.
        signature: Base64, over the bytes of `contract`.
        signer: Fingerprint of the key that signed.
    """

    contract: str
    signature: str
    signer: str


@dataclass(frozen=True)
class StudySigner:
    """Signs a study's contracts.

    Attributes:
        study: The study's name.
        key: Its signing key.
        statement: What it states for people to read, in every contract.
    """

    study: str
    key: Ed25519PrivateKey
    statement: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, study: str, path: Path) -> StudySigner:
        """Return the signer whose private key is in a file.

        Raises:
            TrustError: The key cannot be used (HF-802).
        """
        data = files.read_private(path, "the study's signing key")
        try:
            key = load_pem_private_key(data, None)
        except (ValueError, TypeError) as error:
            raise files.unusable(path, "the study's signing key is damaged") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise files.unusable(path, "the study's signing key is not ed25519")
        return cls(study, key)

    def sign(
        self, terms: ContractTerms, lasts: timedelta, now: datetime | None = None
    ) -> SignedContract:
        """Return a new signed contract about `terms`."""
        now = (now or now_utc()).replace(microsecond=0)
        text = Contract(self.study, terms, now, now + lasts, statement=self.statement).to_json()
        known = fingerprint.of_key(self.key.public_key())
        return SignedContract(text, signed.sign(self.key, text.encode()), known)


def open_contract(
    received: SignedContract | None,
    *,
    study: str,
    signer: Ed25519PublicKey,
    used: UsedNonces,
    now: datetime | None = None,
) -> Contract:
    """Return a contract that is valid here and now; a second time it is refused.

    Args:
        received: As it arrived; None where none came.
        study: The study that the site is enrolled in.
        signer: That study's key.
        used: The nonces that the site has seen.
        now: The time, for tests.

    Raises:
        TrustError: There is none (HF-813), it was altered (HF-814), another signed it (HF-815), it
            is expired (HF-816), not valid yet (HF-817), used before (HF-818), or of another study
            (HF-819).
    """
    if received is None or not received.signature:
        raise refusal(813, "a request without a signed contract")
    if not fingerprint.same(received.signer, fingerprint.of_key(signer)):
        raise refusal(815, f"the signer {received.signer[:95]}")
    if not signed.verified(signer, received.contract.encode(), received.signature):
        raise altered("a signature that does not hold")
    contract = Contract.from_json(received.contract)
    if contract.study != study:
        raise refusal(819, f"a contract of the study {contract.study[:63]}")
    now = now or now_utc()
    contract.check_time(now)
    if not used.spend(contract.nonce, contract.expires, now):
        raise refusal(818, "a contract that was presented here before")
    return contract


def refusal(number: int, seen: str) -> TrustError:
    """Return the error for a contract that a site does not take."""
    return TrustError(number, where="contract", seen=seen)


def altered(seen: str) -> TrustError:
    """Return the error for a contract that is not what was signed (HF-814)."""
    return refusal(814, seen)


def write_time(time: datetime) -> str:
    """Return a time in UTC as what is signed writes it, to the second."""
    return f"{time:{_TIME}}"


def read_time(text: str) -> datetime:
    """Return the time that `write_time` wrote.

    Raises:
        ValueError: It did not write this.
    """
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text):
        raise ValueError("no time")
    return datetime.fromisoformat(text)
