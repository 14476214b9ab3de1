"""The certificates are OpenSSL's idea of certificates: each is used for real TLS."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key

from healthfm_core.errors import TrustError
from healthfm_core.trust import certificates, fingerprint
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.certificates import now_utc, pem


class Party:
    """One end of a connection, with the files that OpenSSL wants."""

    def __init__(self, folder: Path, key: bytes, chain: bytes, roots: bytes, crl: bytes = b""):
        folder.mkdir(exist_ok=True)
        self.key, self.chain = folder / "key.pem", folder / "chain.pem"
        self.key.write_bytes(key)
        self.chain.write_bytes(chain)
        self.roots = (roots + crl).decode()
        self.checks_crl = bool(crl)

    def context(self, purpose: int) -> ssl.SSLContext:
        context = ssl.SSLContext(purpose)
        context.load_cert_chain(self.chain, self.key)
        context.load_verify_locations(cadata=self.roots)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        if self.checks_crl:
            crl = self.chain.with_name("crl.pem")
            crl.write_text(self.roots)
            context.load_verify_locations(cafile=crl)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        return context


def meet(server: Party, client: Party, host: str = "localhost") -> str:
    """Return what the server says after a handshake; an alert of either side is an SSLError."""
    ours, theirs = socket.socketpair()
    fault: list[Exception] = []

    def serve() -> None:
        context = server.context(ssl.PROTOCOL_TLS_SERVER)
        try:
            with context.wrap_socket(theirs, server_side=True) as secure:
                name = dict(part[0] for part in secure.getpeercert()["subject"])["commonName"]
                secure.sendall(name.encode())
        except OSError as error:
            fault.append(error)
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        context = client.context(ssl.PROTOCOL_TLS_CLIENT)
        with context.wrap_socket(ours, server_hostname=host) as secure:
            said = secure.recv(64).decode()
    finally:
        ours.close()
        thread.join()
    if fault:
        raise fault[0]
    return said


def server(authority: Authority, folder: Path, **issue: object) -> Party:
    key, chain = authority.issue_server(["localhost", "127.0.0.1", "::1"], **issue)
    return Party(folder / "server", key, chain, authority.roots_pem(), authority.crl())


def site(authority: Authority, folder: Path, roots: bytes, name: str = "north", **issue) -> Party:
    key = generate_private_key(SECP384R1())
    certificate = authority.issue_site(name, key.public_key(), **issue)
    return Party(folder / name, certificates.key_pem(key), pem(certificate), roots)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_site_and_the_server_know_each_other(authority, tmp_path, host):
    client = site(authority, tmp_path, authority.roots_pem())
    assert meet(server(authority, tmp_path), client, host) == "north"


def test_a_host_that_is_not_in_the_certificate_is_refused(authority, tmp_path):
    client = site(authority, tmp_path, authority.roots_pem())
    gate = server(authority, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        meet(gate, client, "example.org")


def test_a_revoked_site_is_refused_and_the_others_are_not(authority, tmp_path):
    roots = authority.roots_pem()
    north, south = (site(authority, tmp_path, roots, name) for name in ("north", "south"))
    authority.revoke("north")
    gate = server(authority, tmp_path)
    with pytest.raises(OSError, match="revoked"):
        meet(gate, north)
    assert meet(gate, south) == "south"
    assert {row.who: bool(row.revoked) for row in authority.issued() if row.role == "site"} == {
        "north": True,
        "south": False,
    }


def test_a_stranger_of_the_same_names_is_refused(authority, tmp_path):
    other = Authority.create(tmp_path / "other", "heart")
    stranger = site(other, tmp_path, authority.roots_pem())
    with pytest.raises(OSError, match=r"certificate|CERTIFICATE|unknown ca|UNKNOWN_CA"):
        meet(server(authority, tmp_path), stranger)


def test_a_sites_certificate_does_not_make_a_server(authority, tmp_path):
    impostor = site(authority, tmp_path, authority.roots_pem(), "localhost")
    client = site(authority, tmp_path, authority.roots_pem())
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(impostor, client)


def test_an_expired_certificate_is_refused_by_either_side(authority, tmp_path):
    then = now_utc() - timedelta(days=400)
    roots = authority.roots_pem()
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        meet(server(authority, tmp_path, now=then), site(authority, tmp_path, roots))
    with pytest.raises(OSError, match="expired"):
        meet(server(authority, tmp_path), site(authority, tmp_path, roots, now=then))


def test_after_two_rotations_who_has_an_old_root_is_still_served(authority, tmp_path):
    oldest = authority.roots_pem()
    early = site(authority, tmp_path, oldest, "early")
    authority.rotate()
    middle = site(authority, tmp_path, authority.roots_pem(), "middle")
    authority.rotate()
    late = site(authority, tmp_path, pem(authority.root.certificate), "late")
    gate = server(Authority(authority.folder), tmp_path)
    assert [meet(gate, party) for party in (early, middle, late)] == ["early", "middle", "late"]


def test_a_site_revoked_before_a_rotation_stays_revoked(authority, tmp_path):
    north = site(authority, tmp_path, authority.roots_pem())
    authority.revoke("north")
    authority.rotate()
    with pytest.raises(OSError, match="revoked"):
        meet(server(authority, tmp_path), north)


def test_a_retired_root_is_trusted_no_more_and_the_cut_are_named(authority, tmp_path):
    early = site(authority, tmp_path, authority.roots_pem(), "early")
    authority.rotate()
    late = site(authority, tmp_path, authority.roots_pem(), "late")
    assert {row.who for row in authority.retire()} == {"early"}
    again = Authority(authority.folder)
    gate = server(again, tmp_path)
    assert meet(gate, late) == "late"
    with pytest.raises(OSError, match=r"certificate|CERTIFICATE|unknown ca|UNKNOWN_CA"):
        meet(gate, early)


def test_a_second_authority_never_replaces_the_first(authority):
    before = authority.fingerprint
    with pytest.raises(TrustError, match="HF-801"):
        Authority.create(authority.folder, "heart")
    assert Authority(authority.folder).fingerprint == before


def test_what_an_interrupted_rotation_leaves_does_not_hinder(authority):
    partial = authority.folder / "root-2.partial"
    partial.mkdir()
    (partial / "root.key").write_text("half")
    again = Authority(authority.folder)
    assert again.number == 1
    again.rotate()
    assert Authority(authority.folder).number == 2


def test_private_keys_are_their_owners_only(authority):
    for key in (authority.folder / "signer.key", authority.folder / "roots/1/root.key"):
        assert key.stat().st_mode & 0o777 == 0o600
        key.chmod(0o640)
        with pytest.raises(TrustError, match=r"HF-802.*chmod 600"):
            Authority(authority.folder)
        key.chmod(0o600)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xfe"])
def test_a_damaged_key_is_named(authority, content):
    (authority.folder / "signer.key").write_bytes(content)
    with pytest.raises(TrustError, match=r"HF-802.*signer\.key"):
        Authority(authority.folder)


def test_a_folder_without_an_authority_is_named(tmp_path):
    with pytest.raises(TrustError, match="HF-802"):
        Authority(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", "-a", "a" * 64, "a\nb"])
def test_a_name_that_could_be_a_path_or_a_trick_is_refused(authority, tmp_path, name):
    key = generate_private_key(SECP384R1()).public_key()
    with pytest.raises(TrustError, match="HF-810"):
        authority.issue_site(name, key)
    with pytest.raises(TrustError, match="HF-810"):
        Authority.create(tmp_path / "new", name)
    assert not (tmp_path / "new").exists()


def test_a_root_lasts_ten_years_and_a_leaf_thirteen_months(authority):
    root = authority.root.certificate
    _, chain = authority.issue_server(["localhost"])
    leaf = x509.load_pem_x509_certificate(chain)
    for certificate, days in ((root, 3652), (leaf, 397)):
        left = certificate.not_valid_after_utc - now_utc()
        assert abs(left - timedelta(days=days)) < timedelta(minutes=1)


def test_a_fingerprint_is_the_one_that_openssl_shows(authority, tmp_path):
    certificate = authority.root.certificate
    shown = fingerprint.of_certificate(certificate)
    der = ssl.PEM_cert_to_DER_cert(pem(certificate).decode())
    assert fingerprint.same(shown, hashlib.sha256(der).hexdigest())
    assert shown.count(":") == 31
    assert shown == shown.upper()
    assert not fingerprint.same(shown, shown[:-1] + ("0" if shown[-1] != "0" else "1"))
    assert fingerprint.is_one(shown)
    assert not fingerprint.is_one(shown[:-2])


def test_what_was_issued_is_on_record(authority):
    authority.issue_server(["localhost"])
    (row,) = json.loads((authority.folder / "issued.json").read_text())
    assert row["who"] == row["role"] == "server"
    assert fingerprint.is_one(row["fingerprint"])
