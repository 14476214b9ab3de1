"""Statistics of round 0 as sums that hide which site has which code.

Codes, columns of panels and channels are known at the sites only. A first session counts the
distinct keys of all sites, a second adds up tables of them (`bloom_table`) in which the names
themselves are sums: a name of 48 bytes a chunk, times the number of sites that have it. What comes
out is what `tokens.statistics.merge` makes of the sites' statistics in the clear. The sites'
k-threshold is theirs as before: a code that fewer than k of a site's subjects have is not in its
table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from healthfm_core.arrays import Int64, UInt32, UInt64
from healthfm_core.errors import ProtocolError
from healthfm_core.federation.secure.bloom_table import (
    Entries,
    InvertibleBloomTable,
    distinct,
    occupied,
)
from healthfm_core.modalities.registry import modality_names
from healthfm_core.tokens import values
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.values import Sketch

CODES: Final = "codes"
SKETCH: Final = "sketch"
TOTALS: Final = "totals"
BINS: Final = 1 << 17
"""Of the count of distinct keys: half a megabyte, good for half a million keys."""

_WORDS: Final = 8
_CHUNK: Final = 6 * _WORDS
_BY_CODE: Final = ("subjects", "timed_subjects", "visits", "reached")
_BUCKET_SHIFT: Final = 1 << 20
_LIMBS: Final = 3
_LIMB_BITS: Final = 48
_FRACTION_BITS: Final = 64
_OFFSET: Final = 1 << (_LIMBS * _LIMB_BITS - 1)


@dataclass(frozen=True)
class StatisticsLayout:
    """The two tables of a session.

    Attributes:
        codes: Of names and counts.
        sketch: Of buckets.
    """

    codes: InvertibleBloomTable
    sketch: InvertibleBloomTable

    @classmethod
    def for_totals(cls, totals: Mapping[str, UInt32], salt: int) -> StatisticsLayout:
        """Return tables with room for what the first session counted."""
        return cls(
            InvertibleBloomTable.for_keys(distinct(totals[CODES]), _WORDS, salt),
            InvertibleBloomTable.for_keys(distinct(totals[SKETCH]), 1, salt),
        )

    @classmethod
    def of(cls, codes: int, sketch: int, salt: int) -> StatisticsLayout:
        """Return the layout with these cells per part."""
        return cls(InvertibleBloomTable(codes, _WORDS, salt), InvertibleBloomTable(sketch, 1, salt))

    def sizes(self) -> dict[str, tuple[int, str]]:
        """Return array → (length, type)."""
        totals = 2 + 2 + 2 * len(modality_names())
        return {
            CODES: (self.codes.size, "uint64"),
            SKETCH: (self.sketch.size, "uint64"),
            TOTALS: (totals, "uint64"),
        }

    def encode(self, statistics: SiteStatistics, modalities: Collection[str]) -> dict[str, UInt64]:
        """Return the arrays of one site, not masked yet.

        Args:
            statistics: Its statistics.
            modalities: What it takes part with.
        """
        here = [int(name in modalities) for name in modality_names()]
        totals = [
            1,
            *statistics.all_visits,
            *statistics.label_values,
            *statistics.modality_subjects,
            *here,
        ]
        return {
            CODES: self.codes.fill(*_entries_of(_names(statistics))),
            SKETCH: self.sketch.fill(*_sketch_entries(statistics)),
            TOTALS: np.array(totals, np.uint64),
        }

    def decode(self, sums: Mapping[str, UInt64]) -> tuple[SiteStatistics, dict[str, int], int]:
        """Return the statistics of all sites, how many have each modality, how many there are.

        Raises:
            ProtocolError: The sums are not of such tables (HF-402).
        """
        sites, totals = int(sums[TOTALS][0]), sums[TOTALS][1:].astype(np.int64)
        named = _read_names(self.codes.entries(sums[CODES]))
        names = modality_names()
        n = len(names)
        holders = {name: int(k) for name, k in zip(names, totals[3 + n :], strict=True)}
        sketch = self.sketch.entries(sums[SKETCH])
        merged = _assemble(named, sketch, totals[:1], totals[1:3], totals[3 : 3 + n])
        return merged, holders, sites


def marks(statistics: SiteStatistics, salt: int) -> dict[str, UInt32]:
    """Return one site's arrays of the first session: where its keys fall."""
    return {
        CODES: occupied(_entries_of(_names(statistics))[0], BINS, salt),
        SKETCH: occupied(_sketch_entries(statistics)[0], BINS, salt),
    }


def mark_sizes() -> dict[str, tuple[int, str]]:
    """Return array → (length, type) of the first session."""
    return {CODES: (BINS, "uint32"), SKETCH: (BINS, "uint32")}


def _names(statistics: SiteStatistics) -> Iterator[tuple[str, list[int]]]:
    """Yield the text that names each code, parent, panel column and channel, and its counts."""
    for i, code in enumerate(statistics.codes):
        yield _text("code", code), [int(getattr(statistics, name)[i]) for name in _BY_CODE]
    for pair in statistics.lineage:
        yield _text("lineage", *pair), []
    for i, column in enumerate(statistics.panel):
        yield _text("panel", column), [int(statistics.panel_subjects[i])]
    for i, channel in enumerate(statistics.channels):
        sums = (statistics.channel_sum[i], statistics.channel_square[i])
        limbs = [limb for value in sums for limb in _limbs(float(value))]
        name = _text("channel", *channel, float(statistics.channel_hz[i]))
        yield name, [int(statistics.channel_subjects[i]), *limbs]


def _text(*parts: str | float) -> str:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def _limbs(value: float) -> list[int]:
    """Return a real number as three words whose sums over sites do not wrap."""
    numerator, denominator = value.as_integer_ratio()
    units = (numerator << _FRACTION_BITS) // denominator + _OFFSET
    return [units >> (_LIMB_BITS * i) & ((1 << _LIMB_BITS) - 1) for i in range(_LIMBS)]


def _from_limbs(limbs: UInt64, sites: int) -> float:
    units = sum(int(limb) << (_LIMB_BITS * i) for i, limb in enumerate(limbs))
    return (units - sites * _OFFSET) / (1 << _FRACTION_BITS)


def _entries_of(named: Iterator[tuple[str, list[int]]]) -> tuple[UInt64, UInt64]:
    """Return keys and values: for each name its counts, then its chunks."""
    keys, rows = [], []
    for text, counts in named:
        data, name = text.encode(), _name_words(text)
        keys.append([*name, 0])
        rows.append([len(data), *counts, *[0] * (_WORDS - 1 - len(counts))])
        for i, start in enumerate(range(0, len(data), _CHUNK), start=1):
            chunk = data[start : start + _CHUNK].ljust(_CHUNK, b"\0")
            keys.append([*name, i])
            rows.append([int.from_bytes(chunk[j : j + 6], "big") for j in range(0, _CHUNK, 6)])
    return _words(keys, 3), _words(rows, _WORDS)


def _words(rows: list[list[int]], width: int) -> UInt64:
    return np.array(rows, np.uint64).reshape(len(rows), width)


def _name_words(text: str) -> tuple[int, int]:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:6], "big"), int.from_bytes(digest[6:12], "big")


def _sketch_entries(statistics: SiteStatistics) -> tuple[UInt64, UInt64]:
    names = _words([[*_name_words(_text("code", code))] for code in statistics.codes], 2)
    bucket = (statistics.sketch.bucket.astype(np.int64) + _BUCKET_SHIFT).astype(np.uint64)
    key = np.concatenate([names[statistics.sketch.code], bucket[:, None]], axis=1)
    return key, statistics.sketch.count.astype(np.uint64)[:, None]


_ChannelSums = tuple[int, float, float, float, int]
"""Subjects, sum, sum of squares, highest rate, sites."""


@dataclass(frozen=True)
class _Named:
    """A name and its sums: [sites, counts …]."""

    parts: list[Any]
    sites: int
    sums: UInt64


def _read_names(entries: Entries) -> list[_Named]:
    """Return the names whose chunks and counts are in a table.

    Raises:
        ProtocolError: A chunk is missing or a name's hash is another (HF-402).
    """
    heads = np.flatnonzero(entries.key[:, 2] == 0)
    ends = np.append(heads[1:], len(entries.key))
    return [_read_name(entries, int(at), int(end)) for at, end in zip(heads, ends, strict=True)]


def _read_name(entries: Entries, at: int, end: int) -> _Named:
    sites, chunks = entries.sites[at], entries.value[at + 1 : end]
    data = b"".join(int(word // sites).to_bytes(8, "big")[2:] for word in chunks.reshape(-1))
    data = data[: int(entries.value[at, 0] // sites)]
    try:
        text = data.decode()
        parts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable() from error
    if _name_words(text) != (int(entries.key[at, 0]), int(entries.key[at, 1])):
        raise _unreadable()
    return _Named(parts, int(sites), entries.value[at, 1:])


def _unreadable() -> ProtocolError:
    return ProtocolError(
        402,
        where="federated statistics",
        seen="a name that its hash does not fit",
        wanted="sums of names as sites of this release make them",
    )


def _assemble(
    named: list[_Named],
    sketch: Entries,
    all_visits: Int64,
    label_values: Int64,
    modality_subjects: Int64,
) -> SiteStatistics:
    codes = sorted((n for n in named if n.parts[0] == "code"), key=lambda n: n.parts[1])
    panel = sorted((n for n in named if n.parts[0] == "panel"), key=lambda n: n.parts[1])
    channels = _channels([n for n in named if n.parts[0] == "channel"])
    lineage = {(n.parts[1], n.parts[2]): n.sites for n in named if n.parts[0] == "lineage"}
    by_code = {
        name: np.array([int(n.sums[i]) for n in codes], np.int64) for i, name in enumerate(_BY_CODE)
    }
    return SiteStatistics(
        codes=tuple(n.parts[1] for n in codes),
        **by_code,
        sites=np.array([n.sites for n in codes], np.int64),
        all_visits=all_visits,
        sketch=_read_sketch(sketch, [n.parts[1] for n in codes]),
        panel=tuple(n.parts[1] for n in panel),
        panel_subjects=np.array([int(n.sums[0]) for n in panel], np.int64),
        panel_sites=np.array([n.sites for n in panel], np.int64),
        channels=tuple(channels),
        channel_subjects=np.array([sums[0] for sums in channels.values()], np.int64),
        channel_sum=np.array([sums[1] for sums in channels.values()], np.float64),
        channel_square=np.array([sums[2] for sums in channels.values()], np.float64),
        channel_hz=np.array([sums[3] for sums in channels.values()], np.float64),
        channel_sites=np.array([sums[4] for sums in channels.values()], np.int64),
        modality_subjects=modality_subjects,
        label_values=label_values,
        lineage=tuple(sorted(lineage)),
        lineage_sites=np.array([lineage[pair] for pair in sorted(lineage)], np.int64),
    )


def _channels(named: list[_Named]) -> dict[tuple[str, str], _ChannelSums]:
    """Return the sums of each channel; rates have entries apart."""
    sums_by_channel: dict[tuple[str, str], _ChannelSums] = {}
    for n in named:
        _, device, channel, hz = n.parts
        before = sums_by_channel.get((device, channel), (0, 0.0, 0.0, 0.0, 0))
        sums_by_channel[device, channel] = (
            before[0] + int(n.sums[0]),
            before[1] + _from_limbs(n.sums[1 : 1 + _LIMBS], n.sites),
            before[2] + _from_limbs(n.sums[1 + _LIMBS :], n.sites),
            max(before[3], float(hz)),
            before[4] + n.sites,
        )
    return dict(sorted(sums_by_channel.items()))


def _read_sketch(entries: Entries, codes: list[str]) -> Sketch:
    place = {_name_words(_text("code", code)): i for i, code in enumerate(codes)}
    try:
        code = [place[int(first), int(second)] for first, second, _ in entries.key]
    except KeyError as error:
        raise _unreadable() from error
    bucket = entries.key[:, 2].astype(np.int64) - _BUCKET_SHIFT
    count = entries.value[:, 0].astype(np.int64)
    return values.add([Sketch(np.array(code, np.int32), bucket.astype(np.int32), count)])
