"""What a program sends to the API, checked field by field."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from starlette.requests import Request

from healthfm_core.errors import TrustError
from healthfm_core.local_page.page_frame import body_of


async def fields_of(
    request: Request,
    where: str,
    known: Mapping[str, type],
    wanted: str,
    required: Collection[str] = (),
) -> dict[str, Any]:
    """Return the fields that were sent, each of its type.

    Args:
        request: Has them as a JSON object.
        where: What is asked for, in an error.
        known: Field → its type; a list is one of texts.
        wanted: What the types are, in an error.
        required: Fields that have to be there.

    Raises:
        TrustError: It is no JSON, a field is not known, of another type or missing (HF-831).
    """
    try:
        asked = json.loads(await body_of(request))
    except ValueError as error:
        raise TrustError(831, where=where, seen="it is no JSON", wanted="JSON") from error
    fields = asked if isinstance(asked, dict) else {"": asked}
    for key, value in fields.items():
        if key not in known or not _is_of(value, known[key]):
            raise TrustError(
                831,
                where=f"{where}, {key[:40]!r}",
                seen="it is not known, or of another type",
                wanted=wanted,
            )
    missing = next((key for key in required if key not in fields), None)
    if missing is not None:
        raise TrustError(831, where=f"{where}, {missing!r}", seen="it is missing", wanted=wanted)
    return fields


def _is_of(value: object, kind: type) -> bool:
    if isinstance(value, bool) and kind is not bool:
        return False
    is_texts = not isinstance(value, list) or all(isinstance(one, str) for one in value)
    return isinstance(value, kind) and is_texts
