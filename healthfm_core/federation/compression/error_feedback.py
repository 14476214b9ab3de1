"""Which of a site's updates are in the model: from there it goes on with what its codec left out.

A residual is what the messages up to a round left out of the updates up to it. If the round's
message is lost, so is the residual that was in it; a site that then went on from the newer one
would lose more than the one update that a run without a codec loses. So it goes on from the
residual after the last round that was counted, and Σ C = Σ Δ − e over the rounds that were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from healthfm_core.config.codec import CodecConfig
from healthfm_core.federation.compression.compressor import Compressor


def uplink_compressor(config: CodecConfig) -> Compressor | None:
    """Return how updates are written; None where they travel as float32."""
    return None if config.uplink == "none" else Compressor(config.uplink, config.top_k)


def counted_rounds(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return site → group → the last round whose update of the site moved the group.

    Args:
        history: Rows of the run, in order: who answered, and which groups moved.
    """
    counted: dict[str, dict[str, int]] = {}
    for row in history:
        for site in row["answered"]:
            counted.setdefault(site, {}).update(dict.fromkeys(row["groups"], int(row["round"])))
    return counted
