"""Where an address leads: scheme, host and port, and which of them a FHIR server's token may reach.

Every address comes from outside: from the server file, from the server's answers, from redirects.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from healthfm_core.errors import IngestError

PORTS: Final = {"https": 443, "http": 80}


class Origin(NamedTuple):
    """Scheme, host and port of an address."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written in an address, the usual port left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether what is sent there cannot be read on the way: over TLS, or on this machine."""
        return self.scheme == "https" or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> Origin | None:
    """Return an address's origin; None where it is no address of http or https.

    An address with a name and password in it is none either: they would be sent along.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    if not url.isprintable() or " " in url or "\\" in url:
        return None
    return Origin(parts.scheme, parts.hostname.lower(), port or PORTS[parts.scheme])


@dataclass(frozen=True)
class TrustedOrigins:
    """The FHIR server and the other hosts that the site's administrator named beside it.

    Attributes:
        server: The FHIR server's.
        named: Of other hosts.
    """

    server: Origin
    named: frozenset[Origin] = frozenset()

    @classmethod
    def of(cls, url: str, hosts: Iterable[str]) -> TrustedOrigins:
        """Return those of a server's address and of hosts, each ``HOST`` or ``HOST:PORT``.

        Raises:
            ValueError: One is no address, or would be reached in the clear.
        """
        server = origin_of(url)
        if server is None or not server.is_private:
            raise ValueError(url)
        return cls(server, frozenset(_named(host) for host in hosts))

    def checked(self, url: str, base: str, what: str) -> str:
        """Return an address that the server gave, made whole, if it leads to a trusted origin.

        Args:
            url: What the server gave; may be relative.
            base: Where the server gave it.
            what: What it is the address of, for an error.

        Raises:
            IngestError: HF-332 where it leads elsewhere.
        """
        try:
            whole = urljoin(base, url)
        except ValueError:
            whole = ""
        origin = origin_of(whole)
        if origin is None:
            raise IngestError(
                332,
                where=what,
                seen="it is no address of http or https",
                do="Tell the FHIR server's administrator",
            )
        if origin not in {self.server, *self.named}:
            raise IngestError(
                332,
                where=what,
                seen=f"it leads to {origin}{'' if origin.is_private else ' without TLS'}",
                do=f'If that is your server\'s, add "{origin}" to hosts in the server file, '
                "and give --resume if the export had begun"
                if origin.is_private
                else "Have the FHIR server give addresses with https",
            )
        return whole


def _named(host: str) -> Origin:
    """Return the origin of a host's name, reached over TLS.

    Raises:
        ValueError: It is none.
    """
    origin = origin_of(f"https://{host}/")
    if origin is None or "/" in host or "?" in host or "#" in host:
        raise ValueError(host)
    return origin
