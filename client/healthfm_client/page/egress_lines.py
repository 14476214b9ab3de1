"""Lines of the egress log in words, and what of them a form asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from healthfm_client.consent.run_sentences import byte_count
from healthfm_client.egress.log_search import LogQuery, Outcome
from healthfm_core.errors import ConfigError
from healthfm_core.federation import protocol
from healthfm_core.trust.names import plain_text

KINDS: Final = {
    protocol.STATISTICS: "how many people have each code",
    protocol.PREPARE: "that this site is ready",
    protocol.TRAIN: "changes of the model",
    protocol.KEYS: "keys for a sum over sites",
    protocol.SHARES: "shares for a sum over sites",
    protocol.UNMASK: "what opens a sum over sites",
}
"""Kind of message → what leaves with it."""
MOST_WORDS: Final = 20
_DAY: Final = re.compile(r"(\d{4}-\d\d-\d\d)?")


@dataclass(frozen=True)
class ShownLine:
    """A line as a table shows it.

    Attributes:
        number: Its number.
        at: When, ISO 8601 in UTC.
        what: What left, in words.
        round: Round or step; empty where there is none.
        size: Of what left, in words.
        details: Names of what left, or why nothing did.
        refused: Whether nothing left.
    """

    number: int
    at: str
    what: str
    round: str
    size: str
    details: str
    refused: bool


def shown_line(entry: Mapping[str, Any]) -> ShownLine:
    """Return a line in words; what a coordinator called a round is text without tricks."""
    what, refused = str(entry.get("what", "")), "refused" in entry
    records = entry.get("records", {})
    names = "; ".join(_record(name, record) for name, record in sorted(records.items()))
    return ShownLine(
        number=int(entry.get("n", 0)),
        at=str(entry.get("at", "")),
        what=KINDS.get(what, plain_text(what)),
        round=plain_text(entry.get("round", ""))[:40],
        size="nothing left" if refused else byte_count(int(entry.get("bytes", 0))),
        details=plain_text(entry["reason"])
        if refused
        else names or "a line cut short was taken off",
        refused=refused,
    )


def record_rows(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield record, array or value, what it is, and its SHA-256, of all that left with a line."""
    for name, record in sorted(entry.get("records", {}).items()):
        for array, about in record.get("arrays", {}).items():
            shape = " × ".join(map(str, about.get("shape", [])))
            told = f"{about.get('type', '')} {shape}, {byte_count(about.get('bytes', 0))}"
            yield name, plain_text(array), told, str(about.get("sha256", ""))
        for value, told in record.get("values", {}).items():
            yield name, plain_text(value), plain_text(told), ""


def query_of(fields: Mapping[str, str]) -> LogQuery:
    """Return what a form or a program asks for.

    Raises:
        ConfigError: A day or an outcome is none (HF-102).
    """
    days = {name: fields.get(name, "") for name in ("since", "until")}
    for name, day in days.items():
        if not _DAY.fullmatch(day):
            raise _unusable(name, day, "a day as 2026-11-24")
    outcomes: dict[str, Outcome] = {"": "", "left": "left", "refused": "refused"}
    given = fields.get("outcome", "")
    if given not in outcomes:
        raise _unusable("outcome", given, "left or refused")
    words = tuple(fields.get("search", "").split()[:MOST_WORDS])
    return LogQuery(words, outcomes[given], fields.get("what", ""), **days)


def _record(name: str, record: Mapping[str, Any]) -> str:
    if "arrays" in record:
        return f"{name}: {len(record['arrays'])} arrays"
    return f"{name}: {plain_text(', '.join(sorted(record.get('values', {}))) or 'nothing')}"


def _unusable(name: str, seen: str, wanted: str) -> ConfigError:
    do = "Correct it, or leave it out"
    return ConfigError(102, where=f"{name}=", seen=repr(seen[:40]), wanted=wanted, do=do)
