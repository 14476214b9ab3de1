"""Fingerprints that two people can read to each other: SHA-256, written as OpenSSL writes it."""

from __future__ import annotations

import hashlib
import hmac
import re

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def of_certificate(certificate: x509.Certificate) -> str:
    """Return what ``openssl x509 -noout -fingerprint -sha256`` says of `certificate`."""
    return _written(certificate.public_bytes(Encoding.DER))


def of_key(key: PublicKeyTypes) -> str:
    """Return the fingerprint of a public key: SHA-256 over its SubjectPublicKeyInfo."""
    return _written(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def same(one: str, other: str) -> bool:
    """Whether two fingerprints are the same, whatever their case, colons and spaces."""
    return hmac.compare_digest(_plain(one), _plain(other))


def is_one(text: str) -> bool:
    """Whether `text` can be a fingerprint at all: 64 hexadecimal digits."""
    return re.fullmatch(rb"[0-9a-f]{64}", _plain(text)) is not None


def _written(data: bytes) -> str:
    return ":".join(f"{byte:02X}" for byte in hashlib.sha256(data).digest())


def _plain(text: str) -> bytes:
    return "".join(text.split()).replace(":", "").lower().encode()
