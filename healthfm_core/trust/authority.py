"""The coordinator's certificate authority: a folder with its roots, its signer and what it issued.

``study.json`` names the study, ``signer.key`` signs kits and contracts, ``roots/1`` holds the first
root, ``roots/2`` the one that followed it, ``issued.json`` what was issued and what of it is
revoked. Back the folder up and keep the backup offline: whoever has it can admit sites.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from healthfm_core.errors import TrustError
from healthfm_core.trust import certificates, files, fingerprint
from healthfm_core.trust.certificates import LEAF_DAYS, Identity, certify_site, now_utc, pem
from healthfm_core.trust.names import check_host, check_name

CRL_DAYS: Final = 30
"""Life of a revocation list; `Authority.crl` makes a new one each time it is asked."""


@dataclass(frozen=True)
class IssuedCertificate:
    """A certificate that was issued.

    Attributes:
        serial: Its serial number, in hexadecimal.
        who: Its common name: a site's name, or ``server``.
        role: What it is for.
        root: Number of the root that signed it.
        fingerprint: SHA-256 of the certificate.
        until: Its last second, ISO 8601 in UTC.
        revoked: When it was revoked, empty while it holds.
    """

    serial: str
    who: str
    role: Literal["server", "site"]
    root: int
    fingerprint: str
    until: str
    revoked: str = ""


class Authority:
    """Issues, revokes and changes certificates; each call leaves the folder complete.

    Args:
        folder: Made by `create`.

    Raises:
        TrustError: The folder holds no authority, or a key of it cannot be used (HF-802).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.study = str(json.loads(files.read(folder / "study.json", "the study"))["study"])
            numbers = sorted(int(path.name) for path in (folder / "roots").iterdir())
            self._roots = {number: _load_root(folder / "roots" / str(number)) for number in numbers}
            self.number = max(numbers)
        except (ValueError, KeyError, OSError) as error:
            raise files.unusable(folder, "no certificate authority is in there") from error
        self.signer = _load_signer(folder / "signer.key")

    @classmethod
    def create(cls, folder: Path, study: str, *, now: datetime | None = None) -> Authority:
        """Make the first root and the signing key of a new study.

        Raises:
            TrustError: One is in there already (HF-801), or the name cannot be used (HF-810).
        """
        check_name(study, "study")
        if folder.exists() and any(folder.iterdir()):
            raise files.exists_already(folder)
        partial = folder.with_name(f".{folder.name}.partial-{secrets.token_hex(4)}")
        _write_root(partial, 1, certificates.make_root(study, now=now))
        signer = Ed25519PrivateKey.generate()
        private = signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files.write_new(partial / "signer.key", private)
        files.write_new(partial / "issued.json", b"[]\n", files.PUBLIC)
        text = json.dumps({"study": study}) + "\n"
        files.write_new(partial / "study.json", text.encode(), files.PUBLIC)
        partial.rename(folder)
        return cls(folder)

    @property
    def root(self) -> Identity:
        """The root that signs now."""
        return self._roots[self.number]

    @property
    def fingerprint(self) -> str:
        """What a site's administrator compares: the fingerprint of the root that signs now."""
        return fingerprint.of_certificate(self.root.certificate)

    @property
    def words(self) -> str:
        """The ten words of `fingerprint`, to be read to a site's administrator."""
        return fingerprint.in_words(self.fingerprint)

    def roots_pem(self) -> bytes:
        """Return the roots that are trusted, the newest first: the server's list for sites."""
        return b"".join(pem(self._roots[n].certificate) for n in sorted(self._roots, reverse=True))

    def cross_certificates_pem(self) -> bytes:
        """Return the newest root as signed by the older ones, for sites that trust only those."""
        return b"".join(
            path.read_bytes() for path in sorted((self.folder / "roots").glob("*/cross.pem"))
        )

    def signer_certificate(self, now: datetime | None = None) -> x509.Certificate:
        """Return the signing key's certificate by the root that signs now."""
        return certificates.certify_signer(self.root, self.study, self.signer.public_key(), now=now)

    def issue_server(
        self,
        hosts: Sequence[str],
        *,
        days: int = LEAF_DAYS,
        now: datetime | None = None,
    ) -> tuple[bytes, bytes]:
        """Return a new server key and its certificate chain, both as PEM.

        Any number of them may be valid at once, so a new one is put in place before the old one
        expires; sites notice nothing.

        Raises:
            TrustError: A host is no host (HF-810).
        """
        names = [check_host(host) for host in hosts]
        server = certificates.make_server(self.root, self.study, names, days=days, now=now)
        self._record(server.certificate, "server")
        return server.key_pem(), server.certificate_pem() + self.cross_certificates_pem()

    def issue_site(
        self,
        site: str,
        key: CertificatePublicKeyTypes,
        *,
        days: int = LEAF_DAYS,
        now: datetime | None = None,
    ) -> x509.Certificate:
        """Return a site's certificate; its older ones stay valid until they expire."""
        check_name(site, "site")
        certificate = certify_site(self.root, self.study, site, key, days=days, now=now)
        self._record(certificate, "site")
        return certificate

    def issued(self) -> list[IssuedCertificate]:
        """Return all that was issued, the oldest first."""
        raw = json.loads(files.read(self.folder / "issued.json", "what was issued"))
        return [IssuedCertificate(**row) for row in raw]

    def revoke(self, who: str, now: datetime | None = None) -> list[IssuedCertificate]:
        """Revoke every certificate of a site and return them; `crl` lists them from now on.

        Raises:
            TrustError: None was issued to it (HF-811).
        """
        when = f"{now or now_utc():%Y-%m-%dT%H:%M:%SZ}"
        rows = self.issued()
        mine = [row for row in rows if row.who == who and row.role == "site"]
        if not mine:
            raise unknown_site(who)
        changed = [replace(row, revoked=row.revoked or when) for row in mine]
        by_serial = {row.serial: row for row in changed}
        self._write([by_serial.get(row.serial, row) for row in rows])
        return changed

    def crl(self, *, now: datetime | None = None) -> bytes:
        """Return the revocation lists of all roots as PEM, valid for `CRL_DAYS`."""
        rows = [row for row in self.issued() if row.revoked]
        return b"".join(
            _revocations(root, [row for row in rows if row.root == number], now or now_utc())
            for number, root in self._roots.items()
        )

    def rotate(self, now: datetime | None = None) -> None:
        """Make a new root that signs from now on; the older ones stay trusted.

        Sites with the old root trust a new server certificate by `cross_certificates_pem`; a new
        kit gives a site the new root. When every site has it, `retire` drops the old ones.
        """
        number, old = self.number + 1, self.root
        new = certificates.make_root(self.study, number, now=now)
        _write_root(self.folder, number, new, certificates.cross_sign(new.certificate, old, now))
        self._roots[number], self.number = new, number

    def retire(self) -> list[IssuedCertificate]:
        """Stop trusting older roots, and return their certificates that end by that."""
        cut = [row for row in self.issued() if row.root != self.number and not row.revoked]
        for number in [n for n in self._roots if n != self.number]:
            folder = self.folder / "roots" / str(number)
            (self.folder / "retired").mkdir(exist_ok=True)
            folder.rename(self.folder / "retired" / str(number))
            del self._roots[number]
        (self.folder / "roots" / str(self.number) / "cross.pem").unlink(missing_ok=True)
        return cut

    def _record(self, certificate: x509.Certificate, role: Literal["server", "site"]) -> None:
        row = IssuedCertificate(
            serial=f"{certificate.serial_number:x}",
            who=certificates.common_name(certificate),
            role=role,
            root=self.number,
            fingerprint=fingerprint.of_certificate(certificate),
            until=f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        )
        self._write([*self.issued(), row])

    def _write(self, rows: list[IssuedCertificate]) -> None:
        text = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
        files.replace(self.folder / "issued.json", text.encode())


def unknown_site(site: str) -> TrustError:
    """Return the error for a site that the study does not know (HF-811)."""
    return TrustError(811, where=f"site {site[:64]}", seen="this study knows no site of that name")


def _revocations(root: Identity, rows: list[IssuedCertificate], now: datetime) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.certificate.subject)
        .last_update(now - certificates.BACKDATED)
        .next_update(now + timedelta(days=CRL_DAYS))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()),
            critical=False,
        )
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
    )
    for row in rows:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(int(row.serial, 16))
            .revocation_date(datetime.fromisoformat(row.revoked))
            .build()
        )
    return builder.sign(root.key, hashes.SHA384()).public_bytes(Encoding.PEM)


def _write_root(folder: Path, number: int, root: Identity, cross: bytes | None = None) -> None:
    """Write a root under another name first, so that each folder of `roots` is whole."""
    target = folder / "roots" / str(number)
    partial = folder / f"root-{number}.partial"
    for leftover in partial.glob("*"):
        leftover.unlink()
    files.write_new(partial / "root.key", root.key_pem())
    files.write_new(partial / "root.pem", root.certificate_pem(), files.PUBLIC)
    if cross is not None:
        files.write_new(partial / "cross.pem", cross, files.PUBLIC)
    target.parent.mkdir(exist_ok=True)
    partial.rename(target)


def _load_root(folder: Path) -> Identity:
    key = _load_key(folder / "root.key", "the root's key")
    if not isinstance(key, EllipticCurvePrivateKey):
        raise files.unusable(folder / "root.key", "a key that is not P-384")
    text = files.read(folder / "root.pem", "the root")
    return Identity(certificates.read_certificates(text, str(folder))[0], key)


def _load_signer(path: Path) -> Ed25519PrivateKey:
    key = _load_key(path, "the study's signing key")
    if not isinstance(key, Ed25519PrivateKey):
        raise files.unusable(path, "a key that is not ed25519")
    return key


def _load_key(path: Path, what: str) -> object:
    try:
        return load_pem_private_key(files.read_private(path, what), None)
    except (ValueError, TypeError) as error:
        raise files.unusable(path, f"{what} is damaged") from error
