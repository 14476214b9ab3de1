"""Garmin: the FIT files of watches, as an account's export has them or a watch itself.

What is read of a file is in `tables.fit_messages`. Its times are UTC's; how far the clock on the
wrist was ahead stands in the files of monitoring and of activities, and holds for what lies
between. A watch writes steps as a day's counters: the difference to the message before is spread
over the minutes of moving that the watch names, or else over a quarter of an hour at most. What was
counted on a day before the first message is of no known minute and counts for the day's total
alone. Of several watches at one time the one with more messages holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from healthfm_client.ingest.person_wearing import (
    LEVELS,
    PersonWearing,
    WallClock,
    ahead_by,
    as_it_is,
    wearing_stream,
)
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.readers.step_counters import steps_of
from healthfm_client.ingest.tables.fit_messages import FitMessages, decode
from healthfm_client.ingest.tables.local_time import wall_us
from healthfm_client.ingest.tables.overlapping_sources import Counted, by_minute
from healthfm_client.ingest.tables.person_files import (
    FILE_AT_MOST,
    ZIP,
    PersonFile,
    contents,
    people_files,
    some_file,
)
from healthfm_client.ingest.tables.wearable_minutes import MINUTE_US
from healthfm_core.arrays import Int64
from healthfm_core.data.store.wearables import DAY_US, SECOND_US

DEVICE: Final = "garmin"
INSIDE: Final = frozenset(
    {
        *("garmin", "di_connect", "di-connect-uploaded-files", "di-connect-fitness"),
        *("di-connect-wellness", "di-connect-user", "di-connect-metrics", "di-connect-aggregator"),
        *("di-connect-fitness-uploaded-files", "customer_data", "it_support", "activity", "sleep"),
        *("activities", "monitor", "monitoring", "metrics", "hrvstatus", "wellness", "skintemp"),
    }
)
_FIT: Final = ".fit"
_LEVELS: Final = {1: LEVELS["wake"], 2: LEVELS["light"], 3: LEVELS["deep"], 4: LEVELS["rem"]}


class GarminOptions(ReaderOptions):
    """Options of ``garmin``."""

    person: str | None = Field(
        None, min_length=1, description="whose all of it is [the folder or .zip of each]"
    )


def read(path: Path, options: GarminOptions) -> Iterator[Site]:
    """Yield everyone's files as one site."""
    people = people_files(path, INSIDE, _is_read, options.person)
    packed = sum(_is_packed(file) for name in people.of for file in people.files(name))

    def take(one: PersonWearing, name: str) -> None:
        _person(one, people.files(name), options.time_zone)

    yield Site(
        None,
        wearing=wearing_stream(path.name, list(people.of), options, DEVICE, take),
        not_read={"files of nobody": people.others, "archives within an archive": packed},
        notices=(*_of_archives(packed), *people.notices()),
    )


def _person(one: PersonWearing, files: Sequence[PersonFile], zone: str | None) -> None:
    found = []
    for file, text in contents([file for file in files if not _is_packed(file)], FILE_AT_MOST):
        if not file.name.endswith((_FIT, ZIP)):
            one.not_read["other files"] += 1
            continue
        its = None if text is None else decode(text)
        if its is None:
            one.unreadable("FIT file")
        else:
            found.append(its)
    wall = _clock_of(one, found, zone)
    for its in found:
        one.not_read.update(its.not_read)
        time, rate = its.hearts()
        one.readings("HR", time * SECOND_US, rate, wall)
        _take_stages(one, its.stages, wall)
    _take_steps(one, found, wall)
    _take_days(one, found, wall)


def _clock_of(one: PersonWearing, found: Sequence[FitMessages], zone: str | None) -> WallClock:
    """Return the clock on a person's wall: in the site's zone, or as their watch was set."""
    if zone is not None:
        return partial(wall_us, zone=zone)
    known = [pair for its in found for pair in its.ahead]
    if not known:
        one.not_read["FIT files without a clock, whose times of UTC were kept"] += len(found)
        return as_it_is
    time, ahead = (np.array(of, np.int64) * SECOND_US for of in zip(*known, strict=True))
    return ahead_by(time, ahead)


def _take_stages(one: PersonWearing, stages: Sequence[tuple[int, int]], wall: WallClock) -> None:
    """Take stages of sleep: each holds until the next, the last one ends the night."""
    if len(stages) < 2:
        return
    time, level = (np.array(of, np.int64) for of in zip(*sorted(stages), strict=True))
    meant = np.array([_LEVELS.get(at, np.nan) for at in level[:-1].tolist()])
    lasting = np.diff(time) > 0
    sound = lasting & np.isfinite(meant)
    one.not_read["stages of sleep that could not be told"] += int((lasting & ~sound).sum())
    start, end = time[:-1][sound] * SECOND_US, time[1:][sound] * SECOND_US
    one.stages(start, end, meant[sound], wall)


def _take_steps(one: PersonWearing, found: Sequence[FitMessages], wall: WallClock) -> None:
    """Take the steps of all watches, those of the watch with the most messages first."""
    counters: dict[int, dict[int, list[Int64]]] = {}
    for its in found:
        for (device, moving), of in its.counters.items():
            kinds = counters.setdefault(device, {})
            kinds.setdefault(moving, []).append(np.array(of, np.int64).reshape(-1, 3))
    sizes = {
        of: sum(len(its) for kind in kinds.values() for its in kind)
        for of, kinds in counters.items()
    }
    for device in sorted(counters, key=lambda of: (-sizes[of], of)):
        moved = [steps_of(np.concatenate(its), wall) for its in counters[device].values()]
        one.not_read["steps of no known minute"] += sum(its.unplaced for its in moved)
        one.readings("STEPS", *by_minute(_together([its.placed for its in moved]), MINUTE_US), wall)
        days = {day for its in moved for day in its.totals}
        for day in sorted(days):
            one.day("STEPS_DAY", day, sum(its.totals.get(day, 0.0) for its in moved))


def _together(pieces: Sequence[Counted]) -> Counted:
    """Return stretches of several kinds of moving, which add up where they overlap."""
    names = ("start", "end", "value", "rank")
    return Counted(*(np.concatenate([getattr(of, name) for of in pieces]) for name in names))


def _take_days(one: PersonWearing, found: Sequence[FitMessages], wall: WallClock) -> None:
    """Take what is said of days; of several messages the last one of a day holds."""
    for channel, name in (("RESTING_HR_DAY", "resting"), ("HRV_DAY", "nightly_hrv")):
        said = sorted(pair for its in found for pair in getattr(its, name))
        if said:
            time, value = zip(*said, strict=True)
            day = wall(np.array(time, np.int64) * SECOND_US) // DAY_US
            for at, of in dict(zip(day.tolist(), value, strict=True)).items():
                one.day(channel, at, of)


def _is_packed(file: PersonFile) -> bool:
    """Whether a member of a .zip is a .zip itself, which is not opened."""
    return file.member is not None and file.name.endswith(ZIP)


def _of_archives(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (
        f"{count} archives lie within another archive (Garmin's export has its FIT files so) and "
        "were not read. Unpack the outer one into a folder named for the person, and ingest again.",
    )


def _is_read(file: PersonFile) -> bool:
    return file.name.endswith(_FIT)


def sniff(path: Path) -> bool:
    """Whether there is a FIT file here, in a .zip or not."""
    return some_file(path, _is_read)


READER = Reader(
    name="garmin",
    summary="Garmin: FIT files in a folder or .zip of each person; one site",
    reads=(
        "steps, heart rate (of activities too) and stages of sleep by the minute, of several "
        "watches one; days of steps, resting heart rate and HRV; the clock that the watch showed"
    ),
    not_read=(
        "positions, speed, power, stress, respiration, SpO2, energy, floors, workouts as such: "
        "counted by the kind of message; the JSON files of an account's export"
    ),
    tried_on="files that the tests write and Garmin's own SDK reads alike; none of a real person",
    sniff=sniff,
    read=read,
    options=GarminOptions,
    links=True,
    opens_archives=True,
)
