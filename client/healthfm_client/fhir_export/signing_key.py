"""The key with which a site proves to a FHIR server who it is, and its public half to register.

ES384 or RS384, the two that SMART Backend Services asks servers to accept. The key is named by its
thumbprint (RFC 7638).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, assert_never

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as new_ec_key
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as new_rsa_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from healthfm_core.trust import files

Algorithm: TypeAlias = Literal["ES384", "RS384"]
_RSA_BITS: Final = 3072
_LEAST_RSA_BITS: Final = 2048
_COORDINATE_BYTES: Final = 48
_THUMBPRINT_OF: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}


@dataclass(frozen=True)
class AssertionKey:
    """A private key that signs what this site says of itself to a FHIR server."""

    private: EllipticCurvePrivateKey | RSAPrivateKey

    @classmethod
    def create(cls, file: Path, algorithm: Algorithm = "ES384") -> AssertionKey:
        """Make a new key in a new file that nobody but its owner may read.

        Raises:
            TrustError: Something has that name already (HF-801).
        """
        if algorithm == "ES384":
            key = cls(new_ec_key(SECP384R1()))
        elif algorithm == "RS384":
            key = cls(new_rsa_key(65537, _RSA_BITS))
        else:
            assert_never(algorithm)
        pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files.write_new(file, pem)
        return key

    @classmethod
    def load(cls, file: Path) -> AssertionKey:
        """Return the key in a file.

        Raises:
            TrustError: It is missing, damaged, of another kind, or open to others (HF-802).
        """
        data = files.read_private(file, "the FHIR server's key")
        do = "Name the file that healthfm-client fhir-key made, or make a new one"
        try:
            key = load_pem_private_key(data, None)
        except (ValueError, TypeError) as error:
            seen = "the FHIR server's key is damaged or has a password"
            raise files.unusable(file, seen, do) from error
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1):
            return cls(key)
        if isinstance(key, RSAPrivateKey) and key.key_size >= _LEAST_RSA_BITS:
            return cls(key)
        seen = f"the key is neither P-384 nor RSA of {_LEAST_RSA_BITS} bits or more"
        raise files.unusable(file, seen, do)

    @property
    def algorithm(self) -> Algorithm:
        """What it signs with, in JOSE's words."""
        return "RS384" if isinstance(self.private, RSAPrivateKey) else "ES384"

    @property
    def thumbprint(self) -> str:
        """The public half's thumbprint: SHA-256 in base64url (RFC 7638)."""
        return _thumbprint(self._public_numbers())

    def jwks(self, key_id: str | None = None) -> Mapping[str, list[dict[str, object]]]:
        """Return the public half as a JSON Web Key Set, to register at the server."""
        numbers = self._public_numbers()
        about = {"use": "sig", "alg": self.algorithm, "key_ops": ["verify"], "ext": True}
        return {"keys": [{**numbers, **about, "kid": key_id or self.thumbprint}]}

    def sign(self, data: bytes) -> bytes:
        """Return the signature of some bytes, as JOSE has it (RFC 7518, 3.3 and 3.4)."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, PKCS1v15(), SHA384())
        r, s = decode_dss_signature(self.private.sign(data, ECDSA(SHA384())))
        return r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES)

    def _public_numbers(self) -> dict[str, str]:
        if isinstance(self.private, RSAPrivateKey):
            of = self.private.public_key().public_numbers()
            return {"kty": "RSA", "n": _number(of.n), "e": _number(of.e)}
        at = self.private.public_key().public_numbers()
        x, y = (base64url(one.to_bytes(_COORDINATE_BYTES)) for one in (at.x, at.y))
        return {"kty": "EC", "crv": "P-384", "x": x, "y": y}


def base64url(data: bytes) -> str:
    """Return bytes in base64url without padding, as JOSE writes them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8))


def _thumbprint(numbers: Mapping[str, str]) -> str:
    required = {name: numbers[name] for name in _THUMBPRINT_OF[numbers["kty"]]}
    text = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return base64url(hashlib.sha256(text.encode("ascii")).digest())
