"""The form of a request: what is missing or of another type is one sentence, whatever was sent."""

from __future__ import annotations

from typing import Any

import pytest

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.federation import protocol
from healthfm_core.federation.request_checks import (
    REQUIRED,
    check_request,
    read_tokens,
    secure_message,
)

SAMPLES: dict[type, Any] = {str: "text", int: 1}


def sound(kind: str) -> dict[str, dict[str, Any]]:
    return {
        name: {key: SAMPLES[of] for key, of in fields.items()}
        for name, fields in REQUIRED[kind].items()
    }


def test_every_kind_of_message_has_its_form():
    assert set(REQUIRED) == set(protocol.LEAVING)
    for kind in REQUIRED:
        check_request(kind, sound(kind))


@pytest.mark.parametrize("kind", sorted(REQUIRED))
def test_a_record_or_key_that_is_missing_or_of_another_type_is_refused(kind: str):
    for name, fields in REQUIRED[kind].items():
        without = {n: record for n, record in sound(kind).items() if n != name}
        with pytest.raises(ProtocolError, match=rf"HF-402.*{kind}.*no record '{name}'"):
            check_request(kind, without)
        for key in fields:
            content = sound(kind)
            content[name][key] = [1.0]
            with pytest.raises(ProtocolError, match=rf"HF-402.*'{key}' of another type"):
                check_request(kind, content)
            del content[name][key]
            with pytest.raises(ProtocolError, match=rf"HF-402.*no '{key}'"):
                check_request(kind, content)


def test_what_may_be_there_besides_has_its_type():
    content = sound(protocol.STATISTICS)
    content[protocol.ORDER] |= {"salt": 7, "contract": "text"}
    check_request(protocol.STATISTICS, content)
    content[protocol.ORDER]["salt"] = True
    with pytest.raises(ProtocolError, match="'salt' of another type"):
        check_request(protocol.STATISTICS, content)


def test_token_settings_and_the_masked_order_are_read_or_refused():
    tokens = TokensConfig()
    assert read_tokens(tokens.model_dump_json()) == tokens
    with pytest.raises(ProtocolError, match="HF-402"):
        read_tokens("[" * 100_000)
    assert secure_message(protocol.TRAIN, sound(protocol.KEYS)) == {"json": "text"}
    with pytest.raises(ProtocolError, match=r"HF-402.*secure sums"):
        secure_message(protocol.TRAIN, sound(protocol.TRAIN))
