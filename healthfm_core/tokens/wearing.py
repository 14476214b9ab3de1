"""Wearable recordings: moments of their channels, and samples laid out as tokens of windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Bool, Float32, Float64, Int64
from healthfm_core.bounded_parts import in_parts
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.segments import ranges, run_starts
from healthfm_core.data.store.events import coded, ids, times_us
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.data.store.people_blocks import PeopleBlocks
from healthfm_core.errors import ConfigError

_SAMPLES_AT_ONCE: Final = 1 << 22
_TOKENS: Final = 1 << 40
_TOKEN_S: Final = 3600.0
_WINDOW_S: Final = 900.0
"""What a token and a window hold where a study does not say."""
_TOLERANCE: Final = 1e-6
"""Of a device's period, which travels as its inverse."""


@dataclass(frozen=True)
class ChannelSource:
    """Where a store keeps the readings of one of a study's channels, and their scale there.

    Attributes:
        device: Device folder of the stores.
        channel: The channel's name there.
        feature: Its place among the study's channels.
        mean: Of its samples, every subject weighing the same.
        sd: Their standard deviation.
    """

    device: str
    channel: str
    feature: int
    mean: float
    sd: float


@dataclass(frozen=True)
class WearableSpec:
    """What a study reads of wearables: which channels, their scale, how samples become tokens.

    Attributes:
        device: Device folder of the stores; of several, that which most people wear.
        channels: Names of the channels, in the order of the features.
        mean: Mean of each channel, every subject weighing the same.
        sd: Standard deviation of each channel over samples, likewise.
        hz: Samples per second.
        token_s: Seconds of wearing in one token.
        window_s: Seconds in one window, at most `token_s`.
        sources: The channels of every device that is read; () is `device` alone, under its own
            names.
    """

    device: str
    channels: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    hz: float
    token_s: float
    window_s: float
    sources: tuple[ChannelSource, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that are read, the one that most people wear last."""
        others = {source.device for source in self.sources} - {self.device}
        return (*sorted(others), self.device)

    def of_device(self, device: str) -> tuple[ChannelSource, ...]:
        """Return the channels that are read of one device."""
        if self.sources:
            return tuple(source for source in self.sources if source.device == device)
        if device != self.device:
            return ()
        scales = zip(self.channels, self.mean, self.sd, strict=True)
        return tuple(
            ChannelSource(device, name, i, mean, sd) for i, (name, mean, sd) in enumerate(scales)
        )

    @property
    def windows(self) -> int:
        """W, windows per token."""
        return math.ceil(self.token_s / self.window_s - 1e-9)

    @property
    def samples(self) -> int:
        """Samples of one channel per window."""
        return max(1, round(self.window_s * self.hz))

    @property
    def features(self) -> int:
        """F, values per window: channel by channel, each in order of time."""
        return len(self.channels) * self.samples


@dataclass(frozen=True)
class ChannelMoments:
    """Sums over subjects of each channel's mean sample and mean squared sample.

    Every subject weighs the same however long they wear the device, so one subject changes a
    count by 1 and a sum by one reading's size.
    """

    channels: tuple[tuple[str, str], ...]
    subjects: Int64
    sum: Float64
    square: Float64
    hz: Float64
    n_subjects: int


@dataclass(frozen=True)
class _Samples:
    """Observed samples of some recordings, in order."""

    subject: Int64
    channel: Int64
    time_us: Int64
    value: Float32 | Float64


@dataclass(frozen=True)
class WearableTokens:
    """H tokens of a store, sorted by subject and time; shapes as in `data.sequences`."""

    subject: Int64
    end_us: Int64
    value: Float32
    observed: Bool


def wearing_spans(device: str, hz: float, config: TokensConfig) -> tuple[float, float]:
    """Return the seconds of a token and of a window: those asked for, or what suits the device.

    Args:
        device: Its name, for the sentence.
        hz: Its samples per second.
        config: What is asked for.

    Raises:
        ConfigError: A window or a token would hold no sample, or a window more than a token
            (HF-103).
    """
    period_s = 1 / hz
    token_s, window_s = config.wearable_token_s, config.wearable_window_s
    for name, span_s in (("wearable_token_s", token_s), ("wearable_window_s", window_s)):
        if span_s is not None and span_s < period_s * (1 - _TOLERANCE):
            raise ConfigError(
                103,
                where=f"tokens.{name}={span_s:g}",
                seen=f'device "{device}" gives one sample every {period_s:g} s',
                wanted="at least one sample in each",
                do=f"Write tokens.{name}={period_s:g} or more, or leave it out",
            )
    token_s = max(_TOKEN_S, period_s, window_s or 0.0) if token_s is None else token_s
    window_s = min(max(_WINDOW_S, period_s), token_s) if window_s is None else window_s
    if window_s > token_s:
        raise ConfigError(
            103,
            where=f"tokens.wearable_window_s={window_s:g}",
            seen=f"a token is {token_s:g} s",
            wanted="a window is at most a token",
            do=f"Write tokens.wearable_token_s={window_s:g} or more, or a shorter window",
        )
    return token_s, window_s


def channel_moments(store: StoreView, device: str | None, split: str | None) -> ChannelMoments:
    """Return the moments of every channel of a device in one store, of all its devices for None."""
    with PeopleBlocks(store, split) as blocks:
        moments = MomentsOfPeople(blocks.subjects, device)
        for people in blocks:
            moments.add(people)
    return moments.total()


class MomentsOfPeople:
    """Moments of the channels of one store, of whose people some are looked at at a time.

    Args:
        subjects: [S] everyone, ascending.
        device: The device that is asked for; None is all.
    """

    def __init__(self, subjects: Int64, device: str | None) -> None:
        self._subjects, self._device = subjects, device
        self._means: dict[str, list[_Means]] = {}

    def add(self, store: StoreView) -> None:
        """Add some of the people, with all that they wore."""
        for name in store.devices:
            if self._device in (None, name):
                table = store.wearable(name)
                if table.num_rows:
                    self._means.setdefault(name, []).append(_Means.of(table, self._subjects))

    def total(self) -> ChannelMoments:
        """Return the moments of all that was added."""
        worn = [np.concatenate([one.subject for one in of]) for of in self._means.values()]
        everyone = len(np.unique(np.concatenate([np.zeros(0, np.int64), *worn])))
        parts = [self._of_device(name) for name in sorted(self._means)]
        return replace(total_moments(parts), n_subjects=everyone)

    def _of_device(self, name: str) -> ChannelMoments:
        parts = self._means[name]
        channels = sorted({channel for part in parts for channel in part.channels})
        mean, square, count = (np.zeros((len(self._subjects), len(channels))) for _ in range(3))
        hz = np.zeros(len(channels))
        for part in parts:
            columns = np.searchsorted(channels, part.channels)
            at = np.ix_(part.subject, columns)
            mean[at], square[at], count[at] = part.mean, part.square, part.count
            np.maximum.at(hz, columns, part.hz)
        return ChannelMoments(
            channels=tuple((name, channel) for channel in channels),
            subjects=(count > 0).sum(0).astype(np.int64),
            sum=mean.sum(0),
            square=square.sum(0),
            hz=hz,
            n_subjects=int((count > 0).any(1).sum()),
        )


@dataclass(frozen=True)
class _Means:
    """What some people wore of one device, each one's samples as a mean.

    Attributes:
        subject: [W] indices of the people who have a sample.
        channels: K names.
        count: [W, K] samples.
        mean: [W, K] of their samples, 0 without any.
        square: [W, K] mean of their squared samples.
        hz: [K] the highest sampling rate.
    """

    subject: Int64
    channels: tuple[str, ...]
    count: Float64
    mean: Float64
    square: Float64
    hz: Float64

    @classmethod
    def of(cls, table: pa.Table, subjects: Int64) -> Self:
        """Return them of the people in a table, which is by subject."""
        channels, channel_row = _channels(table)
        wearers = np.unique(ids(table))
        size = len(wearers) * len(channels)
        count, total, square = (np.zeros(size) for _ in range(3))
        for samples in _chunks(table, wearers, channel_row):
            at = samples.subject * len(channels) + samples.channel
            reading = samples.value.astype(np.float64)
            count += np.bincount(at, minlength=size)
            total += np.bincount(at, reading, minlength=size)
            square += np.bincount(at, reading * reading, minlength=size)
        hz = np.zeros(len(channels))
        np.maximum.at(hz, channel_row, np.asarray(table.column("hz").to_numpy()))
        shape, each = (len(wearers), len(channels)), np.maximum(count, 1)
        counts = count.reshape(shape)
        seen = counts.any(axis=1)
        return cls(
            np.searchsorted(subjects, wearers)[seen],
            channels,
            counts[seen],
            (total / each).reshape(shape)[seen],
            (square / each).reshape(shape)[seen],
            hz,
        )


def total_moments(parts: Sequence[ChannelMoments]) -> ChannelMoments:
    """Return the sum over a site's stores, which share no subject."""
    channels = tuple(sorted({channel for part in parts for channel in part.channels}))
    index = {channel: i for i, channel in enumerate(channels)}
    subjects = np.zeros(len(channels), np.int64)
    total, square, hz = (np.zeros(len(channels)) for _ in range(3))
    for part in parts:
        at = np.array([index[channel] for channel in part.channels], np.int64)
        np.add.at(subjects, at, part.subjects)
        np.add.at(total, at, part.sum)
        np.add.at(square, at, part.square)
        np.maximum.at(hz, at, part.hz)
    everyone = sum(part.n_subjects for part in parts)
    return ChannelMoments(channels, subjects, total, square, hz, everyone)


def _channels(table: pa.Table) -> tuple[tuple[str, ...], Int64]:
    """Return the channels by name, and each row's index among them."""
    row, names = coded(table["channel"])
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return tuple(names[i] for i in order), rank[row]


def _chunks(table: pa.Table, subjects: Int64, channel_row: Int64) -> Iterator[_Samples]:
    """Yield the observed samples, of some people at a time; channel -1 is left out.

    Nobody's samples are in two of them, so that sums over a person do not depend on who else is in
    the table, which is by subject.
    """
    lengths = np.asarray(table.column("value").combine_chunks().value_lengths().fill_null(0))
    first = np.flatnonzero(run_starts(ids(table)))
    sizes = np.add.reduceat(lengths.astype(np.int64), first) if len(first) else first
    rows = np.append(first, table.num_rows)
    for low, high in in_parts(sizes, _SAMPLES_AT_ONCE):
        part = slice(int(rows[low]), int(rows[high]))
        some = table.slice(part.start, part.stop - part.start)
        yield _samples(some, subjects, channel_row[part])


def _samples(table: pa.Table, subjects: Int64, channel_row: Int64) -> _Samples:
    values = table.column("value").combine_chunks()
    lengths = np.asarray(values.value_lengths().fill_null(0)).astype(np.int64)
    value = np.asarray(values.flatten().fill_null(np.nan).to_numpy(zero_copy_only=False))
    mask = table.column("mask").combine_chunks().flatten().fill_null(False)
    observed = np.asarray(mask.to_numpy(zero_copy_only=False), np.bool_) & np.isfinite(value)
    observed &= np.repeat(channel_row >= 0, lengths)
    kept = np.flatnonzero(observed)
    row = np.repeat(np.arange(table.num_rows), lengths)[kept]
    step = ranges(np.zeros(len(lengths), np.int64), lengths)[kept]
    period_us = 1e6 / np.asarray(table.column("hz").to_numpy())
    subject = np.searchsorted(subjects, ids(table))
    start = times_us(table, "start")
    return _Samples(
        subject=subject.astype(np.int64)[row],
        channel=channel_row[row],
        time_us=start[row] + np.rint(step * period_us[row]).astype(np.int64),
        value=value[kept].astype(np.float32),
    )


def wearable_tokens(store: StoreView, spec: WearableSpec, split: str | None) -> WearableTokens:
    """Return the store's recordings as tokens of `spec.token_s`, aligned to the epoch.

    A sample goes to the token, window and slot its own time falls into; of two samples in one slot
    the later one is kept, of two devices that of the one that most people of the study wear; a slot
    without a sample stays 0 and unobserved. Only tokens with an observed sample exist. Channels and
    devices that the study does not have are left out.
    """
    held = [name for name in spec.devices if name in store.devices]
    tables = [(name, store.wearable(name, split)) for name in held]
    subjects = np.asarray(store.subjects(split), np.int64)
    recordings = [_Recording.of(name, table, spec) for name, table in tables if table.num_rows]
    if not recordings:
        return _laid_out(np.empty(0, np.int64), np.empty(0, np.int64), (), spec)
    keys = [np.unique(_token_keys(s, spec)) for one in recordings for s in one.samples(subjects)]
    every = np.unique(np.concatenate(keys))
    subject, number = np.divmod(every, _TOKENS)
    places = (
        (np.searchsorted(every, _token_keys(samples, spec)), samples)
        for one in recordings
        for samples in one.samples(subjects)
    )
    return _laid_out(subject, (number - _TOKENS // 2 + 1) * _token_us(spec), places, spec)


@dataclass(frozen=True)
class _Recording:
    """One device's rows, and what the study reads of each of its channels.

    Attributes:
        table: The rows.
        source: [R] which of `sources` each row is of, -1 for none.
        sources: What is read of the device.
    """

    table: pa.Table
    source: Int64
    sources: tuple[ChannelSource, ...]

    @classmethod
    def of(cls, device: str, table: pa.Table, spec: WearableSpec) -> _Recording:
        """Return a device's rows with what the study reads of them."""
        sources = spec.of_device(device)
        index = {source.channel: i for i, source in enumerate(sources)}
        channels, row = _channels(table)
        return cls(table, np.array([index.get(c, -1) for c in channels], np.int64)[row], sources)

    def samples(self, subjects: Int64) -> Iterator[_Samples]:
        """Yield the observed samples, standardised, by the study's channels."""
        mean, sd = (np.array([getattr(s, name) for s in self.sources]) for name in ("mean", "sd"))
        feature = np.array([source.feature for source in self.sources], np.int64)
        for found in _chunks(self.table, subjects, self.source):
            value = (found.value - mean[found.channel]) / sd[found.channel]
            yield replace(found, channel=feature[found.channel], value=value)


def _token_us(spec: WearableSpec) -> int:
    return round(spec.token_s * 1e6)


def _token_keys(samples: _Samples, spec: WearableSpec) -> Int64:
    """Return a number per sample that stands for its subject and token, in their order."""
    return samples.subject * _TOKENS + (samples.time_us // _token_us(spec) + _TOKENS // 2)


def _laid_out(
    subject: Int64, end_us: Int64, places: Iterable[tuple[Int64, _Samples]], spec: WearableSpec
) -> WearableTokens:
    """Write samples, given with the token each belongs to, into [H, W, F] arrays.

    A later one of `places` stands where an earlier one stood.
    """
    per_window, window_us = spec.samples, spec.window_s * 1e6
    shape = (len(subject), spec.windows, spec.features)
    value, observed = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    flat, seen = value.reshape(-1), observed.reshape(-1)
    for token, samples in places:
        within = samples.time_us % _token_us(spec)
        window = np.minimum((within // window_us).astype(np.int64), spec.windows - 1)
        slot = ((within - window * window_us) * (per_window / window_us)).astype(np.int64)
        slot = samples.channel * per_window + np.minimum(slot, per_window - 1)
        at = (token * spec.windows + window) * spec.features + slot
        flat[at] = samples.value
        seen[at] = True
    return WearableTokens(subject, end_us, value, observed)
