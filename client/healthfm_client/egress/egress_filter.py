"""The last gate: what a reply may carry, and what the egress log says of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.errors import PolicyError
from healthfm_core.federation import protocol, wire
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import RoundResult
from healthfm_core.trust import signed


def permitted_result(
    result: RoundResult, policy: SitePolicy, *, groups: Collection[str], metrics: Collection[str]
) -> RoundResult:
    """Return what the site's policy lets out of a round.

    Args:
        result: What training gave.
        policy: The site's own rules: groups with few people and unlisted metrics stay.
        groups: The groups that were asked for.
        metrics: Patterns of the metrics that were asked for.
    """
    asked = {group: weight for group, weight in result.weights.items() if group in groups}
    weights = policy.groups_to_send(asked)
    update = {name: array for name, array in result.update.items() if group_of(name) in weights}
    return replace(
        result,
        update=update,
        weights=weights,
        metrics=policy.metrics_to_send(result.metrics, metrics),
    )


def check_reply(kind: str, content: RecordDict) -> None:
    """Hold back a reply with anything in it that docs/privacy.md does not name.

    Raises:
        PolicyError: It has (HF-501).
    """
    allowed = protocol.LEAVING.get(kind, frozenset())
    site = content.config_records.get(protocol.SITE, ConfigRecord())
    if set(content) <= allowed and set(site) <= protocol.SITE_KEYS:
        return
    raise PolicyError(
        501,
        where=f"reply to {kind}",
        seen="a record that is not on the list of what may leave",
        wanted="the records that docs/privacy.md names",
        do="Report it to the authors of healthfm: the release is at fault",
    )


def log_facts(message: Message, run: str, exchange: str) -> dict[str, Any]:
    """Return what the log says of a reply: names, shapes, bytes and hashes; small values in full.

    Args:
        message: The reply.
        run: Flower's number of the run it belongs to.
        exchange: What the coordinator called the exchange: the round's number, or its name.
    """
    facts: dict[str, Any] = {"run": run, "round": exchange}
    if message.has_error():
        error = message.error
        return {**facts, "refused": error.code, "reason": error.reason, "bytes": 0}
    records = {name: _of_record(record) for name, record in message.content.items()}
    return {**facts, "records": records, "bytes": sum(r["bytes"] for r in records.values())}


def _of_record(record: ArrayRecord | MetricRecord | ConfigRecord) -> dict[str, Any]:
    if not isinstance(record, ArrayRecord):
        values = {str(name): _as_json(value) for name, value in record.items()}
        data = signed.canonical(values)
        digest = hashlib.sha256(data).hexdigest()
        return {"bytes": len(data), "sha256": digest, "values": values}
    facts: dict[str, Any] = {"bytes": 0, "arrays": {}, "sha256": {}}
    for name, piece in record.items():
        facts["bytes"] += len(piece.data)
        facts["sha256"][name] = hashlib.sha256(piece.data).hexdigest()
        facts["arrays"] |= _inside(name, piece)
    return facts


def _inside(name: str, piece: Array) -> dict[str, Any]:
    """Return type, shape, bytes and hash of every array in a piece."""
    arrays = wire.unbundle(piece.data) if piece.stype == wire.BUNDLE else {}
    if not arrays:
        return {name: {"type": piece.dtype, "shape": list(piece.shape), "bytes": len(piece.data)}}
    return {
        inner: {
            "type": array.dtype.str,
            "shape": list(array.shape),
            "bytes": array.nbytes,
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }
        for inner, array in arrays.items()
    }


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
