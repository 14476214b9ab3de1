"""What the figures that leave with a model's changes tell, for who knows no machine learning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from healthfm_core.trust.names import plain_text

WORDS: Final = {
    "loss_*": "how far its answers are off for the people it trains on",
    "tuning_*": "how well it foresees for people kept apart for tuning, and how many they are",
    "coverage_*": "what share of this site's codes the study knows, and other sites have",
    "grad_norm/*": "how large its changes are",
    "update_norm": "how large its changes are",
    "layer*/*": "how many days back the model looks",
    "steps": "how many steps it took",
    "privacy_*": "how much noise was added, and its ε",
}
"""Pattern of metrics → what they tell. docs/privacy.md says it in full."""


def metric_words(patterns: Iterable[str]) -> Iterator[str]:
    """Yield what each pattern's figures tell, once; one that is not known is named as it is."""
    seen: dict[str, list[str]] = {}
    for pattern in patterns:
        seen.setdefault(WORDS.get(pattern, ""), []).append(plain_text(pattern, 100))
    for words, named in seen.items():
        yield f"{words} ({', '.join(named)})" if words else ", ".join(named)
