"""What is said of one error code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorCode:
    """One entry.

    Attributes:
        means: What is wrong, in docs/exit-codes.md; also what an error has seen if it says nothing
            else.
        wanted: What is usually wanted instead; empty where each error says its own.
        do: The action that usually resolves it; empty where each error says its own.
    """

    means: str
    wanted: str = ""
    do: str = ""
