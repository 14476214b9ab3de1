"""Raw files of accelerometers: Axivity's .cwa, ActiGraph's .gt3x, GENEActiv's .bin.

A sample is the mean movement in a window of 30 s, in milli-g, as UK Biobank has published it
(`accelerometers.movement`). A file is read twice and never held: once for what calibrates it, once
for the movement. Times are the clock that the device was set to. A file is the person's whose
number its name begins with, as UK Biobank names them, or of the folder that it lies in, or of its
own name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from healthfm_client.ingest.accelerometers import actigraph, axivity, geneactiv
from healthfm_client.ingest.accelerometers.movement import (
    PIECE_US,
    calibration,
    moments,
    movement,
    still,
    sums_of_pieces,
    windows,
    worn,
)
from healthfm_client.ingest.accelerometers.raw_file import BROKEN, Damage, SamplesOf, opened
from healthfm_client.ingest.person_wearing import UNREADABLE
from healthfm_client.ingest.reader_interface import (
    Reader,
    ReaderOptions,
    Site,
    WearingPart,
    WearingStream,
)
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.tables.wearable_minutes import by_day, possible
from healthfm_core.arrays import Float64, Int64
from healthfm_core.data.store.wearables import SECOND_US

CHANNEL: Final = "ACCELERATION"
_ENDS: Final = (".cwa", ".cwa.gz", ".gt3x", ".bin", ".bin.gz")
_EID: Final = re.compile(r"(\d+)_9000[0-9]_")
_HEAD_BYTES: Final = 4096


class AccelerometerFileOptions(ReaderOptions):
    """Options of ``accelerometer``."""

    person: str | None = Field(
        None, min_length=1, description="whose all of it is [file name or folder]"
    )
    every_s: int = Field(
        30, ge=10, le=3600, description="seconds of one window, a divisor of a day"
    )

    @field_validator("every_s")
    @classmethod
    def _divides(cls, seconds: int) -> int:
        if 86_400 % seconds or seconds % (PIECE_US // SECOND_US):
            raise ValueError("it has to be tens of seconds, a whole number of them in a day")
        return seconds


@dataclass
class _Found:
    """What the files of a person hold."""

    windows: dict[str, list[tuple[Int64, Float64]]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)


def read(path: Path, options: AccelerometerFileOptions) -> Iterator[Site]:
    """Yield everyone's files as one site."""
    people: dict[str, list[Path]] = {}
    for file in _files(path):
        people.setdefault(options.person or _person(file, path), []).append(file)
    names = list(people)
    refuse_empty(pa.table({"person": pa.array(names, pa.string())}), path.name)
    subjects = numbers(names, options, path.name).tolist()
    whose = sorted(zip(subjects, names, strict=True))

    def parts() -> Iterator[WearingPart]:
        some = 0
        for subject, name in whose:
            part = _part(subject, people[name], options)
            some += len(part.wearables)
            yield part
        refuse_empty(pa.table({"part": list(range(some))}), path.name)

    yield Site(None, wearing=WearingStream(parts(), len(names)))


def _part(subject: int, files: Sequence[Path], options: AccelerometerFileOptions) -> WearingPart:
    found = _Found()
    for file in files:
        _take(found, file, options.every_s * SECOND_US)
    wearables, odd = {}, []
    for device, its in sorted(found.windows.items()):
        time, value = _first_of_each(its)
        good = possible(value, time, CHANNEL, options.now_us)
        odd.append((time[~good], value[~good]))
        if good.any():
            who = np.full(int(good.sum()), subject, np.int64)
            wearables[device] = by_day(who, time[good], value[good], CHANNEL, options.every_s)
    return WearingPart(wearables, _rejected(subject, odd, found.unreadable), dict(found.not_read))


def _take(found: _Found, file: Path, every_us: int) -> None:
    """Take the windows of a file: first what calibrates it, then its movement."""
    known = _kind(file)
    if known is None:
        found.unreadable.append("of no known kind")
        return
    device, samples = known
    damage = Damage()
    looked = sums_of_pieces((moments(of) for of in samples(file, damage)), 6)
    if not len(looked.at):
        found.unreadable.append(device)
        return
    quiet = still(looked)
    by = calibration(looked, quiet)
    found.not_read["damaged blocks"] += damage.blocks
    found.not_read["files that end in the middle"] += damage.cut
    found.not_read["files that could not be calibrated"] += not by.found
    moved = sums_of_pieces((movement(of, by) for of in samples(file, Damage())), 1)
    somebody = worn(looked.at, quiet)
    found.not_read["hours in which nobody wore it"] += round((~somebody).sum() / 360)
    found.windows.setdefault(device, []).append(windows(moved, somebody, every_us))


def _first_of_each(its: Sequence[tuple[Int64, Float64]]) -> tuple[Int64, Float64]:
    """Return windows of several files, each once, as the first file has it."""
    time, value = (np.concatenate(of) for of in zip(*its, strict=True))
    once, first = np.unique(time, return_index=True)
    return once, value[first]


def _rejected(
    subject: int, odd: Sequence[tuple[Int64, Float64]], unreadable: Sequence[str]
) -> Mapping[str, pa.Table]:
    rejected = {}
    time = np.concatenate([np.zeros(0, np.int64), *(times for times, _ in odd)])
    if len(time):
        stamps = pa.array(time).cast(pa.timestamp("us"))
        who = pa.array(np.full(len(time), subject, np.int64))
        milli_g = np.concatenate([values for _, values in odd])
        rejected["impossible_acceleration"] = pa.table(
            {"subject_id": who, "time": stamps, "milli_g": milli_g}
        )
    if unreadable:
        rejected[UNREADABLE] = pa.table({"kind": pa.array(sorted(unreadable), pa.string())})
    return rejected


def _person(file: Path, path: Path) -> str:
    """Return whose a file is: UK Biobank's number, the folder below the path, or its name."""
    eid = _EID.match(file.name)
    if eid:
        return eid[1]
    inside = file.relative_to(path).parts if path.is_dir() else (file.name,)
    return inside[0] if len(inside) > 1 else file.name.split(".", 1)[0]


def _kind(file: Path) -> tuple[str, SamplesOf] | None:
    """Return (device, how it is read) by what a file holds, None where that is none."""
    if file.name.lower().endswith(".gt3x"):
        return ("actigraph", actigraph.samples) if actigraph.is_actigraph(file) else None
    try:
        with opened(file) as stream:
            head = stream.read(_HEAD_BYTES)
    except BROKEN:
        return None
    if axivity.is_axivity(head):
        return "axivity", axivity.samples
    return ("geneactiv", geneactiv.samples) if geneactiv.is_geneactiv(head) else None


def _files(path: Path) -> list[Path]:
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    named = [f for f in inside if f.is_file() and not f.name.startswith(".")]
    return [f for f in named if f.name.lower().endswith(_ENDS)]


def sniff(path: Path) -> bool:
    """Whether there is a raw file of an accelerometer here."""
    return any(_kind(file) is not None for file in _files(path))


READER = Reader(
    name="accelerometer",
    summary="raw accelerometers: Axivity .cwa, ActiGraph .gt3x, GENEActiv .bin; one site",
    reads=(
        "mean movement of 30 s (or --every-s) in milli-g, by UK Biobank's definition: calibrated "
        "to gravity, below 20 Hz, without stretches in which nobody wore it"
    ),
    not_read=(
        "light, temperature, buttons, gyroscopes, heart straps; damaged blocks and files that "
        "end in the middle or could not be calibrated are counted"
    ),
    tried_on="files that the tests write after the makers' descriptions; none of a real person",
    sniff=sniff,
    read=read,
    options=AccelerometerFileOptions,
    links=True,
)
