"""Names and addresses as they may stand in a certificate, a kit or a log."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from healthfm_core.errors import TrustError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]{2,39}")


def check_name(name: str, what: str) -> str:
    """Return `name`, a site's or a study's, where it can be a file's name and a certificate's.

    Raises:
        TrustError: It is empty, too long or has other letters (HF-810).
    """
    if _NAME.fullmatch(name):
        return name
    raise _unusable(
        what,
        "a name that is empty, too long or has other characters",
        "1 to 63 letters, digits, dots, hyphens and underscores, a letter or digit first",
    )


def check_host(host: str) -> str:
    """Return `host`, a name or an address.

    Raises:
        TrustError: It is neither (HF-810).
    """
    if _HOST.fullmatch(host):
        return host
    raise _unusable("host", "text that is no host", "a host's name or address, without a port")


def check_url(url: str) -> str:
    """Return `url` without a slash at its end, where it is ``https://HOST[:PORT]``.

    Raises:
        TrustError: It is anything else (HF-810).
    """
    try:
        parts = urlsplit(url)
        plain = f"https://{parts.netloc}"
        good = parts.scheme == "https" and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        good, plain = False, ""
    if good and parts.hostname and _HOST.fullmatch(parts.hostname) and url.rstrip("/") == plain:
        return plain
    raise _unusable(
        "study's address", "an address that cannot be used", "https://HOST or https://HOST:PORT"
    )


def plain_text(text: object, most: int = 1000) -> str:
    """Return somebody else's text without characters that show as others, as nothing or as lines.

    Args:
        text: As it came.
        most: Characters of it that are shown.
    """
    return "".join(character for character in str(text)[:most] if character.isprintable())


def _unusable(where: str, seen: str, wanted: str) -> TrustError:
    return TrustError(810, where=where, seen=seen, wanted=wanted)
