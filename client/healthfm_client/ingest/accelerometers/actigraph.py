"""ActiGraph's .gt3x: an archive of ``info.txt`` and ``log.bin``, as ActiGraph describes it.

A record has a kind, a second by the device's clock, a length and a checksum; those of kind 0 (12
bits an axis, in the order y, x, z) and 26 (16 bits, x, y, z) are a second of acceleration each. A
device that slept writes none.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import numpy as np

from healthfm_client.ingest.accelerometers.raw_file import BROKEN, Damage, Samples
from healthfm_core.arrays import Float32
from healthfm_core.data.store.wearables import SECOND_US

_INFO: Final = "info.txt"
_LOG: Final = "log.bin"
_INFO_AT_MOST: Final = 1 << 16
_PIECE: Final = 1 << 20
_HEAD: Final = struct.Struct("<BBIH")
_SEPARATOR: Final = 0x1E
_PACKED, _WIDE = 0, 26
_AT_ONCE: Final = 600
"""Records that are put into one array."""
_SCALES: Final = {"CLE": 341.0, "NEO": 341.0, "MRA": 256.0, "MOS": 256.0, "TAS": 256.0}
"""Beginning of a serial number → units in a g, where info.txt does not say."""
_SLOWEST, _FASTEST = 10.0, 500.0
NO_ARCHIVE: Final = (*BROKEN, zipfile.BadZipFile, KeyError, RuntimeError, ValueError)


def is_actigraph(file: Path) -> bool:
    """Whether a file is an archive as ActiGraph's, of the kind with a log."""
    try:
        with zipfile.ZipFile(file) as whole:
            return {_INFO, _LOG} <= set(whole.namelist())
    except NO_ARCHIVE:
        return False


def samples(file: Path, damage: Damage) -> Iterator[Samples]:
    """Yield the samples of a .gt3x file, ten minutes at a time."""
    try:
        with zipfile.ZipFile(file) as whole:
            hz, scale = _settings(whole)
            with whole.open(_LOG) as log:
                yield from _of_log(log, hz, scale, damage)
    except NO_ARCHIVE:
        damage.cut = True


def _settings(whole: zipfile.ZipFile) -> tuple[float, float]:
    """Return (samples in a second, units in a g).

    Raises:
        ValueError: They are not said, or cannot be.
    """
    with whole.open(_INFO) as info:
        text = info.read(_INFO_AT_MOST).decode("utf-8-sig", "replace")
    said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    hz = float(said.get("Sample Rate", "nan").replace(",", "."))
    named = said.get("Acceleration Scale", "").strip().replace(",", ".")
    scale = float(named) if named else _SCALES.get(said.get("Serial Number", "").strip()[:3], 0.0)
    if not (_SLOWEST <= hz <= _FASTEST and 1 <= scale <= 1e5):
        raise ValueError("no rate, or no scale")
    return hz, scale


def _of_log(log: IO[bytes], hz: float, scale: float, damage: Damage) -> Iterator[Samples]:
    """Yield the acceleration of a log; of a second that is told twice both."""
    waiting: list[tuple[int, int, bytes]] = []
    for kind, second, payload in _records(log, damage):
        alike = not waiting or (waiting[0][0], len(waiting[0][2])) == (kind, len(payload))
        if not alike or len(waiting) >= _AT_ONCE:
            yield _seconds_of(waiting, hz, scale)
            waiting = []
        waiting.append((kind, second, payload))
    if waiting:
        yield _seconds_of(waiting, hz, scale)


def _records(log: IO[bytes], damage: Damage) -> Iterator[tuple[int, int, bytes]]:
    """Yield (kind, second, payload) of the records of acceleration that are whole."""
    held = b""
    while True:
        try:
            more = log.read(_PIECE)
        except NO_ARCHIVE:
            damage.cut = True
            return
        held += more
        at = 0
        while len(held) - at >= _HEAD.size:
            separator, kind, second, size = _HEAD.unpack_from(held, at)
            end = at + _HEAD.size + size
            if separator != _SEPARATOR:  # lost: the next one that can be
                damage.blocks += 1
                at = max(held.find(b"\x1e", at + 1), 0) or len(held)
                continue
            if end >= len(held):
                break
            if _checksum(held[at:end]) != held[end]:
                damage.blocks += 1
                at += 1
                at = max(held.find(b"\x1e", at), 0) or len(held)
                continue
            if kind in (_PACKED, _WIDE) and size >= 6:
                yield kind, second, held[at + _HEAD.size : end]
            at = end + 1
        held = held[at:]
        if not more:
            damage.cut = damage.cut or bool(held)
            return


def _checksum(record: bytes) -> int:
    """Return the complement of all bytes, one after the other, exclusively or'ed."""
    number = int.from_bytes(record, "little")
    bits = 8 * (1 << max(0, len(record) - 1).bit_length())
    while bits > 8:
        bits //= 2
        number = (number >> bits) ^ (number & ((1 << bits) - 1))
    return ~number & 0xFF


def _seconds_of(records: list[tuple[int, int, bytes]], hz: float, scale: float) -> Samples:
    """Return records of one kind and length as samples."""
    kind, size = records[0][0], len(records[0][2])
    raw = np.frombuffer(b"".join(payload for _, _, payload in records), np.uint8)
    raw = raw.reshape(len(records), size)
    g = (_wide(raw) if kind == _WIDE else _packed(raw)) / np.float32(scale)
    second = np.array([second for _, second, _ in records], np.int64)[:, None] * SECOND_US
    within = np.rint(np.arange(g.shape[1]) * (SECOND_US / max(hz, g.shape[1]))).astype(np.int64)
    return Samples((second + within).ravel(), g.reshape(-1, 3), hz)


def _wide(raw: np.ndarray) -> Float32:
    per = raw.shape[1] // 6
    values = np.ascontiguousarray(raw[:, : per * 6]).view("<i2")
    return np.asarray(values.reshape(-1, per, 3), np.float32)


def _packed(raw: np.ndarray) -> Float32:
    """Return [records, samples, 3] of 12 bits an axis, the first bits of a byte its highest."""
    per = raw.shape[1] * 8 // 36
    bits = np.unpackbits(raw, axis=1)[:, : per * 36].reshape(len(raw), per, 3, 12)
    values = bits.astype(np.int32) @ (1 << np.arange(11, -1, -1, dtype=np.int32))
    signed = values - (values >= 2048) * 4096
    return np.asarray(signed[..., [1, 0, 2]], np.float32)
