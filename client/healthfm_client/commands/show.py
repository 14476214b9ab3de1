"""``show STORE --subject ID``: one person's record as a clinician would read it.

It is printed where it is asked for and goes nowhere else: a check that what was ingested is what
the record says.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import pyarrow as pa
from meds import birth_code, death_code

from healthfm_client.site.private_file import check_stays, write_private
from healthfm_core.command_line import Command
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import CODES_FILE, read_parquet
from healthfm_core.modalities.genomics import PRS_PREFIX
from healthfm_core.modalities.wearable import WEARABLE_PREFIX
from healthfm_core.stdout import say

YEAR_DAYS: Final = 365.25
_LARGER: Final = {"mg/dL": "g/dL", "10*9/L": "10*12/L"}
"""Unit → the one a thousand times as large."""
_VISIT: Final = "Visit//"
_END: Final = "//END"
_VISITS: Final = {"OP": "Outpatient visit", "IP": "Inpatient stay", "ER": "Emergency room visit"}
_VITAL: Final = {birth_code: "Birth", death_code: "Death"}


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("store", type=Path, metavar="STORE", help="the site's store")
    parser.add_argument("--subject", type=int, required=True, metavar="ID", help="whose record")
    parser.add_argument("--out", type=Path, metavar="FILE", help="new text file [the terminal]")


def run(given: Namespace) -> int:
    """Show one person."""
    if given.out is not None:
        check_stays(given.out)
    store = SiteStore.open(given.store).narrowed(subjects=[given.subject])
    text = "\n".join(record(store))
    if given.out is None:
        say(text)
    else:
        write_private(given.out, text + "\n")
        say(f"{given.out}: about one person; only you can read it, and it stays at this site")
    return 0


def record(store: SiteStore) -> Iterator[str]:
    """Yield the lines of a view of one person: who, then day by day, then what was worn."""
    names = descriptions(store)
    events = store.events().to_pylist()
    born = next((e["time"] for e in events if e["code"] == birth_code), None)
    yield f"Subject of {store.name}"
    for event in (e for e in events if e["time"] is None):
        yield f"  {_line(event, names)}"
    day = None
    began = {(e["code"], e["time"].date()) for e in events if e["time"] is not None}
    for event in (e for e in events if e["time"] is not None):
        start, is_end = event["code"].removesuffix(_END), event["code"].endswith(_END)
        if is_end and (start, event["time"].date()) in began:
            continue  # the line of its beginning says how long it was
        if event["time"].date() != day:
            day = event["time"].date()
            age = "" if born is None else f", aged {(event['time'] - born).days / YEAR_DAYS:.1f}"
            yield ""
            yield f"{day:%d %B %Y}{age}"
        clock = f"{event['time']:%H:%M}" if event["time"].time().isoformat() != "00:00:00" else ""
        yield f"  {clock:<5}  {_line(event, names)}"
    for device in store.devices:
        yield ""
        yield f"Worn: {device}"
        yield from _worn(store.wearable(device))


def descriptions(store: SiteStore) -> dict[str, str]:
    """Return code → its description; one that has none takes that of the code above it."""
    file = store.path / CODES_FILE
    table = read_parquet(file, CODES_FILE) if file.is_file() else None
    if table is None:
        return {}
    known = dict(zip(table["code"].to_pylist(), table["description"].to_pylist(), strict=True))
    named = {code: text for code, text in known.items() if text}
    for code in known:
        base, _, rest = code.rpartition("//")
        if code not in named and base in named:
            named[code] = f"{named[base]}: {_answer(rest, named)}" if ":" in rest else named[base]
    return named


def _answer(rest: str, named: dict[str, str]) -> str:
    return named.get(rest.replace(":", "//"), rest)


def _line(event: dict[str, Any], names: dict[str, str]) -> str:
    code, value = event["code"], event["numeric_value"]
    if code in _VITAL:
        return _VITAL[code]
    if code.startswith(_VISIT):
        return _visit(code.removeprefix(_VISIT), value, names.get(code))
    if code.startswith(PRS_PREFIX) and value is not None:
        percent = NormalDist().cdf(value) * 100
        return f"Polygenic score {code.removeprefix(PRS_PREFIX)}: z {value:+.2f} ({percent:.0f} %)"
    name = names.get(code)
    said = f"{name} [{code}]" if name else code.replace("//", " ")
    if code.startswith(WEARABLE_PREFIX):
        what, _, unit = code.removeprefix(WEARABLE_PREFIX).rpartition("//")
        said = what.replace("//", ", ").replace("_", " ").lower()
    else:
        unit = code.split("//", 2)[2] if code.count("//") > 1 else ""
    number = "" if value is None else f" = {_readable(value, unit)}"
    text = f" “{event['text_value']}”" if event.get("text_value") else ""
    return f"{said}{number}{text}"


def _visit(kind: str, days: float | None, name: str | None) -> str:
    """Return a visit and how long it was, or that it ends."""
    base = kind.removesuffix(_END)
    said = name or _VISITS.get(base, f"Visit {base}")
    if base != kind:
        return f"{said} ends"
    if not days:
        return said
    long = f"{days:.0f} days" if days >= 1.5 else f"{max(1, round(days * 24)):d} h"
    return f"{said}, {long}"


def _readable(value: float, unit: str) -> str:
    """Return a number in the unit a clinician expects, where ours makes it large."""
    larger = _LARGER.get(unit)
    if larger is not None and abs(value) >= 1000:
        value, unit = value / 1000, larger
    return f"{value:g} {unit}".rstrip()


def _worn(table: pa.Table) -> Iterator[str]:
    for row in table.to_pylist():
        seen = np.array(row["mask"], np.bool_)
        if seen.any():
            mean = np.array(row["value"])[seen].mean()
            hours = seen.sum() / row["hz"] / 3600
            yield f"  {row['start']:%d %B %Y}  {row['channel']:<12} {hours:.1f} h, mean {mean:.1f}"


COMMAND = Command("show one person's record in words; it stays here", run, arguments)
