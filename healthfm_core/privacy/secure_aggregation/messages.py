"""The messages of a session, each one JSON text that is checked before it is believed.

===========  =================  ============================================================
exchange     to the site        back
===========  =================  ============================================================
1 keys       `Terms`            `KeyAdvert`: two public keys, signed
2 shares     `KeyBook`          `SealedShares`: a message to each neighbour, sealed
3 input      `Mailbox`          the masked arrays
4 unmask     `UnmaskRequest`    `UnmaskReply`: one share for each neighbour, of one kind
===========  =================  ============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from healthfm_core.privacy.secure_aggregation.reading import canonical, reading


@dataclass(frozen=True)
class SealedShares:
    """A site's messages to its neighbours.

    Attributes:
        site: Who wrote them.
        messages: Neighbour → sealed message with its two shares.
        commitment: Hash by which the coordinator knows the site's own mask again.
    """

    site: str
    messages: Mapping[str, bytes]
    commitment: bytes

    def to_json(self) -> str:
        """Return the messages as JSON."""
        return canonical([self.site, _hexed(self.messages), self.commitment.hex()])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the messages that `to_json` wrote.

        Raises:
            PrivacyError: They cannot be read (HF-610).
        """
        return reading(
            "sealed shares",
            text,
            lambda raw: cls(str(raw[0]), _unhexed(raw[1]), bytes.fromhex(raw[2])),
        )


@dataclass(frozen=True)
class Mailbox:
    """What a site needs before it sends its input.

    Attributes:
        sites: Those that sent messages.
        messages: Neighbour → its sealed message to this site.
    """

    sites: tuple[str, ...]
    messages: Mapping[str, bytes]

    def to_json(self) -> str:
        """Return the mailbox as JSON."""
        return canonical([list(self.sites), _hexed(self.messages)])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the mailbox that `to_json` wrote.

        Raises:
            PrivacyError: It cannot be read (HF-610).
        """
        return reading("mailbox", text, lambda raw: cls(_names(raw[0]), _unhexed(raw[1])))


@dataclass(frozen=True)
class UnmaskRequest:
    """Who sent an input and who did not, of all that sent messages.

    Attributes:
        survivors: Sites whose own masks are to be opened.
        dropped: Sites whose masks with others are.
    """

    survivors: tuple[str, ...]
    dropped: tuple[str, ...]

    def to_json(self) -> str:
        """Return the request as JSON."""
        return canonical([list(self.survivors), list(self.dropped)])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the request that `to_json` wrote.

        Raises:
            PrivacyError: It cannot be read (HF-610).
        """
        return reading(
            "request to unmask",
            text,
            lambda raw: cls(_names(raw[0]), _names(raw[1])),
        )


@dataclass(frozen=True)
class UnmaskReply:
    """The shares a site gives, one for each site it holds shares of.

    Attributes:
        site: Who gives them.
        own: Survivor → share of its own mask's secret.
        pairwise: Dropped site → share of its private mask key.
    """

    site: str
    own: Mapping[str, int]
    pairwise: Mapping[str, int]

    def to_json(self) -> str:
        """Return the reply as JSON."""
        return canonical([self.site, _numbers(self.own), _numbers(self.pairwise)])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the reply that `to_json` wrote.

        Raises:
            PrivacyError: It cannot be read (HF-610).
        """
        return reading(
            "reply to unmask",
            text,
            lambda raw: cls(str(raw[0]), *({n: int(s, 16) for n, s in m.items()} for m in raw[1:])),
        )


def _names(raw: list[str]) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(name, str) for name in raw):
        raise TypeError("names that are no list of text")
    return tuple(raw)


def _hexed(messages: Mapping[str, bytes]) -> dict[str, str]:
    return {name: message.hex() for name, message in messages.items()}


def _unhexed(raw: Mapping[str, str]) -> dict[str, bytes]:
    return {str(name): bytes.fromhex(message) for name, message in raw.items()}


def _numbers(shares: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{share:x}" for name, share in shares.items()}
