"""GENEActiv's .bin: lines of text, with the samples of each page as hexadecimal digits.

The header has the gains and offsets that the maker found for the device; a page has a time, a rate
and up to 300 samples of 12 bits an axis.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Final

import numpy as np

from healthfm_client.ingest.accelerometers.raw_file import BROKEN, Damage, Samples, opened
from healthfm_core.arrays import Float32, Float64
from healthfm_core.data.store.wearables import SECOND_US

_LINE_AT_MOST: Final = 8192
_HEAD_LINES: Final = 200
_PAGE: Final = b"Recorded Data"
_DATA_BYTES: Final = 6
_NUMBER: Final = re.compile(rb"([xyz]) (gain|offset):\s*(-?\d{1,9})\s*")
_EPOCH: Final = datetime(1970, 1, 1)
_FASTEST: Final = 1000.0
_AT_ONCE: Final = 200
"""Pages that are put together."""


def is_geneactiv(head: bytes) -> bool:
    """Whether a file begins as one of GENEActiv's."""
    return head.startswith(b"Device Identity") and b"GENEActiv" in head


def samples(file: Path, damage: Damage) -> Iterator[Samples]:
    """Yield the samples of a .bin file, some minutes at a time."""
    with opened(file) as stream:
        scale = _scale(stream, damage)
        if scale is None:
            damage.cut = True
            return
        waiting: list[Samples] = []
        for found in _pages(stream, scale, damage):
            if waiting and (len(waiting) >= _AT_ONCE or found.hz != waiting[0].hz):
                yield _one(waiting)
                waiting = []
            waiting.append(found)
        if waiting:
            yield _one(waiting)


def _one(pages: list[Samples]) -> Samples:
    time = np.concatenate([page.time_us for page in pages])
    return Samples(time, np.concatenate([page.g for page in pages]), pages[0].hz)


def _pages(stream: IO[bytes], scale: tuple[Float64, Float64], damage: Damage) -> Iterator[Samples]:
    """Yield the samples of each page."""
    page: dict[bytes, bytes] = {}
    while line := _line(stream, damage):
        line = line.strip()
        if line == _PAGE:
            page = {}
        elif b":" in line:
            name, _, said = line.partition(b":")
            page[name] = said
        elif line:
            found = _of_page(page, line, *scale)
            damage.blocks += found is None
            if found is not None:
                yield found


def _scale(stream: IO[bytes], damage: Damage) -> tuple[Float64, Float64] | None:
    """Return ([3] gain, [3] offset) of the header, whose end is the first page's beginning."""
    known: dict[tuple[bytes, bytes], float] = {}
    for _ in range(_HEAD_LINES):
        line = _line(stream, damage)
        if not line or line.strip() == _PAGE:
            break
        found = _NUMBER.fullmatch(line.strip())
        if found:
            known[found[1], found[2]] = float(found[3])
    gain, offset = (
        np.array([known.get((axis, what), np.nan) for axis in (b"x", b"y", b"z")])
        for what in (b"gain", b"offset")
    )
    return (gain, offset) if np.isfinite(offset).all() and (gain > 0).all() else None


def _line(stream: IO[bytes], damage: Damage) -> bytes:
    """Return the next line with its end, nothing at the end of the file."""
    try:
        return stream.readline(_LINE_AT_MOST)
    except BROKEN:
        damage.cut = True
        return b""


def _of_page(
    page: dict[bytes, bytes], digits: bytes, gain: Float64, offset: Float64
) -> Samples | None:
    """Return a page's samples, None where one of its parts is damaged."""
    try:
        clock = page[b"Page Time"].decode("ascii").strip()
        at = datetime.strptime(clock, "%Y-%m-%d %H:%M:%S:%f")
        hz = float(page[b"Measurement Frequency"].replace(b",", b"."))
        raw = np.frombuffer(binascii.unhexlify(digits), np.uint8)
    except (KeyError, ValueError):
        return None
    if not 1 <= hz <= _FASTEST or len(raw) < _DATA_BYTES:
        return None
    g = (_axes(raw[: len(raw) // _DATA_BYTES * _DATA_BYTES]) * 100 - offset) / gain
    since = at - _EPOCH
    start = (since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds
    time = start + np.rint(np.arange(len(g)) * (SECOND_US / hz)).astype(np.int64)
    return Samples(time, g.astype(np.float32), hz)


def _axes(raw: np.ndarray) -> Float32:
    """Return [samples, 3] of 12 bits an axis; light and button stand behind them."""
    six = raw.reshape(-1, _DATA_BYTES).astype(np.int32)
    x = six[:, 0] << 4 | six[:, 1] >> 4
    y = (six[:, 1] & 15) << 8 | six[:, 2]
    z = six[:, 3] << 4 | six[:, 4] >> 4
    values = np.stack([x, y, z], axis=1)
    return np.asarray(values - (values >= 2048) * 4096, np.float32)
