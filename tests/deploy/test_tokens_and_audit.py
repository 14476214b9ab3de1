"""Tokens are kept as hashes and have roles; the audit log is whole lines, and is not flooded."""

from __future__ import annotations

import json
import stat

import pytest

from healthfm_core.errors import TrustError
from healthfm_server.deploy.access_tokens import AccessTokens
from healthfm_server.deploy.audit_log import REPEATED_S, AuditLog


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


def test_events_are_lines_and_a_cut_line_is_left_out(tmp_path):
    log = AuditLog(tmp_path / "audit.log", "gateway")
    log.note("site connected", {"site": "a"})
    with log.path.open("a") as file:
        file.write('{"at": "2026')
    assert [row["event"] for row in log.rows()] == ["site connected"]


def test_a_repeated_refusal_is_counted_and_not_written_each_time(tmp_path):
    log = AuditLog(tmp_path / "audit.log", "gateway")
    for _ in range(1000):
        log.note_refusal("call refused", {"from": "x"}, now_s=0.0)
    log.note_refusal("call refused", {"from": "y"}, now_s=0.0)
    log.note_refusal("call refused", {"from": "x"}, now_s=REPEATED_S + 1)
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [(row["from"], row.get("again", 0)) for row in rows] == [("x", 0), ("y", 0), ("x", 999)]
