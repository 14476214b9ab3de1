"""Writes raw files of accelerometers after the makers' descriptions, from units of the device."""

from __future__ import annotations

import io
import struct
import zipfile
from datetime import datetime, timedelta
from functools import reduce
from operator import xor

import numpy as np

START = datetime(2014, 5, 7, 13, 29, 50)


def cwa(units: np.ndarray, hz: int = 100, form: int = 0x32, start: datetime = START) -> bytes:
    """An AX3's (or with `form` 0x62 an AX6's) file of [N, 3] units, 256 in a g."""
    head = struct.pack("<2sHBHIHII", b"MD", 1020, 0x17, 42, 1, 0, 0, 0).ljust(1024, b"\xff")
    per = {0x30: 120, 0x32: 80, 0x62: 40}[form]
    blocks = []
    for number in range(len(units) // per):
        some = units[number * per : (number + 1) * per]
        offset = number * per % hz  # the time is that of a whole second, this many samples before
        at = start + timedelta(seconds=number * per // hz)
        parts = (at.year - 2000, at.month, at.day, at.hour, at.minute, at.second)
        shifts = (26, 22, 17, 12, 6, 0)
        stamp = sum(part << shift for part, shift in zip(parts, shifts, strict=True))
        rate = {100: 0x4A, 50: 0x49, 25: 0x48}[hz]
        fields = (508, 0, 1, number, stamp, 0, 300, 0, 200, rate, form, -offset, per)
        block = struct.pack("<2sHHIIIHHBBBBhH", b"AX", *fields) + _data(some, form).ljust(
            480, b"\0"
        )
        words = np.frombuffer(block, "<u2").astype(np.int64)
        blocks.append(block + struct.pack("<H", -int(words.sum()) & 0xFFFF))
    return head + b"".join(blocks)


def _data(units: np.ndarray, form: int) -> bytes:
    if form == 0x62:
        units = np.concatenate([np.full_like(units, 7), units], axis=1)
    if form != 0x30:
        return units.astype("<i2").tobytes()
    shift = np.maximum(np.ceil(np.log2((np.abs(units).max(1) + 1) / 512)), 0).astype(np.int64)
    ten = (units >> shift[:, None]) & 0x3FF
    words = ten[:, 0] | ten[:, 1] << 10 | ten[:, 2] << 20 | shift << 30
    return words.astype("<u4").tobytes()


def gt3x(units: np.ndarray, hz: int = 30, *, wide: bool = False, start: datetime = START) -> bytes:
    """A file of [N, 3] units (x, y, z), 256 in a g, with records that say nothing of movement."""
    epoch = int((start - datetime(1970, 1, 1)).total_seconds())
    log = _record(6, epoch, b"{}") + _record(2, epoch, b"\x10\x10")
    for second in range(len(units) // hz):
        some = units[second * hz : (second + 1) * hz]
        payload = some.astype("<i2").tobytes() if wide else _twelve_bits(some[:, [1, 0, 2]])
        log += _record(26 if wide else 0, epoch + second, payload)
    info = f"Serial Number: MOS2A00\nSample Rate: {hz}\nAcceleration Scale: 256.0\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as whole:
        whole.writestr("info.txt", info)
        whole.writestr("log.bin", log)
    return packed.getvalue()


def _twelve_bits(units: np.ndarray) -> bytes:
    bits = ((units.reshape(-1, 1) & 0xFFF) >> np.arange(11, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def _record(kind: int, second: int, payload: bytes) -> bytes:
    record = struct.pack("<BBIH", 0x1E, kind, second, len(payload)) + payload
    return record + bytes([~reduce(xor, record) & 0xFF])


def geneactiv(units: np.ndarray, hz: int = 100, start: datetime = START) -> bytes:
    """A file of [N, 3] units, 256 in a g, in pages of 300 samples."""
    lines = ["Device Identity", "Device Unique Serial Code:012967", "Device Type:GENEActiv", ""]
    lines += ["Calibration Data"]
    lines += [
        f"{axis} {what}:{n}" for axis in "xyz" for what, n in (("gain", 25600), ("offset", 0))
    ]
    for page in range(len(units) // 300):
        some = units[page * 300 : (page + 1) * 300] & 0xFFF
        digits = "".join(f"{x:03X}{y:03X}{z:03X}000" for x, y, z in some.tolist())
        at = start + timedelta(seconds=page * 300 / hz)
        clock = f"{at:%Y-%m-%d %H:%M:%S}:{at.microsecond // 1000:03d}"
        lines += ["Recorded Data", "Device Unique Serial Code:012967", f"Sequence Number:{page}"]
        lines += [f"Page Time:{clock}", "Unassigned:", "Temperature:25.4", "Battery voltage:4.1"]
        lines += ["Device Status:Recording", f"Measurement Frequency:{hz}.0", digits]
    return ("\r\n".join(lines) + "\r\n").encode()


def lying(seconds: int, hz: int, z: int = 384) -> np.ndarray:
    """[N, 3] units of a device that feels `z` along its third axis, and shakes along its first."""
    units = np.zeros((seconds * hz, 3), np.int64)
    units[:, 2] = z
    units[::7, 0] = 30
    return units
