"""The 2,048 English words of BIP-39: eleven bits each, no two alike in their first four letters."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Final

BITS: Final = 11
"""Bits that one word stands for."""


@cache
def words() -> tuple[str, ...]:
    """Return the words in their order; where one stands is its eleven bits."""
    return tuple((files("healthfm_core.trust") / "bip39_english.txt").read_text("ascii").split())


@cache
def places() -> dict[str, int]:
    """Return each word's place in `words`."""
    return {word: place for place, word in enumerate(words())}


def nearest(word: str) -> str:
    """Return the word of the list that is most like `word`."""
    return get_close_matches(word, words(), n=1, cutoff=0.0)[0]
