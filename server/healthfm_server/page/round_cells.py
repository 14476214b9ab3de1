"""What a site did in a round, as a cell of the matrix of rounds and sites."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

NO_ANSWER: Final = ("it did not answer in time", "it was busy")
"""Reasons of a round's row for a site that sent nothing."""


class SiteState(IntEnum):
    """What a site did in a round, or does now; a byte of a row."""

    NOT_ASKED = 0
    ANSWERED = 1
    HELD_BACK = 2
    LATE = 3
    REFUSED = 4
    ASKED = 5
    COMPUTING = 6
    OFFLINE = 7
    APPROVAL = 8
    CONNECTED = 9

    @property
    def word(self) -> str:
        """Name for a person and for the API."""
        return _SHOWN[self][1]

    @property
    def sign(self) -> str:
        """One letter or mark, which stands for it beside the colour."""
        return _SHOWN[self][0]

    @property
    def meaning(self) -> str:
        """One line for the legend."""
        return _SHOWN[self][2]


_SHOWN: Final[Mapping[SiteState, tuple[str, str, str]]] = {
    SiteState.NOT_ASKED: ("·", "not asked", "was not drawn for the round, or not there yet"),
    SiteState.ANSWERED: ("✓", "answered", "its update is in the model"),
    SiteState.HELD_BACK: ("≈", "held back", "in the model with less than it said"),
    SiteState.LATE: ("◷", "late", "sent nothing by the round's end"),
    SiteState.REFUSED: ("✕", "refused", "its answer was not taken, or it took no part"),
    SiteState.ASKED: ("?", "asked", "has not fetched its order yet"),
    SiteState.COMPUTING: ("▸", "computing", "has its order, the answer is not here yet"),
    SiteState.OFFLINE: ("!", "offline", "is asked and not connected"),
    SiteState.APPROVAL: ("‖", "waits for approval", "a person there has to approve the run"),
    SiteState.CONNECTED: ("–", "connected", "is there, the run waits for others"),
}


def closed_state(answered: bool, reason: str | None, outlier: bool) -> SiteState:
    """Return the state of a site that was asked in a round that has ended.

    Args:
        answered: Whether its update was taken.
        reason: Why it was not, None where nothing is noted.
        outlier: Whether it counted for less than it said.
    """
    if answered:
        return SiteState.HELD_BACK if outlier else SiteState.ANSWERED
    is_silent = reason is None or reason.startswith(NO_ANSWER)
    return SiteState.LATE if is_silent else SiteState.REFUSED
