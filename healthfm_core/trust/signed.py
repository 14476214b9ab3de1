"""Canonical JSON, and detached ed25519 signatures."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def canonical(value: Any) -> bytes:
    """Return `value` as JSON: keys sorted, no spaces, UTF-8; equal values give equal bytes.

    Raises:
        ValueError: It holds NaN, an infinity or a lone surrogate.
        TypeError: It holds something that is not JSON's.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sign(key: Ed25519PrivateKey, data: bytes) -> str:
    """Return the detached signature of `data`, base64."""
    return base64.b64encode(key.sign(data)).decode()


def is_signed(key: Ed25519PublicKey, value: Any, signature: str) -> bool:
    """Whether `signature` is `key`'s under `value`; of what is not JSON's there is none."""
    try:
        data = canonical(value)
    except (ValueError, TypeError, RecursionError):
        return False
    return verified(key, data, signature)


def verified(key: Ed25519PublicKey, data: bytes, signature: str) -> bool:
    """Whether `signature` is `key`'s under `data`."""
    try:
        key.verify(base64.b64decode(signature, validate=True), data)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
