"""What each site's line, computer and clock can do: drawn from the run's seed, or from a trace."""

from __future__ import annotations

import bisect
import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from healthfm_core.config.network import NetworkConfig, SiteSpread
from healthfm_core.errors import ConfigError
from healthfm_core.seeding import numpy_generator

MOST_AHEAD_S: Final = 10.0
MOST_BEHIND_S: Final = 300.0
"""A site whose clock is further off than that is refused (Flower's own limits)."""

_SEGMENT_BITS: Final = 1460 * 8
"""Of TCP, without its headers."""

_NO_LINE: Final = 1e9
"""Megabits a second of what does not travel."""

_COLUMNS: Final = ("down_mbit_s", "up_mbit_s", "latency_ms", "loss", "steps_per_s", "online")


@dataclass(frozen=True)
class LineValues:
    """What holds at one site for a while.

    Attributes:
        down_mbit_s: What it gets, megabits a second.
        up_mbit_s: What it can send.
        latency_ms: There and back.
        loss: Share of packets that are lost.
        steps_per_s: Local training steps of its computer.
        online: Whether it is connected at all.
    """

    down_mbit_s: float
    up_mbit_s: float
    latency_ms: float
    loss: float
    steps_per_s: float
    online: bool = True

    def bits_per_s(self, *, up: bool) -> float:
        """Return what one connection carries: the line, or what TCP makes of it where it loses.

        Mathis, Semke, Mahdavi and Ott (1997): a segment over the time there and back, times
        √(3/2p).
        """
        line = 1e6 * (self.up_mbit_s if up else self.down_mbit_s)
        if not self.online:
            return 0.0
        if self.loss == 0 or self.latency_ms == 0:
            return line
        slowed = _SEGMENT_BITS / (self.latency_ms / 1000) * math.sqrt(1.5 / self.loss)
        return min(line, slowed)


@dataclass(frozen=True)
class SiteConnection:
    """One site.

    Attributes:
        at_s: From when each of `values` holds, ascending, the first 0.
        values: What holds then.
        zone_h: Its clock's hours ahead of UTC.
        clock_error_s: How far its clock is ahead; below 0: behind.
    """

    at_s: tuple[float, ...]
    values: tuple[LineValues, ...]
    zone_h: float = 0.0
    clock_error_s: float = 0.0

    def at(self, now_s: float) -> LineValues:
        """Return what holds at a moment."""
        return self.values[max(0, bisect.bisect_right(self.at_s, now_s) - 1)]

    def next_change_s(self, now_s: float) -> float:
        """Return when something else holds; infinity where nothing will."""
        place = bisect.bisect_right(self.at_s, now_s)
        return self.at_s[place] if place < len(self.at_s) else math.inf

    def without_line(self) -> SiteConnection:
        """Return the same computer without a line."""
        values = [
            replace(v, down_mbit_s=_NO_LINE, up_mbit_s=_NO_LINE, latency_ms=0.0, loss=0.0)
            for v in self.values
        ]
        return replace(self, values=tuple(values), clock_error_s=0.0)

    @property
    def is_refused(self) -> bool:
        """Whether its clock is so far off that the coordinator refuses it."""
        return not -MOST_BEHIND_S <= self.clock_error_s <= MOST_AHEAD_S


def site_connections(
    config: NetworkConfig, sites: Sequence[str], seed: int
) -> dict[str, SiteConnection]:
    """Return site → its line.

    Args:
        config: The network's settings.
        sites: Names.
        seed: The run's. A site's values follow from it and from the site's name alone.

    Raises:
        ConfigError: The trace is not there, or cannot be used (HF-102).
    """
    drawn = {site: _drawn(config, site, seed) for site in sites}
    if config.trace is None:
        return drawn
    return _traced(read_trace(Path(config.trace)), drawn, seed)


def of_one_site(config: NetworkConfig) -> NetworkConfig:
    """Return the settings of a site that trains alone: nothing travels and nothing is lost."""
    return config.model_copy(update={"idle_s": 0.0, "dropout": 0.0, "coordinator_mbit_s": _NO_LINE})


def _drawn(config: NetworkConfig, site: str, seed: int) -> SiteConnection:
    chance = numpy_generator(seed, "network", site)

    def of(spread: SiteSpread) -> float:
        return float(spread.median * spread.factor ** chance.standard_normal())

    values = LineValues(
        of(config.down_mbit_s),
        of(config.up_mbit_s),
        of(config.latency_ms),
        config.loss,
        of(config.steps_per_s),
    )
    west, east = config.time_zones
    zone_h = float(chance.uniform(west, east))
    return SiteConnection((0.0,), (values,), zone_h, float(config.clock_error_s * chance.normal()))


TraceRows = Mapping[str, Sequence[tuple[float, Mapping[str, float]]]]
"""Site → its rows in order: from when, and column → value."""


def read_trace(path: Path) -> TraceRows:
    """Return a trace's rows by site.

    Raises:
        ConfigError: HF-102.
    """
    rows: dict[str, list[tuple[float, dict[str, float]]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames or ())
            for number, row in enumerate(reader, start=2):
                at_s, values = _numbers(path, number, row)
                rows.setdefault(str(row["site"]), []).append((at_s, values))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unusable(path, "it cannot be read") from error
    if not rows:
        raise _unusable(path, "it has no rows")
    return {site: sorted(own, key=lambda one: one[0]) for site, own in rows.items()}


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if not {"site", "at_s"} <= set(columns):
        raise _unusable(path, f"its columns are {', '.join(columns)[:200] or 'none'}")
    strange = sorted(set(columns) - {"site", "at_s", *_COLUMNS})
    if strange:
        raise _unusable(path, f"it has a column {strange[0][:50]!r}")


def _numbers(path: Path, number: int, row: Mapping[str, str]) -> tuple[float, dict[str, float]]:
    values: dict[str, float] = {}
    for column in ("at_s", *_COLUMNS):
        text = row.get(column) or ""
        try:
            value = float(text) if text else math.nan
        except ValueError:
            value = math.inf
        least = 0.0 if column in ("at_s", "loss", "online", "latency_ms") else 1e-6
        most = 1.0 if column in ("loss", "online") else 1e12
        if text and not least <= value <= most:
            raise _unusable(path, f"line {number} has {text[:30]!r} for {column}")
        if text:
            values[column] = value
    return values.pop("at_s", 0.0), values


def _traced(
    rows: TraceRows, drawn: Mapping[str, SiteConnection], seed: int
) -> dict[str, SiteConnection]:
    """Return each site with its own rows, or with those of a traced site drawn by chance."""
    lines = {}
    for site, line in drawn.items():
        chance = numpy_generator(seed, "trace", site)
        source = site if site in rows else sorted(rows)[chance.integers(len(rows))]
        at_s, values = [0.0], [line.values[0]]
        for begins_s, found in rows[source]:
            after = replace(values[-1], **cast(dict[str, Any], found))
            after = replace(after, online=bool(after.online))
            if begins_s == at_s[-1]:
                values[-1] = after
            else:
                at_s.append(begins_s)
                values.append(after)
        lines[site] = replace(line, at_s=tuple(at_s), values=tuple(values))
    return lines


def _unusable(path: Path, seen: str) -> ConfigError:
    return ConfigError(
        102,
        where=f"network.trace={path}",
        seen=seen,
        wanted=f"a CSV table with the columns site, at_s and any of {', '.join(_COLUMNS)}; loss "
        "and online are from 0 to 1, the others above 0",
        do="Correct the table, or leave network.trace out",
    )
