"""Keys of a session: signed X25519 keys, secrets agreed from them, and sealed messages.

Every secret comes from the operating system's entropy, through `os.urandom` or the library's own
generation of keys: none from a seed of the run, which the coordinator knows.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Final, Protocol, Self, runtime_checkable

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES: Final = 32
_NONCE: Final = bytes(12)


@runtime_checkable
class Signer(Protocol):
    """Who signs a site's keys: in a deployment the site's own key on its disk."""

    @property
    def public(self) -> bytes:
        """The 32 bytes of the ed25519 public key."""

    def sign(self, text: bytes) -> bytes:
        """Return the ed25519 signature of `text`."""


@dataclass(frozen=True)
class SigningKey:
    """An ed25519 key held in memory."""

    private: bytes

    @classmethod
    def generate(cls) -> Self:
        """Return a new key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public key."""
        return self._key.public_key().public_bytes_raw()

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private)

    def sign(self, text: bytes) -> bytes:
        """Return the signature of `text`."""
        return self._key.sign(text)


def is_signed(public: bytes, signature: bytes, text: bytes) -> bool:
    """Return whether `signature` is that of `text` by the holder of `public`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def new_secret() -> bytes:
    """Return 32 bytes of the operating system's entropy."""
    return os.urandom(SECRET_BYTES)


def new_private() -> bytes:
    """Return a new X25519 private key."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_of(private: bytes) -> bytes:
    """Return the public key of an X25519 private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, peer: bytes, *, purpose: str, session: bytes) -> bytes:
    """Return the 32 bytes that this holder and the holder of `peer` alone can compute.

    HKDF-SHA256 of the X25519 secret; the session is the salt, and purpose and both public keys are
    the info, so that a secret serves one purpose in one session.

    Raises:
        ValueError: `peer` is no public key, or one of those that give everybody the same secret.
    """
    shared = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(peer)
    )
    both = b"".join(sorted((public_of(private), peer)))
    info = b"healthfm/" + purpose.encode() + b"/" + both
    return HKDF(SHA256(), SECRET_BYTES, salt=session, info=info).derive(shared)


def seal(key: bytes, text: bytes, about: bytes) -> bytes:
    """Return `text` sealed with ChaCha20-Poly1305; `about` is not in it, but must be known.

    A key seals one message in its life, so the nonce is constant.
    """
    return ChaCha20Poly1305(key).encrypt(_NONCE, text, about)


def open_seal(key: bytes, sealed: bytes, about: bytes) -> bytes | None:
    """Return the text of a sealed message, or None where key, message or `about` is another."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, about)
    except InvalidTag:
        return None


def commitment(secret: bytes, session: bytes) -> bytes:
    """Return a hash by which a secret of 32 random bytes is known again and not guessed."""
    return hashlib.sha256(b"healthfm/commitment/" + session + secret).digest()
