"""A run that asks, beside the run that was approved last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from healthfm_client.consent.run_differences import differences
from healthfm_client.site.run_approvals import ApprovalRequest, Approvals
from healthfm_core.trust.names import plain_text


def as_json(approvals: Approvals, asked: ApprovalRequest) -> dict[str, Any]:
    """Return a request and what differs from the run that was approved last."""
    before = approvals.last_approved(asked)
    changes = {} if before is None else _changes(before, asked)
    differs = {"from": None if before is None else before.called, "settings": changes}
    return {**asdict(asked), "called": asked.called, "digest": asked.digest, "differs": differs}


def compared(approvals: Approvals, asked: ApprovalRequest) -> Iterator[str]:
    """Yield what differs from the run that was approved last, a sentence a change."""
    before = approvals.last_approved(asked)
    if before is None:
        yield "No other run was approved here before."
        return
    if not before.config or not asked.config:
        yield f"Run {before.called} was approved before; its settings are not on record."
        return
    changes = _changes(before, asked)
    since = f"Run {before.called}, approved on {before.answered[:10]}, had"
    if not changes:
        yield f"{since} the same settings."
        return
    yield f"{since} these settings otherwise:"
    for key, (old, new) in changes.items():
        yield f"- {plain_text(key, 200)}: {_shown(old)} then, {_shown(new)} now"


def _changes(before: ApprovalRequest, asked: ApprovalRequest) -> dict[str, tuple[Any, Any]]:
    old = {**before.config, "statement": {**(before.stated or {}), "run": ""}}
    return differences(old, {**asked.config, "statement": {**(asked.stated or {}), "run": ""}})


def _shown(value: object) -> str:
    return plain_text(json.dumps(value, ensure_ascii=False), 200)
