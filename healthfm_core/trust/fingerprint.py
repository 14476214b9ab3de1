"""Fingerprints: SHA-256, as ten words that two people read to each other, or as OpenSSL writes it.

The words are the first 110 bits, eleven a word, of BIP-39's English list. What is kept, and read by
programs, is the whole of it in hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from healthfm_core.errors import TrustError
from healthfm_core.trust import word_list

WORDS: Final = 10
"""Words that are compared: nobody finds another key of the same ones (docs/decisions/0063)."""
_BITS: Final = 256
_SPOKEN_BITS: Final = WORDS * word_list.BITS


def of_certificate(certificate: x509.Certificate) -> str:
    """Return what ``openssl x509 -noout -fingerprint -sha256`` says of `certificate`."""
    return _written(certificate.public_bytes(Encoding.DER))


def of_key(key: PublicKeyTypes) -> str:
    """Return the fingerprint of a public key: SHA-256 over its SubjectPublicKeyInfo."""
    return _written(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def in_words(fingerprint: str) -> str:
    """Return the ten words for a fingerprint that is written in hexadecimal digits."""
    spoken = int(_digits(fingerprint), 16) >> (_BITS - _SPOKEN_BITS)
    shifts = range(_SPOKEN_BITS - word_list.BITS, -1, -word_list.BITS)
    mask = (1 << word_list.BITS) - 1
    return " ".join(word_list.words()[spoken >> shift & mask] for shift in shifts)


def same(one: str, other: str) -> bool:
    """Whether two fingerprints are the same, each in words or digits; of words, 110 bits count.

    Case, spaces, hyphens and colons do not matter; what is no fingerprint is never the same.
    """
    if fault(one) or fault(other):
        return False
    if _is_hexadecimal(one) and _is_hexadecimal(other):
        return _digits(one) == _digits(other)
    return _spoken(one) == _spoken(other)


def is_one(text: str) -> bool:
    """Whether `text` can be a fingerprint at all: ten words, or 64 hexadecimal digits."""
    return not fault(text)


def fault(text: str) -> str:
    """Return why `text` can be no fingerprint; empty where it can. Names the word to correct."""
    if _is_hexadecimal(text):
        return ""
    told = _told_words(text)
    unknown = [word for word in told if word not in word_list.places()]
    if unknown and len(told) > 1:
        near = word_list.nearest(unknown[0])
        return f"no word of the list is {unknown[0][:40]!r}; the nearest is {near!r}"
    if len(told) != WORDS:
        seen = f"{len(told)} words" if len(told) > 1 else repr(text[:40])
        return f"{seen}, not ten words or 64 hexadecimal digits"
    return ""


def refuse_other(ours: str, told: str, *, where: str, do: str) -> None:
    """Refuse a fingerprint that a person gave where it is not `ours`.

    Args:
        ours: The fingerprint of what lies here, in hexadecimal digits.
        told: What the person was told, in words or digits.
        where: What it is of.
        do: What to do where it is another one.

    Raises:
        TrustError: It is another one, or none, as with a word mistyped (HF-809).
    """
    if wrong := fault(told):
        raise TrustError(
            809,
            where=where,
            seen=wrong,
            wanted="the ten words as they were read to you",
            do="Type them again; nothing was changed",
        )
    if not same(ours, told):
        shown = ours if _is_hexadecimal(told) else f"the words {in_words(ours)!r}"
        raise TrustError(
            809, where=where, seen=shown, wanted=f"the ones you were told, {told[:100]!r}", do=do
        )


def _written(data: bytes) -> str:
    return ":".join(f"{byte:02X}" for byte in hashlib.sha256(data).digest())


def _digits(text: str) -> str:
    return re.sub(r"[\s:]", "", text).lower()


def _is_hexadecimal(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", _digits(text)) is not None


def _told_words(text: str) -> list[str]:
    return re.findall(r"[^\s,;.-]+", text.lower())


def _spoken(text: str) -> str:
    return in_words(text) if _is_hexadecimal(text) else " ".join(_told_words(text))
