"""Calls that a person at a site makes to the study, by the site's certificate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from healthfm_client.doctor.connectivity import failure
from healthfm_client.site.site_home import SiteHome
from healthfm_core.errors import ProtocolError

PATIENCE_S: Final = 60.0


def post_to_study(home: SiteHome, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send JSON to one of the study's own routes, and return the answer.

    Raises:
        TrustError: There is no kit (HF-830), or the server's certificate is another's (HF-803).
        ProtocolError: The server cannot be reached (HF-408), or does not take it (HF-402).
    """
    kit = home.kit()
    settings = home.settings() if home.settings_file.is_file() else None
    proxy = (settings.proxy if settings else None) or os.environ.get("HTTPS_PROXY")
    where = urlsplit(kit.url).netloc
    try:
        with httpx.Client(
            verify=home.tls(), proxy=proxy, trust_env=False, timeout=PATIENCE_S
        ) as client:
            answer = client.post(kit.url + route, json=body)
    except httpx.HTTPError as error:
        raise failure(where, error) from error
    told = _values(answer)
    if answer.is_success:
        return told
    raise ProtocolError(
        402,
        where=where,
        seen=f"it does not take it (HTTP {answer.status_code}): {told.get('error', '')}"[:400],
        wanted="a study of the same release, of which this site is a part",
        do="Ask the coordinator; nothing is lost here, and it can be sent again",
    )


def _values(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = {"error": answer.text[:200]}
    return found if isinstance(found, dict) else {}
