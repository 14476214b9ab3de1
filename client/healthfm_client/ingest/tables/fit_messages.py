"""Garmin's FIT files, decoded with `fitdecode`: what of them says something of wearing.

A FIT file is a stream of messages, each of a kind that Garmin numbers in its profile. Times are
seconds of UTC; a `monitoring` message may give the lower 16 bits alone, which go on from the last
whole time before it. Steps are counters that begin anew at the midnight of the wall's clock, one
for each kind of moving; a message counts for the kind that it names itself.
"""

from __future__ import annotations

import io
import struct
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import fitdecode
import numpy as np

from healthfm_core.arrays import Float64, Int64

EPOCH_S: Final = 631_065_600
"""Where FIT's seconds begin: 1989-12-31, as seconds since 1970."""
_FIRST_TIME: Final = 0x10000000
"""What is less counts from when the device was switched on (FIT's `date_time`)."""
_FARTHEST_S: Final = 15 * 3600
_QUARTER_S: Final = 900
_FILE_ID: Final = 0
_RECORD: Final = 20
_ACTIVITY: Final = 34
_MONITORING: Final = 55
_MONITORING_INFO: Final = 103
_CORRELATION: Final = 162
_HEART_OF_DAY: Final = 211
_SLEEP_LEVEL: Final = 275
_NIGHT_HRV: Final = 370
_TIME: Final = 253
_LOCAL: Final = {_ACTIVITY: 5, _MONITORING: 11, _MONITORING_INFO: 0, _CORRELATION: 3}
"""Kind of message → its field with the time on the wall's clock."""
_ON_FOOT: Final = frozenset({1, 6})
"""Kinds of moving whose cycles are steps: running, walking."""
_BREAKS: Final = (
    fitdecode.FitError,
    AssertionError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    struct.error,
)
"""What fitdecode answers a damaged file with: of 40,000 with changed bytes, beside its own errors
AssertionError, TypeError and ValueError."""


@dataclass
class FitMessages:
    """What a file, or several of one person, say of wearing; times are seconds since 1970, UTC.

    Attributes:
        heart_s: When a heart rate was read.
        heart: Beats/min.
        counters: (device, kind of moving) → [time, steps, ms of moving or -1] of each message.
        ahead: (time, by how many seconds the clock on the wall was ahead).
        resting: (time, heart rate at rest of that day).
        nightly_hrv: (time, mean RMSSD of the night before in ms).
        stages: (time, level of `sleep_level`: 1 awake, 2 light, 3 deep, 4 REM), each to the next.
        not_read: Kind of message → how many.
    """

    heart_s: array[int] = field(default_factory=lambda: array("q"))
    heart: array[float] = field(default_factory=lambda: array("d"))
    counters: dict[tuple[int, int], array[int]] = field(default_factory=dict)
    ahead: list[tuple[int, int]] = field(default_factory=list)
    resting: list[tuple[int, float]] = field(default_factory=list)
    nightly_hrv: list[tuple[int, float]] = field(default_factory=list)
    stages: list[tuple[int, int]] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)

    def hearts(self) -> tuple[Int64, Float64]:
        """Return ([N] seconds, [N] beats/min)."""
        return np.array(self.heart_s, np.int64), np.array(self.heart, np.float64)


class _Reading:
    """The state of a file as it is read."""

    def __init__(self, found: FitMessages) -> None:
        self.found = found
        self.device = 0
        self.last: int | None = None

    def take(self, kind: int, of: Mapping[int, Any]) -> bool:
        """Take a message; False where its kind says nothing that is read."""
        at = _moment(of.get(_TIME))
        if at is not None:
            self.last = at
        if kind in _LOCAL:
            self._clock(at, of.get(_LOCAL[kind]))
        if kind == _FILE_ID:
            serial = of.get(3)
            self.device = serial if isinstance(serial, int) else 0
        elif kind == _MONITORING:
            return self._monitoring(at, of)
        elif kind == _RECORD:
            return self._heart(at, of.get(3))
        elif kind == _SLEEP_LEVEL:
            return _add(self.found.stages, at, of.get(0), 1)
        elif kind == _HEART_OF_DAY:
            return _add(self.found.resting, at, of.get(1) or of.get(0), 1)
        elif kind == _NIGHT_HRV:
            return _add(self.found.nightly_hrv, at, of.get(1), 128)
        return kind in _LOCAL or kind == _FILE_ID

    def _clock(self, at: int | None, local: Any) -> None:
        on_wall = _moment(local)
        if at is None or on_wall is None:
            return
        ahead = round((on_wall - at) / _QUARTER_S) * _QUARTER_S
        if abs(ahead) <= _FARTHEST_S:
            self.found.ahead.append((at, ahead))

    def _monitoring(self, at: int | None, of: Mapping[int, Any]) -> bool:
        low = of.get(26)
        if at is None and self.last is not None and isinstance(low, int):
            at = self.last + ((low - (self.last - EPOCH_S)) & 0xFFFF)
            self.last = at
        heart = self._heart(at, of.get(27))
        steps, moving, active = of.get(3), of.get(5), of.get(4)
        if at is None or not isinstance(steps, int) or moving not in _ON_FOOT:
            return heart
        key = (self.device, int(moving))
        row = (at, steps, active if isinstance(active, int) else -1)
        self.found.counters.setdefault(key, array("q")).extend(row)
        return True

    def _heart(self, at: int | None, rate: Any) -> bool:
        if at is None or not isinstance(rate, int) or rate == 0:
            return False
        self.found.heart_s.append(at)
        self.found.heart.append(rate)
        return True


class DamagedFitError(Exception):
    """A file is cut off, damaged or no FIT file."""


def decode(text: bytes) -> FitMessages | None:
    """Return what a file says, None of one that is cut off, damaged or no FIT file."""
    found = FitMessages()
    reading = _Reading(found)
    try:
        for message in _messages(text):
            fields = {one.def_num: one.raw_value for one in message.fields if not _is_own(one)}
            if not reading.take(message.global_mesg_num, fields):
                known = message.mesg_type is not None
                found.not_read[f"{message.name} messages" if known else "unknown messages"] += 1
    except DamagedFitError:
        return None
    return found


def _messages(text: bytes) -> Iterator[fitdecode.FitDataMessage]:
    """Yield the messages of a file.

    Raises:
        DamagedFitError: It is none, or not whole.
    """
    stream = fitdecode.FitReader(
        io.BytesIO(text),
        processor=None,
        check_crc=fitdecode.CrcCheck.RAISE,
        error_handling=fitdecode.ErrorHandling.RAISE,
    )
    messages = iter(stream)
    whole = False
    while True:
        try:
            one = next(messages)
        except StopIteration:
            break
        except _BREAKS as error:
            raise DamagedFitError from error
        whole = whole or isinstance(one, fitdecode.FitCRC)
        if isinstance(one, fitdecode.FitDataMessage):
            yield one
    if not whole:
        raise DamagedFitError


def _is_own(one: fitdecode.types.FieldData) -> bool:
    """Whether a field is one that an app of the watch has made up."""
    return one.field_def is not None and one.field_def.is_dev


def _moment(raw: Any) -> int | None:
    return raw + EPOCH_S if isinstance(raw, int) and raw >= _FIRST_TIME else None


def _add(to: list[tuple[int, Any]], at: int | None, value: Any, scale: int) -> bool:
    if at is None or not isinstance(value, int):
        return False
    to.append((at, value / scale if scale > 1 else value))
    return True
