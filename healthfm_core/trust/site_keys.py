"""A site's three private keys: made at the site, for their owner only, and never sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from healthfm_core.trust import files

TLS_KEY: Final = "tls.key"
NODE_KEY: Final = "node.key"
NODE_PUBLIC: Final = "node.pub"
SIGNING_KEY: Final = "signing.key"


@dataclass(frozen=True)
class SiteKeys:
    """What a site proves itself with.

    Attributes:
        tls: P-384, for the certificate that the server asks for.
        node: P-384, Flower's node key.
        signing: ed25519, for what the site says of itself and to other sites.
    """

    tls: EllipticCurvePrivateKey
    node: EllipticCurvePrivateKey
    signing: Ed25519PrivateKey

    @classmethod
    def create(cls, folder: Path) -> SiteKeys:
        """Make new keys in `folder`.

        A folder that holds some of them, left by an interruption, gets those that it lacks; one
        that holds them all is left as it is.

        Raises:
            TrustError: A key that is there already cannot be used (HF-802).
        """
        for name, make in _MAKERS.items():
            if not (folder / name).exists():
                files.write_new(folder / name, make())
        keys = cls.load(folder)
        files.replace(folder / NODE_PUBLIC, keys.node_public())
        return keys

    @classmethod
    def load(cls, folder: Path) -> SiteKeys:
        """Return the keys in `folder`.

        Raises:
            TrustError: One is missing, damaged, of another kind, or open to others (HF-802).
        """
        tls = _load(folder / TLS_KEY, EllipticCurvePrivateKey)
        node = _load(folder / NODE_KEY, EllipticCurvePrivateKey)
        signing = _load(folder / SIGNING_KEY, Ed25519PrivateKey)
        return cls(tls, node, signing)

    def node_public(self) -> bytes:
        """Return Flower's public node key as OpenSSH writes it."""
        return self.node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"

    def signing_public(self) -> bytes:
        """Return the public signing key as PEM."""
        key = self.signing.public_key()
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


_MAKERS: Final[Mapping[str, Callable[[], bytes]]] = {
    TLS_KEY: lambda: _private(generate_private_key(SECP384R1()), PrivateFormat.PKCS8),
    NODE_KEY: lambda: _private(generate_private_key(SECP384R1()), PrivateFormat.OpenSSH),
    SIGNING_KEY: lambda: _private(Ed25519PrivateKey.generate(), PrivateFormat.PKCS8),
}


def _private(key: EllipticCurvePrivateKey | Ed25519PrivateKey, form: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def _load(path: Path, kind: Any) -> Any:
    data = files.read_private(path, "a private key")
    read = load_ssh_private_key if path.name == NODE_KEY else load_pem_private_key
    try:
        key = read(data, None)
    except (ValueError, TypeError) as error:
        raise files.unusable(path, "a private key is damaged or has a password") from error
    if not isinstance(key, kind):
        raise files.unusable(path, "a private key is of another kind")
    return key
