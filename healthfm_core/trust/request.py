"""A site's request to join: public keys, a certificate request, and proof that it has the keys."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import NameOID

from healthfm_core.errors import TrustError
from healthfm_core.modalities.registry import unknown_names
from healthfm_core.trust import archive, fingerprint, signed
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.names import check_name, check_url
from healthfm_core.trust.site_keys import SiteKeys

FORMAT: Final = 1
MOST_SUBJECTS: Final = 2**40
"""No site has so many people."""
REQUEST_FILE: Final = "request.json"
_FILES: Final = (REQUEST_FILE, "tls.csr", "node.pub", "signing.pub", "proofs.json")
_SIGNED: Final = _FILES[:-1]


@dataclass(frozen=True)
class EnrolmentRequest:
    """A request whose proofs hold.

    Attributes:
        site: The name that the site gives itself.
        url: The study's address as the site knows it.
        modalities: What it means to bring, sorted; nothing is bound by it.
        made: When, ISO 8601 in UTC, by the site's clock.
        most_subjects: Most training subjects that it will say it has; 0 where it names no number.
        tls: Public key of its certificate.
        node: Flower's public node key, as OpenSSH writes it.
        signing: Its public signing key.
        one_covers_all: Whether the tls key signed the others, so that who compared its
            fingerprint has compared all three; not so in requests of 0.8 and before.
    """

    site: str
    url: str
    modalities: tuple[str, ...]
    made: str
    most_subjects: int
    tls: EllipticCurvePublicKey
    node: bytes
    signing: Ed25519PublicKey
    one_covers_all: bool

    @property
    def words(self) -> str:
        """The ten words that the site reads to the coordinator: of its tls key's fingerprint."""
        return fingerprint.in_words(fingerprint.of_key(self.tls))

    def signing_pem(self) -> bytes:
        """Return the site's public signing key as PEM."""
        return self.signing.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each key; the tls key's is compared, for all three."""
        return {
            "tls": fingerprint.of_key(self.tls),
            "node": fingerprint.of_key(load_ssh_public_key(self.node)),
            "signing": fingerprint.of_key(self.signing),
        }


def make_request(
    keys: SiteKeys,
    site: str,
    url: str,
    modalities: Collection[str],
    now: datetime | None = None,
    most_subjects: int = 0,
) -> bytes:
    """Return the bytes of a request file; it holds nothing secret.

    Args:
        keys: The site's.
        site: The name that it gives itself.
        url: The study's address.
        modalities: What it means to bring.
        now: When it is made.
        most_subjects: Most training subjects that it will say it has; 0: the request names none.

    Raises:
        TrustError: The name, the address or the number cannot be used (HF-810).
    """
    if not 0 <= most_subjects < MOST_SUBJECTS:
        raise TrustError(
            810,
            where="--most-subjects",
            seen=str(most_subjects)[:40],
            wanted="a number of people, or 0 where the request is to name none",
        )
    about = {
        "format": FORMAT,
        "site": check_name(site, "site"),
        "url": check_url(url),
        "modalities": sorted(modalities),
        "made": f"{now or now_utc():%Y-%m-%dT%H:%M:%SZ}",
        **({"most_subjects": most_subjects} if most_subjects else {}),
    }
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
    csr = x509.CertificateSigningRequestBuilder(name).sign(keys.tls, hashes.SHA384())
    files = {
        REQUEST_FILE: signed.canonical(about),
        "tls.csr": csr.public_bytes(Encoding.PEM),
        "node.pub": keys.node_public(),
        "signing.pub": keys.signing_public(),
    }
    digest = _digest(files)
    node = base64.b64encode(keys.node.sign(digest, ECDSA(hashes.SHA384()))).decode()
    tls = base64.b64encode(keys.tls.sign(digest, ECDSA(hashes.SHA384()))).decode()
    proofs = {"node": node, "signing": signed.sign(keys.signing, digest), "tls": tls}
    return archive.pack({**files, "proofs.json": signed.canonical(proofs)})


def read_request(data: bytes, where: str = "request") -> EnrolmentRequest:
    """Return a request, once every key in it has proved that its owner made the request.

    Raises:
        TrustError: The file is not a request (HF-806), a proof does not hold (HF-807), or a name
            or address cannot be used (HF-810).
    """
    files = archive.unpack(data, _FILES, where)
    try:
        about, proofs = json.loads(files[REQUEST_FILE]), json.loads(files["proofs.json"])
        csr = x509.load_pem_x509_csr(files["tls.csr"])
        keys = _keys(csr, files)
        request = _request(about, keys, files["node.pub"], "tls" in proofs)
        named = [str(attribute.value) for attribute in csr.subject]
        holds = csr.is_signature_valid and named == [request.site]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _not_one(where) from error
    if not (holds and _proved(keys, proofs, _digest(files))):
        raise _unproved(where)
    return request


Keys = tuple[EllipticCurvePublicKey, EllipticCurvePublicKey, Ed25519PublicKey]


def _keys(csr: x509.CertificateSigningRequest, files: dict[str, bytes]) -> Keys:
    tls, node = csr.public_key(), load_ssh_public_key(files["node.pub"])
    signing = load_pem_public_key(files["signing.pub"])
    if not isinstance(tls, EllipticCurvePublicKey) or not isinstance(node, EllipticCurvePublicKey):
        raise ValueError("a key is not of an elliptic curve")
    if not all(isinstance(key.curve, SECP384R1) for key in (tls, node)):
        raise ValueError("a key is not P-384")
    if not isinstance(signing, Ed25519PublicKey):
        raise ValueError("the signing key is not ed25519")
    return tls, node, signing


def _request(
    about: dict[str, Any], keys: Keys, node: bytes, one_covers_all: bool
) -> EnrolmentRequest:
    modalities = tuple(sorted(map(str, about["modalities"])))
    made = datetime.strptime(about["made"], "%Y-%m-%dT%H:%M:%SZ")
    if about["format"] != FORMAT or unknown_names(modalities):
        raise ValueError("another format, or a modality that does not exist")
    most = about.get("most_subjects", 0)
    if type(most) is not int or not 0 <= most < MOST_SUBJECTS:
        raise ValueError("an impossible number of subjects")
    return EnrolmentRequest(
        site=check_name(str(about["site"]), "site"),
        url=check_url(str(about["url"])),
        modalities=modalities,
        made=f"{made:%Y-%m-%dT%H:%M:%SZ}",
        most_subjects=most,
        tls=keys[0],
        node=node,
        signing=keys[2],
        one_covers_all=one_covers_all,
    )


def _digest(files: dict[str, bytes]) -> bytes:
    """Return what the proofs sign: each file's name and hash, so that none can be exchanged."""
    hasher = hashes.Hash(hashes.SHA256())
    for name in sorted(_SIGNED):
        each = hashes.Hash(hashes.SHA256())
        each.update(files[name])
        hasher.update(name.encode() + b"\0" + each.finalize())
    return b"healthfm enrolment request\0" + hasher.finalize()


def _proved(keys: Keys, proofs: dict[str, str], digest: bytes) -> bool:
    given = {"node": keys[1], **({"tls": keys[0]} if "tls" in proofs else {})}
    try:
        for name, key in given.items():
            proof = base64.b64decode(proofs[name], validate=True)
            key.verify(proof, digest, ECDSA(hashes.SHA384()))
        return signed.verified(keys[2], digest, proofs["signing"])
    except (InvalidSignature, binascii.Error, KeyError, TypeError, ValueError):
        return False


def _not_one(where: str) -> TrustError:
    return TrustError(
        806,
        where=where,
        seen="a file that is no request",
        wanted="a request that healthfm-client enroll wrote",
        do="Ask the site to send it again",
    )


def _unproved(where: str) -> TrustError:
    return TrustError(
        807,
        where=where,
        seen="a proof that does not hold: the request was altered, or another's key is in it",
    )
