"""Tokens are kept as hashes and have roles."""

from __future__ import annotations

import stat

import pytest

from healthfm_core.errors import TrustError
from healthfm_server.deploy.access_tokens import AccessTokens


def test_a_token_is_known_by_its_hash_until_it_is_revoked(tmp_path):
    file = tmp_path / "tokens.json"
    tokens = AccessTokens(file)
    given = tokens.add("ada", "viewer")
    assert given not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    known = tokens.of(given)
    assert known is not None
    assert (known.name, known.role) == ("ada", "viewer")
    assert tokens.of(given[:-1]) is None
    tokens.revoke("ada")
    assert tokens.of(given) is None


def test_a_name_has_one_token(tmp_path):
    tokens = AccessTokens(tmp_path / "tokens.json")
    tokens.add("ada", "viewer")
    with pytest.raises(TrustError, match="HF-821"):
        tokens.add("ada", "coordinator")
    with pytest.raises(TrustError, match="HF-821"):
        tokens.revoke("bob")


def test_a_list_of_tokens_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "tokens.json"
    AccessTokens(file).add("ada", "viewer")
    file.chmod(0o644)
    with pytest.raises(TrustError, match="HF-802"):
        AccessTokens(file).all()
