"""Which key a site signs with, and whom it believes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import Context, RecordDict

import tests.quiet_flower  # noqa: F401
from healthfm_client.site.site_home import SiteHome
from healthfm_client.transport.masking import SIGNING_KEY, Masking
from healthfm_core.errors import ConfigError, PrivacyError
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.trust import fingerprint
from healthfm_core.trust.site_keys import SIGNING_KEY as FILE
from healthfm_core.trust.site_keys import SiteKeys

TERMS = secure.Terms("s", "round", 1, "00", 2 / 3, 2)


def node(**config: str) -> Context:
    return Context(1, 1, dict(config), RecordDict(), {})


def book(contexts: dict[str, Context], nonce: str = "00") -> str:
    terms = replace(TERMS, nonce=nonce)
    server = secure.ServerSession(terms)
    for name, context in contexts.items():
        advert = Masking(name, context).keys(terms.to_json())
        server.take_advert(name, secure.KeyAdvert.from_json(advert))
    return server.book.to_json()


def test_an_enrolled_sites_key_signs_and_others_make_and_keep_one(tmp_path: Path) -> None:
    keys = SiteKeys.create(tmp_path)
    with_file = {SIGNING_KEY: str(tmp_path / FILE)}
    advert = secure.KeyAdvert.from_json(Masking("a", node(**with_file)).keys(TERMS.to_json()))
    assert advert.signing_key == keys.signing.public_key().public_bytes_raw()
    context = node()
    one, other = (
        secure.KeyAdvert.from_json(Masking("a", context).keys(text))
        for text in (TERMS.to_json(), TERMS.to_json().replace('"00"', '"01"'))
    )
    assert one.signing_key == other.signing_key
    assert one.mask_key != other.mask_key


def test_a_list_of_peers_keeps_strangers_and_other_keys_out() -> None:
    contexts = {"a": node(), "b": node(), "c": node()}
    text = book(contexts)
    known = {
        name: fingerprint.of_key(Ed25519PublicKey.from_public_bytes(advert.signing_key))
        for name, advert in secure.KeyBook.from_json(text).adverts.items()
    }
    words = {name: fingerprint.in_words(key) for name, key in known.items()}
    for peers, seen in (
        ({"b": known["b"]}, f"'c' signs with the key '{words['c']}', it is not listed"),
        (
            {"b": words["b"], "c": words["b"]},
            f"'c' signs with the key '{words['c']}', the list has another",
        ),
    ):
        with pytest.raises(PrivacyError, match=rf"HF-610.*{seen}"):
            Masking("a", contexts["a"], peers).shares(text)
    listed = Masking("a", contexts["a"], {"b": known["b"].lower(), "c": words["c"]})
    assert secure.SealedShares.from_json(listed.shares(text)).site == "a"


def test_a_listed_key_counts_whatever_was_seen_before_and_a_first_key_is_kept() -> None:
    before = {"a": node(), "b": node(), "c": node()}
    text = book(before)
    Masking("a", before["a"]).shares(text)
    after = before | {"b": node()}
    text = book(after, nonce="01")
    with pytest.raises(PrivacyError, match=r"HF-610.*another key than the one known"):
        Masking("a", after["a"]).shares(text)
    known = {
        name: fingerprint.of_key(Ed25519PublicKey.from_public_bytes(advert.signing_key))
        for name, advert in secure.KeyBook.from_json(text).adverts.items()
    }
    Masking("a", after["a"], known).shares(text)
    text = book(after, nonce="02")
    Masking("a", after["a"]).shares(text)


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PRIVATE KEY-----\nx\n", b"{"])
def test_a_key_that_cannot_be_used_is_said_to_be_one(tmp_path: Path, content) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"HF-102.*file"):
        Masking("a", node(**{SIGNING_KEY: str(path)}))


def test_a_key_seen_first_is_kept_on_the_sites_disk(tmp_path: Path) -> None:
    SiteKeys.create(SiteHome(tmp_path / "a").keys)
    contexts = {"a": node(home=str(tmp_path / "a")), "b": node(), "c": node()}
    text = book(contexts)
    Masking("a", contexts["a"]).shares(text)
    later = {"a": node(home=str(tmp_path / "a")), "b": node(), "c": contexts["c"]}
    text = book(later, nonce="01")
    with pytest.raises(PrivacyError, match=r"HF-610.*another key than the one known"):
        Masking("a", later["a"]).shares(text)


def test_no_site_masks_with_fewer_neighbours_than_hide_it() -> None:
    contexts = {name: node() for name in "abcdef"}
    terms = replace(TERMS, degree=2)
    server = secure.ServerSession(terms)
    for name, context in contexts.items():
        text = Masking(name, context).keys(terms.to_json())
        server.take_advert(name, secure.KeyAdvert.from_json(text))
    with pytest.raises(PrivacyError, match=r"HF-610.*2 neighbours for each of 6 sites"):
        Masking("a", contexts["a"]).shares(server.book.to_json())
