"""Training that diverged is told at once, in one sentence, and its update never leaves the site."""

from __future__ import annotations

import math
from collections.abc import Mapping

from healthfm_core.arrays import Arrays
from healthfm_core.errors import RunError
from healthfm_core.federation.update_checks import update_norm


def refuse_divergence(round_: int, update: Arrays, metrics: Mapping[str, float]) -> None:
    """Refuse a round whose losses or weights are not finite.

    Args:
        round_: Which.
        update: Parameter → change.
        metrics: Means over the round; those called ``loss_*`` are looked at.

    Raises:
        RunError: HF-726, with the loss or the parameter, and nothing of anybody's record.
    """
    losses = sorted(name for name in metrics if name.startswith("loss_"))
    lost = next((name for name in losses if not math.isfinite(metrics[name])), None)
    if lost is not None:
        raise RunError(726, where=f"round {round_}", seen=f"{lost} is not finite")
    for name in sorted(update):
        if not math.isfinite(update_norm(update, [name])):
            raise RunError(726, where=f"round {round_}", seen=f"{name} is not finite")
