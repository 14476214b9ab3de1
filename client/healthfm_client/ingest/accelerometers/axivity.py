"""Axivity's AX3 and AX6 (.cwa), after the description in Open Movement's repository.

A file is a header of 1,024 bytes and blocks of 512, each with a checksum, a time, the rate and 40
to 120 samples. Of an AX6, whose gyroscope comes first, the acceleration is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from healthfm_client.ingest.accelerometers.raw_file import BROKEN, Damage, Samples, opened
from healthfm_core.arrays import Bool, Float32, Float64, Int64
from healthfm_core.data.store.wearables import SECOND_US

BLOCK: Final = 512
_AT_ONCE: Final = 4096
_LAYOUT: Final = np.dtype(
    [
        *(("name", "S2"), ("length", "<u2"), ("fraction", "<u2"), ("session", "<u4")),
        *(("number", "<u4"), ("stamp", "<u4"), ("light", "<u2"), ("temperature", "<u2")),
        *(("events", "u1"), ("battery", "u1"), ("rate", "u1"), ("form", "u1")),
        *(("offset", "<i2"), ("count", "<u2"), ("data", "u1", 480), ("checksum", "<u2")),
    ]
)
_PACKED: Final = 0x30
_FORMS: Final = {_PACKED: 120, 0x32: 80, 0x62: 40, 0x92: 26}
"""Axes and bytes of a sample → how many samples fit into a block."""
_WRONG_PACE: Final = 0.2
Blocks = NDArray[np.void]


def is_axivity(head: bytes) -> bool:
    """Whether a file begins as one of Axivity's."""
    return head[:2] == b"MD" or (head[:2] == b"AX" and head[2:4] == b"\xfc\x01")


def samples(file: Path, damage: Damage) -> Iterator[Samples]:
    """Yield the samples of a .cwa file, some minutes at a time."""
    with opened(file) as stream:
        while read := _read(stream, damage):
            blocks = np.frombuffer(read, _LAYOUT)
            good = _sound(blocks)
            damage.blocks += int((~good & (blocks["name"] == b"AX")).sum())
            for form in np.unique(blocks["form"][good]).tolist():
                yield from _of_form(blocks[good & (blocks["form"] == form)], form)


def _read(stream: IO[bytes], damage: Damage) -> bytes:
    """Return the next whole blocks, nothing at the end of the file or where it is cut off."""
    pieces: list[bytes] = []
    try:
        while len(pieces) < _AT_ONCE and (piece := stream.read(BLOCK)):
            pieces.append(piece)
    except BROKEN:
        damage.cut = True
    if pieces and len(pieces[-1]) < BLOCK:
        damage.cut = True
        pieces.pop()
    return b"".join(pieces)


def _sound(blocks: Blocks) -> Bool:
    """Return where a block is one of data, whole, and of a form that is read."""
    words = blocks.view(np.uint8).reshape(-1, BLOCK).view("<u2")
    summed = words.sum(1, dtype=np.uint32) & 0xFFFF
    most = np.array([_FORMS.get(form, 0) for form in range(256)])[blocks["form"]]
    fits = (blocks["count"] > 0) & (blocks["count"] <= most) & (blocks["rate"] & 0x0F > 0)
    data = (blocks["name"] == b"AX") & (blocks["length"] == BLOCK - 4)
    checked = (summed == 0) | (blocks["checksum"] == 0)
    return np.asarray(data & fits & checked & (_seconds(blocks["stamp"])[1]), np.bool_)


def _of_form(blocks: Blocks, form: int) -> Iterator[Samples]:
    hz = 3200 / (1 << (15 - (blocks["rate"] & 0x0F).astype(np.int64)))
    for rate in np.unique(hz).tolist():
        of = blocks[hz == rate]
        g = _unpacked(of, form) / (1 << (8 + (of["light"] >> 13).astype(np.int64)))[:, None, None]
        there = np.arange(g.shape[1]) < of["count"][:, None]
        yield Samples(_times(of, rate, g.shape[1])[there], g[there].astype(np.float32), rate)


def _unpacked(blocks: Blocks, form: int) -> Float32:
    """Return [blocks, samples, 3] of the device's units."""
    if form == _PACKED:
        word = np.ascontiguousarray(blocks["data"]).view("<u4")
        shift = (word >> 30).astype(np.int64)[..., None]
        ten = (word[..., None] >> np.array([0, 10, 20], np.uint32)).astype(np.int64) & 0x3FF
        return np.asarray((ten - (ten >= 512) * 1024) << shift, np.float32)
    axes = form >> 4
    per = _FORMS[form]
    values = np.ascontiguousarray(blocks["data"]).view("<i2")[:, : per * axes]
    first = 3 if axes > 3 else 0
    return np.asarray(values.reshape(-1, per, axes)[..., first : first + 3], np.float32)


def _times(blocks: Blocks, hz: float, per: int) -> Int64:
    """Return [blocks, samples] µs: from a block's first sample to the next one's, evenly."""
    fraction = np.where(blocks["fraction"] & 0x8000, (blocks["fraction"] & 0x7FFF) * 2, 0)
    whole = blocks["offset"].astype(np.int64) + (fraction * np.int64(hz * 1024) >> 26)
    start: Float64 = _seconds(blocks["stamp"])[0] + fraction / 65_536 - whole / hz
    step = np.full(len(blocks), 1 / hz)
    lasting = np.diff(start) / np.maximum(blocks["count"][:-1], 1)
    follows = np.diff(blocks["number"].astype(np.int64)) == 1
    near = follows & (np.abs(lasting * hz - 1) < _WRONG_PACE)
    step[:-1][near] = lasting[near]
    every = start[:, None] + step[:, None] * np.arange(per)
    return np.rint(every * SECOND_US).astype(np.int64)


def _seconds(stamp: NDArray[np.uint32]) -> tuple[Int64, Bool]:
    """Return (seconds since 1970 of packed times, where they are dates)."""
    parts = [(stamp >> low).astype(np.int64) & mask for low, mask in _PARTS]
    year, month, day, hour, minute, second = parts
    sound = (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    months = ((year + 30) * 12 + np.clip(month, 1, 12) - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    return ((days * 24 + hour) * 60 + minute) * 60 + second, np.asarray(sound, np.bool_)


_PARTS: Final = ((26, 0x3F), (22, 0x0F), (17, 0x1F), (12, 0x1F), (6, 0x3F), (0, 0x3F))
