"""A run folder as text: who takes part, what each round did, what was set aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from healthfm_core.federation.code_overlap import (
    MOST_LISTED,
    ROLLED_UP,
    told_coverage,
    told_devices,
    told_roll_up,
)
from healthfm_core.federation.input_overlap import INPUTS, told_inputs
from healthfm_core.federation.overlap_table import overlap_lines
from healthfm_server.run_folder.run_store import RunStore

_SAID: Final = (
    *("prepared", "code overlap", ROLLED_UP, "devices", INPUTS),
    *("people by modality", "round chosen"),
)
"""Events that stand above the rounds already."""
_TABLE: Final = (
    "share of a site's events under codes that another site has too, by domain; wearable channels "
    "and scores that it has, and those that another site has too:"
)
_SHOWN: Final = ("loss_", "tuning_")


def describe_run(folder: Path) -> Iterator[str]:
    """Yield the lines that describe the run in `folder`.

    Raises:
        RunError: There is no run in it (HF-701).
    """
    store = RunStore.open(folder)
    study, kept = store.study(), store.checkpoints.rounds()
    if study is not None:
        federation = study.config.federation
        yield f"study {study.hash[:12]}: {', '.join(study.modalities)}; {federation.rounds} rounds"
    yield f"checkpoints of rounds {', '.join(map(str, kept)) or 'none'}"
    events = store.events()
    yield from _sites(events)
    for row in store.history():
        yield _round(row)
    choice = store.choice()
    if choice is not None:
        yield choice.sentence()
    yield from _events(events)


def _sites(events: list[dict[str, Any]]) -> Iterator[str]:
    sites = {event["site"]: event for event in events if event["event"] == "prepared"}
    for name in sorted(sites):
        site = sites[name]
        yield f"site {name}: {', '.join(site['modalities'])}; {site['subjects']} training subjects"
    inputs = told_inputs(events)
    table = list(overlap_lines(told_coverage(events), inputs))
    if table:
        yield _TABLE
        yield from (f"  {line}" for line in table)
    yield from filter(None, (told_roll_up(events), told_devices(events)))
    if inputs is not None:
        yield from (*inputs.of_devices(), *inputs.sentences())
    for event in events:
        if event["event"] == "code overlap":
            yield from (f"units that do not meet: {unit}" for unit in event["units"][:MOST_LISTED])


def _round(row: Mapping[str, Any]) -> str:
    metrics = "  ".join(
        f"{name} {value:.4g}" for name, value in row["metrics"].items() if name.startswith(_SHOWN)
    )
    answered = f"{len(row['answered'])}/{len(row['asked'])} sites"
    return f"round {row['round']:3}  {row['seconds']:8.2f} s  {answered}  {metrics}".rstrip()


def _events(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        if event["event"] in _SAID:
            continue
        what = event.get("site") or event.get("group") or ""
        when = f"round {event['round']}" if "round" in event else event.get("phase", "")
        reason = event.get("reason", "")
        yield f"{event['at']}  {when}: {event['event']} {what}: {reason}".rstrip(": ")
