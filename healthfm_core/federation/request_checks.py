"""What a request carries, checked at a site before anything of it is used.

Whoever has the wire may send anything: another kind's records, none at all, a list in place of a
number. What is asked for is then held against the signed contract; here only the form is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.federation import protocol

Fields = Mapping[str, type]

_LETTER: Final[Mapping[str, Fields]] = {protocol.SECURE_MESSAGE: {"json": str}}
REQUIRED: Final[Mapping[str, Mapping[str, Fields]]] = MappingProxyType(
    {
        protocol.DRY_RUN: {protocol.ORDER: {"version": int}},
        protocol.STATISTICS: {protocol.ORDER: {"version": int, "tokens": str, "task": str}},
        protocol.PREPARE: {protocol.ORDER: {"study": str}},
        protocol.TRAIN: {protocol.ORDER: {"json": str, "study": str}, protocol.ARRAYS: {}},
        protocol.KEYS: _LETTER,
        protocol.SHARES: _LETTER,
        protocol.UNMASK: _LETTER,
    }
)
"""Kind of message → record → key → type of what has to be there."""

OPTIONAL: Final[Mapping[str, Fields]] = MappingProxyType(
    {
        protocol.ORDER: {
            "contract": str,
            "signature": str,
            "signer": str,
            "step": str,
            "salt": int,
            "codes": int,
            "sketch": int,
            "secure": int,
            "hide": int,
        },
        protocol.SECURE_MESSAGE: {"json": str, "capacity": int},
    }
)
"""Record → key → type of what may be there besides."""


def check_request(kind: str, content: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a request without a record or key that it needs, or with one of another type.

    Args:
        kind: Of the message, one of `protocol`.
        content: Its records.

    Raises:
        ProtocolError: HF-402.
    """
    for name, fields in REQUIRED[kind].items():
        if name not in content:
            raise _unfit(kind, f"no record {name!r}")
        for key in fields:
            if key not in content[name]:
                raise _unfit(kind, f"no {key!r} in the record {name!r}")
    for name, record in content.items():
        wanted = {**OPTIONAL.get(name, {}), **REQUIRED[kind].get(name, {})}
        for key, of in wanted.items():
            if key in record and type(record[key]) is not of:
                raise _unfit(kind, f"{key!r} of another type in the record {name!r}")


def read_tokens(text: str) -> TokensConfig:
    """Return the token settings of a question for statistics.

    Raises:
        ProtocolError: They are none (HF-402).
    """
    try:
        return TokensConfig.model_validate_json(text)
    except ValidationError as error:
        raise _unfit(protocol.STATISTICS, "token settings that cannot be read") from error


def secure_message(kind: str, content: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the secure-aggregation record of an order whose reply is to be masked.

    Raises:
        ProtocolError: It has none, or no text in it (HF-402).
    """
    record = content.get(protocol.SECURE_MESSAGE, {})
    if "json" not in record:
        raise _unfit(kind, f"no record {protocol.SECURE_MESSAGE!r}, in a study of secure sums")
    return record


def _unfit(kind: str, seen: str) -> ProtocolError:
    return ProtocolError(
        402,
        where=f"{kind} message",
        seen=seen,
        wanted="the records and keys that docs/privacy.md lists for this message",
        do="Install the same release of healthfm on both sides",
    )
