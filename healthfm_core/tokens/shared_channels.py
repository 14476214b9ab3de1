"""Which wearables train together: channels of different devices that mean the same.

A Fitbit's steps and a watch's are steps, so that people of both are read as one channel. How much
somebody moved stands in another unit on every device (milli-g, counts, Fitbit's levels): it is read
in standard deviations of what that device's wearers have
(docs/decisions/0050-devices-share-channels.md). Devices of one rate train together; of one with
another rate only what is a level at a moment is read, glucose or heart rate, since steps in a
minute are not those in an hour. What is left out is told the coordinator before round 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Int64
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.wearing import ChannelSource, WearableSpec, wearing_spans

ACTIVITY: Final = "ACTIVITY"
"""How much somebody moved, on each device's own scale."""
SHARED: Final[Mapping[str, str]] = dict.fromkeys(
    ("INTENSITY", "ACCELERATION", "COUNTS", "MET", "log_activity"), ACTIVITY
)
"""Channel of a device → that of a study of several; others keep their name, which says their unit:
HR in beats/min, STEPS a minute, SLEEP as a level, GLUCOSE in mg/dL."""
LEVELS: Final = frozenset({"GLUCOSE", "HR", "SPO2"})
"""Channels that say the same at any rate: a state at a moment, no sum over the time of a sample."""
_SAME_RATE: Final = 1e-3
_SLOW_HZ: Final = (1 - _SAME_RATE) / 3600


@dataclass(frozen=True)
class DeviceUse:
    """What a study does with the devices of its sites.

    Attributes:
        read: Device → the study's channels that it has.
        left_out: Device, with its channels in brackets where others of it are read → why not.
    """

    read: Mapping[str, Sequence[str]]
    left_out: Mapping[str, str]

    def sentence(self) -> str:
        """Return which devices train together and which do not, '' where there is one."""
        if len(self.read) + len(self.left_out) < 2:
            return ""
        of = ", ".join(f"{name} ({', '.join(what)})" for name, what in sorted(self.read.items()))
        not_read = "".join(f"; {name}: {why}" for name, why in sorted(self.left_out.items()))
        return f"Wearables: {of}{not_read}"


def study_wearable(merged: SiteStatistics, config: TokensConfig) -> WearableSpec | None:
    """Return what is read of wearables, None without samples.

    It is the configured device alone if there is one, else the device that most people wear, every
    other one of its rate, and the levels of any that has a sample in each window. Whoever wears it
    by the minute often has totals of days too, and a few more people have these alone: people of a
    device slower than an hour count half.

    Raises:
        ConfigError: HF-103, see `wearing_spans`.
    """
    worn = _worn(merged, config.device)
    if not worn:
        return None
    slow = {name: _hz(merged, name) < _SLOW_HZ for name in worn}
    device = min(worn, key=lambda name: (-worn[name] * (1 if slow[name] else 2), name))
    hz = _hz(merged, device)
    token_s, window_s = wearing_spans(device, hz, config)
    rows = {name: _readable(merged, name, hz, window_s) for name in sorted(worn)}
    rows = {name: found for name, found in rows.items() if found}
    if len(rows) > 1:
        return _shared(merged, rows, (device, hz, token_s, window_s))
    at = _rows(merged, device)
    mean, sd = _scale(merged, [[i] for i in at])
    return WearableSpec(
        device=device,
        channels=tuple(merged.channels[i][1] for i in at),
        mean=mean,
        sd=sd,
        hz=hz,
        token_s=token_s,
        window_s=window_s,
    )


def device_use(
    merged: SiteStatistics, spec: WearableSpec | None, config: TokensConfig
) -> DeviceUse:
    """Return what becomes of every device that a site let out."""
    names = sorted({name for name, _ in merged.channels})
    if spec is None:
        return DeviceUse({}, {})
    read = {
        name: tuple(spec.channels[source.feature] for source in spec.of_device(name))
        for name in names
        if spec.of_device(name)
    }
    left_out = {n: _why_not(merged, n, spec, config) for n in names if n not in read}
    for name in read:
        if not _is_rate(_hz(merged, name), spec.hz):
            kept = {source.channel for source in spec.of_device(name)}
            missed = sorted({merged.channels[i][1] for i in _rows(merged, name)} - kept)
            if missed:
                left_out[f"{name} ({', '.join(missed)})"] = _why_not(merged, name, spec, config)
    return DeviceUse(read, left_out)


def features_of(
    channels: Sequence[tuple[str, str]], spec: WearableSpec | None
) -> dict[tuple[str, str], str | None]:
    """Return pair (device, channel) → the study's channel that it is read as, None for none."""
    names = () if spec is None else spec.channels
    read: dict[tuple[str, str], str] = {}
    for device in {device for device, _ in channels}:
        for source in () if spec is None else spec.of_device(device):
            read[device, source.channel] = names[source.feature]
    return {pair: read.get(pair) for pair in channels}


def features_of_several(
    merged: SiteStatistics,
    each: Sequence[Sequence[tuple[str, str]]],
    spec: WearableSpec | None,
) -> set[str]:
    """Return the study's channels that more than one site has.

    Args:
        merged: The sum of the sites' statistics.
        each: Every site's pairs (device, channel). Where it is empty, since sums hide the sites,
            a channel counts that several have of one device: of two devices they may be one's.
        spec: What the study reads.
    """
    if each:
        sites = Counter(name for own in each for name in {*features_of(own, spec).values()})
        return {name for name, n in sites.items() if name is not None and n > 1}
    read = features_of(merged.channels, spec)
    at = zip(merged.channels, merged.channel_sites.tolist(), strict=True)
    return {name for pair, n in at if n > 1 and (name := read[pair]) is not None}


def _why_not(merged: SiteStatistics, device: str, spec: WearableSpec, config: TokensConfig) -> str:
    if config.device is not None:
        return f"not read, since tokens.device={config.device}"
    period, wanted = (f"{1 / hz:,.6g} s" for hz in (_hz(merged, device), spec.hz))
    return f"not read, a sample every {period} where {spec.device} has one every {wanted}"


def _worn(merged: SiteStatistics, wanted: str | None) -> dict[str, int]:
    """Return device → people with the channel that most of them have."""
    worn: dict[str, int] = {}
    for (device, _), subjects in zip(merged.channels, merged.channel_subjects, strict=True):
        if wanted in (None, device) and subjects > 0:
            worn[device] = max(worn.get(device, 0), int(subjects))
    return worn


def _shared(
    merged: SiteStatistics,
    readable: Mapping[str, Sequence[int]],
    how: tuple[str, float, float, float],
) -> WearableSpec:
    """Return what is read of several devices, given with the rows of their channels."""
    devices = sorted(readable)
    rows = {device: _first_of_each(merged, readable[device]) for device in devices}
    channels = tuple(sorted({name for found in rows.values() for name in found}))
    mean, sd = _scale(
        merged, [[rows[d][name] for d in devices if name in rows[d]] for name in channels]
    )
    sources = []
    for device in devices:
        for name, row in sorted(rows[device].items()):
            feature = channels.index(name)
            scale = (mean[feature], sd[feature])
            if name == ACTIVITY:
                ((own_mean,), (own_sd,)) = _scale(merged, [[row]])
                scale = (own_mean, own_sd)
            sources.append(ChannelSource(device, merged.channels[row][1], feature, *scale))
    device, hz, token_s, window_s = how
    of_activity = channels.index(ACTIVITY) if ACTIVITY in channels else -1
    return WearableSpec(
        device=device,
        channels=channels,
        mean=tuple(0.0 if i == of_activity else one for i, one in enumerate(mean)),
        sd=tuple(1.0 if i == of_activity else one for i, one in enumerate(sd)),
        hz=hz,
        token_s=token_s,
        window_s=window_s,
        sources=tuple(sources),
    )


def _readable(merged: SiteStatistics, device: str, hz: float, window_s: float) -> list[int]:
    """Return the channels of a device that a study of this rate can read, none if it is slow.

    A level of another rate goes to the slots that its samples fall into; the others stay unseen.
    """
    rows, own = _rows(merged, device), _hz(merged, device)
    if _is_rate(own, hz):
        return rows
    if 1 / own > window_s * (1 + _SAME_RATE):
        return []
    return [i for i in rows if merged.channels[i][1] in LEVELS]


def _first_of_each(merged: SiteStatistics, rows: Sequence[int]) -> dict[str, int]:
    """Return a device's channels by what they are called in a study of several."""
    found: dict[str, int] = {}
    for row in rows:
        name = merged.channels[row][1]
        found.setdefault(SHARED.get(name, name), int(row))
    return found


def _rows(merged: SiteStatistics, device: str) -> list[int]:
    return [
        i
        for i, (name, _) in enumerate(merged.channels)
        if name == device and merged.channel_subjects[i] > 0
    ]


def _hz(merged: SiteStatistics, device: str) -> float:
    return float(merged.channel_hz[_rows(merged, device)].max())


def _is_rate(hz: float, wanted: float) -> bool:
    return abs(hz - wanted) <= _SAME_RATE * wanted


def _scale(
    merged: SiteStatistics, rows: Sequence[Sequence[int]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, standard deviation) of channels, each given as the rows that it is made of."""
    place = np.repeat(np.arange(len(rows)), [len(of) for of in rows])
    row: Int64 = np.array([i for of in rows for i in of], np.int64)
    subjects, total, square = (
        np.bincount(place, weights=values[row], minlength=len(rows))
        for values in (merged.channel_subjects, merged.channel_sum, merged.channel_square)
    )
    mean = total / subjects
    sd = np.sqrt(np.maximum(square / subjects - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(sd > 1e-12 * (1 + np.abs(mean)), sd, 1.0).tolist())
