"""Which key a site signs with, and whom it believes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

import tests.quiet_flower  # noqa: F401
from healthfm_client.masking import PEERS, SIGNING_KEY, Masking
from healthfm_core.errors import ConfigError, PrivacyError
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.trust.site_keys import SIGNING_KEY as FILE
from healthfm_core.trust.site_keys import SiteKeys

TERMS = secure.Terms("s", "round", 1, "00", 2 / 3, 2)


def node(**config: str) -> Context:
    return Context(1, 1, dict(config), RecordDict(), {})


def book(contexts: dict[str, Context]) -> str:
    server = secure.ServerSession(TERMS)
    for name, context in contexts.items():
        advert = Masking(name, context).keys(TERMS.to_json())
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


def test_a_list_of_peers_keeps_strangers_and_other_keys_out(tmp_path: Path) -> None:
    contexts = {"a": node(), "b": node(), "c": node()}
    text = book(contexts)
    public = {n: x.signing_key.hex() for n, x in secure.KeyBook.from_json(text).adverts.items()}
    peers = tmp_path / "peers.json"
    contexts["a"].node_config[PEERS] = str(peers)
    for given, seen in (
        ({"b": public["b"]}, "1 sites that are not on this site's list"),
        ({"b": public["b"], "c": public["b"]}, "another key than the one known"),
    ):
        peers.write_text(json.dumps(given))
        with pytest.raises(PrivacyError, match=rf"HF-610.*{seen}"):
            Masking("a", contexts["a"]).shares(text)
    peers.write_text(json.dumps({"b": public["b"], "c": public["c"]}))
    assert secure.SealedShares.from_json(Masking("a", contexts["a"]).shares(text)).site == "a"


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PRIVATE KEY-----\nx\n", b"{"])
def test_a_key_or_a_list_that_cannot_be_used_is_said_to_be_one(tmp_path: Path, content) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"HF-102.*file"):
        Masking("a", node(**{SIGNING_KEY: str(path)}))
    context = node(**{PEERS: str(path)})
    Masking("a", context).keys(TERMS.to_json())
    with pytest.raises(ConfigError, match=r"HF-102.*list of peers"):
        Masking("a", context).shares(secure.KeyBook(TERMS, {}).to_json())
