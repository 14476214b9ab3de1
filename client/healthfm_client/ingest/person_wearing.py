"""What one person's devices say, put together from many files in bounded memory.

A minute is the mean of its readings in the first file that has any: exports overlap, and what two
of them hold counts once. A person's years of minutes are held, not the readings that they are made
of. Nights are kept as stretches of stages, of which the longer is believed where two overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa

from healthfm_client.ingest.reader_interface import ReaderOptions, WearingPart, WearingStream
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.ingest.tables.overlapping_sources import Counted, by_minute
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.tables.wearable_minutes import MINUTE_US, MINUTES, by_day, possible
from healthfm_client.ingest.wearable_days import PER_DAY, days_of_one
from healthfm_core.arrays import Float64, Int64

WallClock: TypeAlias = Callable[[Int64], Int64]
"""[N] µs as a file has them → [N] µs on the clock that hung on the wall."""
LEVELS: Final[Mapping[str, float]] = {
    "wake": 0.0,
    "light": 1.0,
    "asleep": 2.0,
    "rem": 2.0,
    "deep": 3.0,
}
"""Stage of sleep → level of the channel SLEEP; ``asleep`` where a device tells no stages."""
UNREADABLE: Final = "unreadable_file"
LONGEST_US: Final = 60 * MINUTE_US
"""What is counted over a longer time says nothing of its minutes."""
QUARTER_US: Final = 15 * MINUTE_US
LONGEST_NIGHT_US: Final = 24 * 60 * MINUTE_US
_NONE: Final = np.iinfo(np.int64).min
_LAST: Final = np.iinfo(np.int64).max


def ahead_by(time_us: Int64, ahead_us: Int64) -> WallClock:
    """Return the clock on the wall from how far it was ahead at some times.

    Args:
        time_us: [M] when that was known, at least once; it holds until the next.
        ahead_us: [M] by how much the wall's clock was ahead, in µs.
    """
    order = np.argsort(time_us, kind="stable")
    at, ahead = time_us[order], ahead_us[order]

    def wall(times: Int64) -> Int64:
        place = np.searchsorted(at, times, side="right") - 1
        return np.asarray(times + ahead[np.maximum(place, 0)], np.int64)

    return wall


def as_it_is(time_us: Int64) -> Int64:
    """Return times of a clock that hung on the wall."""
    return time_us


@dataclass(frozen=True)
class Night:
    """One sleep, as a device has put it down.

    Attributes:
        start: [N] µs, where a stage begins.
        end: [N] µs, where it ends.
        level: [N] see `LEVELS`.
        rank: [N] 0 where it holds against those of rank 1 at the same time.
        ahead_us: How far the wall's clock was ahead of those times.
    """

    start: Int64
    end: Int64
    level: Float64
    rank: Int64
    ahead_us: int = 0

    @property
    def span(self) -> tuple[int, int]:
        """From when to when."""
        return int(self.start.min(initial=_LAST)), int(self.end.max(initial=_NONE))


class _Minutes:
    """A channel's minutes: day → (value, minute on the wall's clock) of each, where it is known."""

    def __init__(self) -> None:
        self._days: dict[int, tuple[Float64, Int64]] = {}

    def add(self, time_us: Int64, value: Float64, wall: WallClock) -> None:
        minute, at = np.unique(time_us // MINUTE_US, return_inverse=True)
        mean = np.bincount(at, weights=value) / np.bincount(at)
        on_wall = wall(minute * MINUTE_US)
        day = minute // MINUTES
        for one in np.unique(day).tolist():
            rows = day == one
            if one not in self._days:
                self._days[one] = (np.zeros(MINUTES), np.full(MINUTES, _NONE, np.int64))
            values, walls = self._days[one]
            place = minute[rows] - one * MINUTES
            new = walls[place] == _NONE
            values[place[new]] = mean[rows][new]
            walls[place[new]] = on_wall[rows][new]

    def all(self) -> tuple[Int64, Float64]:
        """Return ([N] µs on the wall's clock, [N] values), in order of the files' clock."""
        days = [self._days[day] for day in sorted(self._days)]
        value = np.concatenate([np.zeros(0), *(values for values, _ in days)])
        wall = np.concatenate([np.zeros(0, np.int64), *(walls for _, walls in days)])
        known = wall != _NONE
        return wall[known], value[known]


@dataclass
class PersonWearing:
    """All that is read of one person.

    Attributes:
        subject: Who.
        now_us: What is later is set aside.
        not_read: Kind of record → how many that are not read.
    """

    subject: int
    now_us: int
    not_read: Counter[str] = field(default_factory=Counter)
    _minutes: dict[str, _Minutes] = field(default_factory=dict)
    _days: dict[str, dict[int, float]] = field(default_factory=dict)
    _nights: list[Night] = field(default_factory=list)
    _odd: dict[str, list[tuple[Int64, Float64]]] = field(default_factory=dict)
    _unreadable: Counter[str] = field(default_factory=Counter)

    def readings(
        self, channel: str, time_us: Int64, value: Float64, wall: WallClock = as_it_is
    ) -> None:
        """Add readings of one file.

        Args:
            channel: What was measured.
            time_us: [N] when, on a clock that never goes back.
            value: [N] the reading; what cannot be true is set aside.
            wall: That clock → the wall's.
        """
        good = possible(value, time_us, channel, self.now_us)
        if not good.all():
            self._odd.setdefault(channel, []).append((time_us[~good], value[~good]))
        if len(good) and good.any():
            minutes = self._minutes.setdefault(channel, _Minutes())
            minutes.add(time_us[good], value[good], wall)

    def counted(
        self, channel: str, start: Int64, end: Int64, value: Float64, wall: WallClock = as_it_is
    ) -> None:
        """Add what was counted over stretches of one file, spread evenly; see `readings`.

        What begins before an earlier one has ended was counted there, or by a second device.

        Args:
            channel: What was counted.
            start: [N] µs.
            end: [N] µs.
            value: [N] the amount of the whole stretch.
            wall: See `readings`.
        """
        sound = possible(value, start, "", self.now_us) & (end > start)
        if not sound.all():
            self._odd.setdefault(channel, []).append((start[~sound], value[~sound]))
        long = end - start > LONGEST_US
        self.not_read[f"{channel} counted over more than an hour"] += int((sound & long).sum())
        stretches = self._first(channel, start, end, value, np.flatnonzero(sound & ~long))
        self.readings(channel, *by_minute(stretches, MINUTE_US), wall)

    def lasting(
        self, channel: str, start: Int64, end: Int64, value: Float64, wall: WallClock = as_it_is
    ) -> None:
        """Add levels that hold over stretches of one file, of a quarter of an hour at most.

        A longer one is that of its first minute alone. See `counted`.
        """
        sound = possible(value, start, channel, self.now_us) & (end >= start)
        if not sound.all():
            self._odd.setdefault(channel, []).append((start[~sound], value[~sound]))
        short = (end - start <= QUARTER_US) & (end > start)
        end = np.where(short, end, start + MINUTE_US)
        stretches = self._first(channel, start, end, value, np.flatnonzero(sound))
        self.readings(channel, *by_minute(stretches, MINUTE_US, level=True), wall)

    def _first(
        self, channel: str, start: Int64, end: Int64, value: Float64, rows: Int64
    ) -> Counted:
        """Return those of some stretches that begin when all before them have ended."""
        rows = rows[np.lexsort((end[rows], start[rows]))]
        reach = np.append(_NONE, np.maximum.accumulate(end[rows])[:-1])[: len(rows)]
        first = rows[start[rows] >= reach]
        self.not_read[f"{channel} counted twice"] += len(rows) - len(first)
        return Counted(start[first], end[first], value[first], np.zeros(len(first), np.int64))

    def held(self, channel: str) -> tuple[Int64, Float64]:
        """Return and take away a channel's minutes: ([N] µs on the wall's clock, [N] values)."""
        minutes = self._minutes.pop(channel, None)
        return (np.zeros(0, np.int64), np.zeros(0)) if minutes is None else minutes.all()

    def day(self, channel: str, day: int, value: float, *, add: bool = False) -> None:
        """Add what is said of a day, counted from 1970; of several values the first holds.

        Args:
            channel: What was measured, ``…_DAY``.
            day: Days since 1970.
            value: The day's.
            add: Several values of a day add up.
        """
        days = self._days.setdefault(channel, {})
        days[day] = days[day] + value if add and day in days else days.get(day, value)

    def night(self, night: Night) -> bool:
        """Add a sleep, unless it cannot be; of two that overlap the longer is kept in the end."""
        first, last = night.span
        long = night.end - night.start
        sound = len(long) > 0 and long.min() > 0 and last - first <= LONGEST_NIGHT_US
        if sound and all(long[night.rank == rank].sum() <= last - first for rank in (0, 1)):
            self._nights.append(night)
            return True
        return False

    def stages(self, start: Int64, end: Int64, level: Float64, wall: WallClock = as_it_is) -> None:
        """Add stages of one file, in any order, as nights: an hour without any ends one.

        Args:
            start: [N] µs.
            end: [N] µs.
            level: [N] see `LEVELS`; NaN is no stage.
            wall: See `readings`.
        """
        sound = possible(level, start, "SLEEP", self.now_us) & (end > start)
        self.not_read["stages of sleep that cannot be"] += int((~sound).sum())
        one = self._first("SLEEP", start, end, level, np.flatnonzero(sound))
        apart = np.flatnonzero(one.start[1:] - one.end[:-1] > LONGEST_US) + 1
        for rows in np.split(np.arange(len(one.start)), apart):
            if len(rows):
                begin = one.start[rows[:1]]
                ahead = int((wall(begin) - begin)[0])
                night = Night(
                    one.start[rows], one.end[rows], one.value[rows], one.rank[rows], ahead
                )
                self.not_read["sleep of more than a day"] += not self.night(night)

    def unreadable(self, kind: str) -> None:
        """Count a file that is cut off, damaged or too large."""
        self._unreadable[kind] += 1

    def part(self, device: str) -> WearingPart:
        """Return all of it, under a device's name."""
        self._sleep()
        tables, rejected = [], {}
        for channel in sorted(self._minutes):
            time, value = self._minutes[channel].all()
            who = np.full(len(time), self.subject, np.int64)
            tables.append(by_day(who, time, value, channel))
        for channel, odd in sorted(self._odd.items()):
            rejected[f"impossible_{channel.lower()}"] = self._set_aside(odd)
        totals, odd_days = days_of_one(self.subject, self._days, self.now_us)
        if odd_days.num_rows:
            rejected["impossible_day"] = odd_days
        if self._unreadable:
            kinds = sorted(self._unreadable.elements())
            rejected[UNREADABLE] = pa.table({"kind": pa.array(kinds, pa.string())})
        wearables = {device: pa.concat_tables(tables)} if tables else {}
        wearables |= {PER_DAY: totals} if totals.num_rows else {}
        return WearingPart(wearables, rejected, dict(self.not_read))

    def _sleep(self) -> None:
        """Turn the nights into minutes, the longer ones first."""
        nights: Sequence[Night] = sorted(self._nights, key=lambda n: n.span[0] - n.span[1])
        kept, left_out = _apart(nights)
        self.not_read["sleep that overlaps a longer one"] += left_out
        if kept:
            start, end, level, rank = (
                np.concatenate([getattr(night, name) for night in kept])
                for name in ("start", "end", "level", "rank")
            )
            begins = np.array([night.span[0] // MINUTE_US * MINUTE_US for night in kept])
            wall = ahead_by(begins, np.array([night.ahead_us for night in kept]))
            minutes, levels = by_minute(Counted(start, end, level, rank), MINUTE_US, level=True)
            self.readings("SLEEP", minutes, levels, wall)

    def _set_aside(self, odd: Sequence[tuple[Int64, Float64]]) -> pa.Table:
        time = np.concatenate([times for times, _ in odd])
        value = np.concatenate([values for _, values in odd])
        who = pa.array(np.full(len(time), self.subject, np.int64))
        stamp = pa.array(time).cast(pa.timestamp("us"))
        return pa.table({"subject_id": who, "time": stamp, "value": value})


def wearing_stream(
    where: str,
    people: Sequence[str],
    options: ReaderOptions,
    device: str,
    take: Callable[[PersonWearing, str], None],
    *,
    alone: bool = True,
) -> WearingStream:
    """Return what devices say of people, one after the other.

    Args:
        where: The source, for errors.
        people: The source's ids, each once.
        options: The reader's.
        device: Name of the device.
        take: Reads all of a person, named by the source's id.
        alone: Whether there must be something: no events are beside it.

    Raises:
        IngestError: HF-303, HF-305 to HF-308; HF-306 when all is read and nothing was in it.
    """
    refuse_empty(pa.table({"person": pa.array(people, pa.string())}), where)
    subjects = numbers(people, options, where).tolist()

    def parts() -> Iterator[WearingPart]:
        found = 0
        for subject, name in sorted(zip(subjects, people, strict=True)):
            one = PersonWearing(subject, options.now_us)
            take(one, name)
            part = one.part(device)
            found += len(part.wearables)
            yield part
        if alone:
            refuse_empty(pa.table({"part": list(range(found))}), where)

    return WearingStream(parts(), len(people))


def _apart(nights: Sequence[Night]) -> tuple[list[Night], int]:
    """Return (the nights that overlap none before them, how many do)."""
    starts: list[int] = []
    ends: list[int] = []
    kept = []
    for night in nights:
        first, last = night.span
        at = int(np.searchsorted(starts, last))
        if at and ends[at - 1] > first:
            continue
        starts.insert(at, first)
        ends.insert(at, last)
        kept.append(night)
    return kept, len(nights) - len(kept)
