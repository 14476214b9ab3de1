"""A round's row of history: who answered, what moved, what it cost, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from healthfm_core.federation.alarms import alarms, kind_of
from healthfm_core.federation.protocol import Study
from healthfm_core.privacy.distributed import epsilon_of
from healthfm_server.transport.interface import Collected, OpenRound


def history_row(
    current: OpenRound, collected: Collected, groups: Mapping[str, Any], study: Study
) -> dict[str, Any]:
    """Return the row of a round, with its alarms, which are put on record where they are new."""
    row: dict[str, Any] = {
        "round": current.number,
        "seconds": round(current.seconds, 3),
        "asked": sorted(current.asked),
        "answered": sorted(current.metrics),
        "set_aside": dict(sorted(current.rejected.items())),
        "site_seconds": dict(sorted(current.answered_s.items())),
        "groups": groups,
        "metrics": _finite(collected.metrics),
        "site_metrics": {
            site: _finite(metrics) for site, metrics in sorted(collected.site_metrics.items())
        },
    }
    if (shown_s := current.clock.simulated_s) is not None:
        row["simulated_s"] = round(shown_s, 3)
    if current.bytes_down:
        row["bytes"] = {"down": current.bytes_down, "up": current.bytes_up}
    if current.outliers:
        row["outliers"] = dict(sorted(current.outliers.items()))
    before = current.store.history()
    if collected.rho is not None:
        row["privacy"] = _spent(before, collected.rho, study)
    row["alarms"] = alarms([*before, row])
    known = {kind_of(old) for old in (before[-1].get("alarms", []) if before else [])}
    for sentence in row["alarms"]:
        if kind_of(sentence) not in known:
            current.store.note("alarm", round=current.number, reason=sentence)
    return row


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in sorted(metrics.items()) if math.isfinite(value)}


def _spent(before: list[dict[str, Any]], rho: float, study: Study) -> dict[str, float | str]:
    """Return what the rounds up to this one cost, of which the last costs `rho`."""
    secure, privacy = study.config.federation.aggregation.secure, study.config.privacy
    shared = privacy.mechanism.noise_in_sum
    rho += before[-1]["privacy"]["rho"] if before else 0.0
    delta = privacy.delta if shared else secure.delta
    unit = "subject" if shared else secure.unit
    return {"rho": rho, "epsilon": epsilon_of(rho, delta), "delta": delta, "unit": unit}
