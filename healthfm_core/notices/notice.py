"""One thing that a person wants to be told of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["asks", "ended", "stalled", "alarm", "certificate", "budget"]
"""A run asks for approval or has ended, something stalls, something is wrong with the machine, a
certificate ends soon, the privacy budget runs low."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Notice:
    """Something that holds now, or has happened.

    Attributes:
        key: What makes it the same thing at the next look; it is told once.
        kind: What sort of thing.
        subject: It in a few words.
        text: It in sentences: what was seen, and what to do.
        wait_s: For how long it has to hold before it is told, in seconds.
    """

    key: str
    kind: Kind
    subject: str
    text: str
    wait_s: float = 0.0
