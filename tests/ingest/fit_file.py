"""Writes FIT files, message by message, after Garmin's description of the protocol."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime

EPOCH = datetime(1989, 12, 31)
_KINDS = {"enum": (0x00, "B"), "uint8": (0x02, "B"), "uint16": (0x84, "H"), "uint32": (0x86, "I")}
_KINDS |= {"byte": (0x0D, "B"), "uint32z": (0x8C, "I"), "sint16": (0x83, "h")}
FILE_ID, RECORD, MONITORING, MONITORING_INFO = 0, 20, 55, 103
STRESS, HEART_OF_DAY, SLEEP_LEVEL, NIGHT_HRV = 227, 211, 275, 370
WALKING, RUNNING = 6, 1
Field = tuple[int, str, int]
"""Number in Garmin's profile, type, value."""


def seconds(text: str) -> int:
    """Return an ISO time as FIT's seconds."""
    return int((datetime.fromisoformat(text) - EPOCH).total_seconds())


def at(text: str) -> Field:
    """The time of a message."""
    return (253, "uint32", seconds(text))


def fit(*messages: tuple[int, Sequence[Field]], big: bool = False) -> bytes:
    """Return a file of messages (kind, fields), each behind a definition of its own."""
    order, body = (">", b"") if big else ("<", b"")
    for kind, fields in messages:
        shape = b"".join(
            bytes([n, struct.calcsize(_KINDS[of][1]), _KINDS[of][0]]) for n, of, _ in fields
        )
        body += struct.pack(f"{order}BBBHB", 0x40, 0, big, kind, len(fields)) + shape
        body += b"\x00" + b"".join(struct.pack(order + _KINDS[of][1], v) for _, of, v in fields)
    head = struct.pack("<BBHI4s", 14, 0x20, 21218, len(body), b".FIT")
    whole = head + struct.pack("<H", checksum(head)) + body
    return whole + struct.pack("<H", checksum(whole))


def clock(utc: str, local: str) -> tuple[int, list[Field]]:
    """A message that says what the wall's clock showed."""
    return MONITORING_INFO, [at(utc), (0, "uint32", seconds(local))]


def steps(utc: str, count: int, kind: int = WALKING, *, active_s: int | None = None):
    """A counter's message."""
    fields = [at(utc), (5, "enum", kind), (3, "uint32", count)]
    return MONITORING, fields + ([] if active_s is None else [(4, "uint32", active_s * 1000)])


def watch(serial: int) -> tuple[int, list[Field]]:
    """The message that begins a file."""
    return FILE_ID, [(0, "enum", 32), (3, "uint32z", serial)]


def checksum(text: bytes) -> int:
    """FIT's CRC (the polynomial 0xA001, of CRC-16/ARC)."""
    crc = 0
    for byte in text:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xA001 if crc & 1 else 0)
    return crc


SAMPLE: Mapping[str, bytes] = {
    "day.fit": fit(
        watch(7),
        clock("2020-03-14T06:00:00", "2020-03-14T07:00:00"),
        (MONITORING, [at("2020-03-14T07:00:00"), (27, "uint8", 60)]),
        (MONITORING, [(26, "uint16", seconds("2020-03-14T07:01:00") & 0xFFFF), (27, "uint8", 62)]),
        steps("2020-03-14T07:05:00", 50, active_s=60),
        steps("2020-03-14T07:07:00", 200, active_s=180),
        (STRESS, [(0, "sint16", 30)]),
        (HEART_OF_DAY, [at("2020-03-14T07:10:00"), (1, "uint8", 52)]),
    ),
    "night.fit": fit(
        watch(7),
        (SLEEP_LEVEL, [at("2020-03-14T01:00:00"), (0, "enum", 2)]),
        (SLEEP_LEVEL, [at("2020-03-14T01:02:00"), (0, "enum", 3)]),
        (SLEEP_LEVEL, [at("2020-03-14T01:03:00"), (0, "enum", 1)]),
        (NIGHT_HRV, [at("2020-03-14T06:00:00"), (1, "uint16", 40 * 128)]),
    ),
}
