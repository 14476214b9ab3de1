"""The four kinds of certificate of a study, and how a chain of them is checked.

A root signs the server's, each site's and the signer's certificate. When the root is changed, the
old one signs the new one too (`cross`), so that whoever trusts the old one also trusts the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from healthfm_core.errors import TrustError

ROOT_DAYS: Final = 3652
LEAF_DAYS: Final = 397
"""A server's or a site's certificate: thirteen months, so that yearly renewal is in time."""
RENEWED_DAYS: Final = 60
"""Days before its end from which a site's certificate is renewed."""
BACKDATED: Final = timedelta(minutes=10)
"""How far the clock of a machine may be behind for a new certificate to be valid there."""


def now_utc() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Identity:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    def key_pem(self) -> bytes:
        """Return the private key, unencrypted PKCS#8."""
        return key_pem(self.key)

    def certificate_pem(self) -> bytes:
        """Return the certificate as PEM."""
        return pem(self.certificate)


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: EllipticCurvePrivateKey) -> bytes:
    """Return a private key, unencrypted PKCS#8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_root(
    study: str, number: int = 1, *, days: int = ROOT_DAYS, now: datetime | None = None
) -> Identity:
    """Return a new self-signed root of `study`, its `number`-th."""
    key = generate_private_key(SECP384R1())
    name = _name(study, f"root {number}")
    builder = _builder(name, name, key.public_key(), days, now)
    return Identity(_sign(_authority(builder), key, key.public_key()), key)


def cross_sign(new: x509.Certificate, old: Identity, now: datetime | None = None) -> bytes:
    """Return the PEM of `new`'s name and key, signed by `old` and valid as long as `old`."""
    left = old.certificate.not_valid_after_utc - (now or now_utc())
    builder = _builder(
        new.subject, old.certificate.subject, new.public_key(), max(left.days, 1), now
    )
    return pem(_sign(_authority(builder), old.key, old.key.public_key()))


def make_server(
    root: Identity,
    study: str,
    hosts: Sequence[str],
    *,
    days: int = LEAF_DAYS,
    now: datetime | None = None,
) -> Identity:
    """Return a new key and certificate for a server that answers to `hosts`, names or addresses.

    The key is P-256: a signature of P-384 costs the server a millisecond of each handshake, a
    stranger's too, and this one 0.03. It lives as long as the certificate and vouches for no other.
    """
    if not hosts:
        raise ValueError("a server's certificate needs a host name or an address")
    key = generate_private_key(SECP256R1())
    builder = _builder(
        _name(study, "server"), root.certificate.subject, key.public_key(), days, now
    )
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False
    )
    return Identity(_leaf(builder, root, ExtendedKeyUsageOID.SERVER_AUTH), key)


def certify_site(
    root: Identity,
    study: str,
    site: str,
    key: CertificatePublicKeyTypes,
    *,
    days: int = LEAF_DAYS,
    now: datetime | None = None,
) -> x509.Certificate:
    """Return the certificate by which `site` authenticates itself to the server."""
    builder = _builder(_name(study, site), root.certificate.subject, key, days, now)
    return _leaf(builder, root, ExtendedKeyUsageOID.CLIENT_AUTH)


def certify_signer(
    root: Identity,
    study: str,
    key: CertificatePublicKeyTypes,
    *,
    now: datetime | None = None,
) -> x509.Certificate:
    """Return a certificate for the key that signs the study's kits and contracts.

    It is valid as long as its root, since no connection is made with it.
    """
    left = root.certificate.not_valid_after_utc - (now or now_utc())
    builder = _builder(
        _name(study, "signer"), root.certificate.subject, key, max(left.days, 1), now
    )
    return _leaf(builder, root, ExtendedKeyUsageOID.CODE_SIGNING)


def common_name(certificate: x509.Certificate) -> str:
    """Return the name of a certificate's holder; empty where it has none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def study_of(certificate: x509.Certificate) -> str:
    """Return the study a certificate belongs to; empty where it does not say."""
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else ""


def check_issued(
    certificate: x509.Certificate,
    roots: Iterable[x509.Certificate],
    *,
    where: str,
    now: datetime | None = None,
) -> x509.Certificate:
    """Return the root of `roots` that issued `certificate`, which is valid now.

    Raises:
        TrustError: None of them issued it (HF-803), or it is not valid now (HF-804).
    """
    for root in roots:
        if _issued(certificate, root):
            check_valid_now(certificate, where=where, now=now)
            check_valid_now(root, where=f"{where}, root", now=now)
            return root
    raise _unknown_issuer(where)


def check_succession(
    root: x509.Certificate,
    trusted: Iterable[x509.Certificate],
    cross_certificates: Sequence[x509.Certificate],
    *,
    where: str,
) -> None:
    """Refuse a root that is none of `trusted` and that no chain of cross certificates leads to.

    Raises:
        TrustError: It is an unknown one (HF-803).
    """
    known = list(trusted)
    left = list(cross_certificates)
    while linked := [c for c in left if any(_issued(c, by) for by in known)]:
        known += linked
        left = [c for c in left if c not in linked]
    if root.public_key() not in [certificate.public_key() for certificate in known]:
        raise _unknown_issuer(where)


def check_valid_now(
    certificate: x509.Certificate, *, where: str, now: datetime | None = None
) -> None:
    """Refuse a certificate before and after its time.

    Raises:
        TrustError: It is expired or not yet valid (HF-804).
    """
    now = now or now_utc()
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if first <= now <= last:
        return
    seen = f"it expired on {last:%Y-%m-%d}" if now > last else f"it is valid from {first:%Y-%m-%d}"
    raise TrustError(
        804,
        where=where,
        seen=seen,
        wanted=f"a certificate that is valid today, {now:%Y-%m-%d} by this machine's clock",
    )


def read_certificates(data: bytes, where: str) -> list[x509.Certificate]:
    """Return the certificates in a PEM text, at least one.

    Raises:
        TrustError: It is no such text (HF-803).
    """
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise TrustError(
            803,
            where=where,
            seen="text that is no certificate",
            wanted="a certificate as PEM",
            do="Ask the coordinator for a new kit",
        ) from error


def _name(study: str, who: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, study),
            x509.NameAttribute(NameOID.COMMON_NAME, who),
        ]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    days: int,
    now: datetime | None,
) -> x509.CertificateBuilder:
    now = now or now_utc()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(True, None), critical=True).add_extension(
        _usage(signs_certificates=True), critical=True
    )


def _leaf(
    builder: x509.CertificateBuilder, root: Identity, purpose: x509.ObjectIdentifier
) -> x509.Certificate:
    builder = (
        builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    return _sign(builder, root.key, root.key.public_key())


def _sign(
    builder: x509.CertificateBuilder,
    key: EllipticCurvePrivateKey,
    issuer: EllipticCurvePublicKey,
) -> x509.Certificate:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
    return builder.add_extension(identifier, critical=False).sign(key, hashes.SHA384())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _unknown_issuer(where: str) -> TrustError:
    return TrustError(803, where=where, seen="a certificate of another root")
