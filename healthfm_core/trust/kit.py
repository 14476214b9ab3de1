"""The kit a site gets back: the study's root, its own certificate, the address, all signed.

The kit is signed by the study's signing key, whose certificate the root in it issued. So a site's
administrator who has compared the root's fingerprint by telephone can trust the whole kit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from healthfm_core.errors import TrustError
from healthfm_core.trust import archive, certificates, files, fingerprint, signed
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.certificates import (
    LEAF_DAYS,
    check_issued,
    now_utc,
    pem,
    read_certificates,
)
from healthfm_core.trust.names import check_name, check_url
from healthfm_core.trust.request import EnrolmentRequest
from healthfm_core.trust.site_keys import SiteKeys

FORMAT: Final = 1
ABOUT: Final = "kit.json"
ROOT: Final = "root.pem"
OLDER: Final = "older-roots.pem"
CROSS: Final = "cross.pem"
CERTIFICATE: Final = "site.pem"
SIGNER: Final = "signer.pem"
SIGNATURE: Final = "kit.sig"
_SIGNED: Final = (ABOUT, ROOT, OLDER, CROSS, CERTIFICATE, SIGNER)
_FILES: Final = (*_SIGNED, SIGNATURE)


@dataclass(frozen=True)
class Kit:
    """A kit whose signature holds under the root in it.

    Attributes:
        study: The study's name.
        site: The site's name, as it registered.
        url: Where the server is.
        node_id: Flower's number of the site's node.
        made: When, ISO 8601 in UTC.
        root: The root that signs now.
        older: Roots that are still trusted, of a server certificate that is not yet new.
        cross_certificates: Newer roots, signed by older ones.
        certificate: The site's own.
        signer: Certificate of the key that signs the study's contracts.
    """

    study: str
    site: str
    url: str
    node_id: int
    made: str
    root: x509.Certificate
    older: tuple[x509.Certificate, ...]
    cross_certificates: tuple[x509.Certificate, ...]
    certificate: x509.Certificate
    signer: x509.Certificate

    @property
    def root_fingerprint(self) -> str:
        """What the administrator compares with the coordinator."""
        return fingerprint.of_certificate(self.root)

    @property
    def root_words(self) -> str:
        """The ten words of `root_fingerprint`."""
        return fingerprint.in_words(self.root_fingerprint)

    @property
    def signer_key(self) -> Ed25519PublicKey:
        """The key that signs this study's contracts."""
        key = self.signer.public_key()
        if not isinstance(key, Ed25519PublicKey):
            raise _unsigned("kit", "a signer whose key is not ed25519")
        return key

    @property
    def signer_fingerprint(self) -> str:
        """Fingerprint of the key that signs contracts, as ``site.yaml`` names it."""
        return fingerprint.of_key(self.signer_key)


def make_kit(
    authority: Authority,
    request: EnrolmentRequest,
    *,
    url: str,
    node_id: int,
    site: str | None = None,
    days: int = LEAF_DAYS,
    now: datetime | None = None,
) -> bytes:
    """Issue a certificate for a request and return the bytes of the kit for it.

    Args:
        authority: Of the study.
        request: From `read_request`; its fingerprints have been compared.
        url: The server's address as the site reaches it.
        node_id: What Flower numbered the request's node key.
        site: The site's name where the coordinator gives it another than the request's.
        days: Life of the certificate.
        now: The time, for tests.

    Raises:
        TrustError: A name or the address cannot be used (HF-810).
    """
    name = check_name(site or request.site, "site")
    certificate = authority.issue_site(name, request.tls, days=days, now=now)
    about = {
        "format": FORMAT,
        "study": authority.study,
        "site": name,
        "url": check_url(url),
        "node_id": str(node_id),
        "made": f"{now or now_utc():%Y-%m-%dT%H:%M:%SZ}",
    }
    newest, older = pem(authority.root.certificate), authority.roots_pem()
    inside = {
        ABOUT: signed.canonical(about),
        ROOT: newest,
        OLDER: older.removeprefix(newest),
        CROSS: authority.cross_certificates_pem(),
        CERTIFICATE: pem(certificate),
        SIGNER: pem(authority.signer_certificate(now)),
    }
    signature = signed.sign(authority.signer, _text(inside))
    return archive.pack({**inside, SIGNATURE: signature.encode()})


def read_kit(data: bytes, where: str = "kit", now: datetime | None = None) -> Kit:
    """Return a kit, once its signature and its certificates hold under the root in it.

    Whether that root is the study's is not known by this: see `install_kit`.

    Raises:
        TrustError: The file is no kit (HF-806), its signature does not hold (HF-808), or a
            certificate is another root's (HF-803) or not valid now (HF-804).
    """
    inside = archive.unpack(data, _FILES, where)
    try:
        kit = _kit(json.loads(inside[ABOUT]), inside, where)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_one(where) from error
    check_issued(kit.signer, [kit.root], where=f"{where}, signer", now=now)
    if not signed.verified(kit.signer_key, _text(inside), inside[SIGNATURE].decode("latin-1")):
        raise _unsigned(where, "a signature that does not hold: the kit was altered")
    check_issued(kit.certificate, [kit.root], where=f"{where}, site's certificate", now=now)
    names = {certificates.common_name(kit.signer), certificates.common_name(kit.certificate)}
    if names != {"signer", kit.site} or certificates.study_of(kit.signer) != kit.study:
        raise _unsigned(where, "certificates of other names than the kit's")
    return kit


def install_kit(
    data: bytes,
    folder: Path,
    keys: SiteKeys,
    *,
    root_fingerprint: str | None = None,
    now: datetime | None = None,
) -> Kit:
    """Write a kit's files to `folder` and return the kit; a newer kit replaces an older one.

    Args:
        data: The kit file.
        folder: The site's folder of what it got from the study.
        keys: The site's own; the kit must be for them.
        root_fingerprint: What the coordinator gave the administrator. None only where a kit is
            there already: then the new root must be the known one, or one that it vouches for.
        now: The time, for tests.

    Raises:
        TrustError: As `read_kit`; or the kit is for other keys (HF-808), or its root is not the
            one that was given or known (HF-809).
    """
    kit = read_kit(data, now=now)
    if kit.certificate.public_key() != keys.tls.public_key():
        raise _unsigned("kit", "a kit for other keys than this site's")
    known = installed(folder)
    if root_fingerprint is not None:
        _compare(kit, root_fingerprint)
    elif known is None:
        raise _untold(kit)
    else:
        trusted = [known.root, *known.older]
        certificates.check_succession(kit.root, trusted, kit.cross_certificates, where="kit, root")
    files.replace(folder / "kit.zip", data)
    return kit


def installed(folder: Path) -> Kit | None:
    """Return the kit installed in `folder`, None where there is none; expired ones too.

    Raises:
        TrustError: It is damaged (HF-803, HF-806, HF-808).
    """
    path = folder / "kit.zip"
    if not path.exists():
        return None
    data = files.read(path, "the installed kit")
    inside = archive.unpack(data, _FILES, str(path))
    parts = [read_certificates(inside[name], str(path))[0] for name in (ROOT, CERTIFICATE, SIGNER)]
    return read_kit(data, str(path), now=max(part.not_valid_before_utc for part in parts))


def write_for_tls(kit: Kit, folder: Path) -> tuple[Path, Path]:
    """Return files with the roots to trust and the site's certificate, written where they differ.

    So a site whose disk is full still connects, and says that it is.
    """
    roots, certificate = folder / "roots.pem", folder / CERTIFICATE
    wanted = {
        roots: b"".join(pem(root) for root in (kit.root, *kit.older)),
        certificate: pem(kit.certificate),
    }
    for path, data in wanted.items():
        if not path.is_file() or path.read_bytes() != data:
            files.replace(path, data)
    return roots, certificate


def signer_pem(kit: Kit) -> bytes:
    """Return the study's public signing key as PEM."""
    return kit.signer_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _kit(about: dict[str, Any], inside: dict[str, bytes], where: str) -> Kit:
    if about["format"] != FORMAT:
        raise ValueError("another format")
    (root,), (own,), (signer,) = (
        read_certificates(inside[name], where) for name in (ROOT, CERTIFICATE, SIGNER)
    )
    older, cross_certificates = (
        tuple(read_certificates(inside[name], where)) if inside[name] else ()
        for name in (OLDER, CROSS)
    )
    return Kit(
        study=check_name(str(about["study"]), "study"),
        site=check_name(str(about["site"]), "site"),
        url=check_url(str(about["url"])),
        node_id=int(about["node_id"]),
        made=str(about["made"]),
        root=root,
        older=older,
        cross_certificates=cross_certificates,
        certificate=own,
        signer=signer,
    )


def _text(inside: dict[str, bytes]) -> bytes:
    return signed.canonical({name: inside[name].decode("latin-1") for name in _SIGNED})


def _compare(kit: Kit, told: str) -> None:
    do = "Do not use this kit; ask the coordinator by telephone which one is right"
    fingerprint.refuse_other(kit.root_fingerprint, told, where="kit, root", do=do)


def _untold(kit: Kit) -> TrustError:
    return TrustError(
        809,
        where="kit, root",
        seen=f"the words {kit.root_words!r}, which nobody has confirmed yet",
        wanted="the ten words that the coordinator reads to you",
        do="Ask the coordinator for them by telephone, then give them with --root",
    )


def _not_one(where: str) -> TrustError:
    return TrustError(
        806,
        where=where,
        seen="a file that is no kit",
        wanted="a kit that healthfm-server site sign wrote",
        do="Ask the coordinator to send it again",
    )


def _unsigned(where: str, seen: str) -> TrustError:
    return TrustError(808, where=where, seen=seen)
