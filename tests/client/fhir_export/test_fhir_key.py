"""The key by which a FHIR server knows a site: made, kept, printed, and what it signs."""

from __future__ import annotations

import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from healthfm_client.__main__ import main
from healthfm_client.fhir_export.server_file import TYPES
from healthfm_client.fhir_export.signing_key import AssertionKey, _thumbprint
from healthfm_client.ingest.fhir_r4.fhir_types import READ
from healthfm_core.errors import TrustError
from tests.client.fhir_export.fhir_server import verified


@pytest.mark.parametrize(("words", "kind"), [([], "ES384"), (["--algorithm", "RS384"], "RS384")])
def test_a_new_key_is_its_owners_alone_and_its_public_half_is_printed(
    tmp_path, capsys, words, kind
):
    file = tmp_path / "fhir.key"
    assert main(["fhir-key", str(file), *words]) == 0
    printed = capsys.readouterr().out
    (public,) = json.loads(printed)["keys"]
    assert (public["alg"], public["use"], stat.S_IMODE(file.stat().st_mode)) == (kind, "sig", 0o600)
    private = {"d", "p", "q", "dp", "dq", "qi", "k"}
    assert not private & set(public)
    assert main(["fhir-key", str(file), "--show"]) == 0
    assert capsys.readouterr().out == printed
    before = file.read_bytes()
    assert main(["fhir-key", str(file)]) == 9
    assert (file.read_bytes(), "HF-801" in capsys.readouterr().err) == (before, True)


def test_the_thumbprint_is_that_of_rfc_7638():
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP"
        "ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY"
        "368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f"
        "M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    key = {"kty": "RSA", "n": modulus, "e": "AQAB"}
    assert _thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_site_with_an_rsa_key_is_known_too(site):
    (site.folder / "rsa.key").unlink(missing_ok=True)
    key = AssertionKey.create(site.folder / "rsa.key", "RS384")
    site.fhir.jwks = json.loads(json.dumps(key.jwks("site-1")))
    site.settings |= {"key": "rsa.key", "key_id": "site-1"}
    site.export()
    assert len(site.fhir.used) == 1


def test_what_is_signed_holds_for_minutes_and_once(site):
    site.fhir.expires_in = 0
    site.export()
    calls = len(site.fhir.calls) - site.fhir.count("POST", "/token") - 1
    assert len(site.fhir.used) == calls == 10, "a token that ends at once is got for each call"


@pytest.mark.parametrize("kind", ["P-256", "short RSA", "password", "damaged"])
def test_a_key_of_another_kind_is_refused(tmp_path, kind):
    key = ec.generate_private_key(ec.SECP384R1())
    if kind == "P-256":
        key = ec.generate_private_key(ec.SECP256R1())
    elif kind == "short RSA":
        key = rsa.generate_private_key(65537, 1024)
    hidden = BestAvailableEncryption(b"x") if kind == "password" else NoEncryption()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)
    file = tmp_path / "fhir.key"
    file.write_bytes(pem[:100] if kind == "damaged" else pem)
    file.chmod(0o600)
    with pytest.raises(TrustError, match="HF-802"):
        AssertionKey.load(file)


def test_a_signature_of_another_key_is_seen_by_the_tests_own_server(tmp_path, site):
    stranger = AssertionKey.create(tmp_path / "other.key")
    jwks = json.loads(json.dumps(stranger.jwks(site.fhir.jwks["keys"][0]["kid"])))
    site.export()
    with pytest.raises(ValueError, match="another signature"):
        verified(site.fhir.assertions[0], jwks)
    claims = verified(site.fhir.assertions[0], site.fhir.jwks)
    assert set(claims) == {"iss", "sub", "aud", "exp", "jti"}


def test_what_is_asked_for_is_what_ingest_reads():
    assert set(TYPES) == READ | {"Medication"}
