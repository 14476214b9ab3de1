"""Round 0 of a study: the counts, moments and sketches that a site lets out.

Everything is a sum over subjects, so that sites' statistics add up in any order. What fewer than
`k_min` subjects of the site have (a code, a column of a panel, a channel, a modality) is taken out
here, at the site, before anything is sent. Not covered: differential privacy, which needs noise on
top.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Float64, Int64
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.data.store.people_blocks import PeopleBlocks
from healthfm_core.errors import ProtocolError
from healthfm_core.modalities.registry import modality_names, specs
from healthfm_core.tokens import values
from healthfm_core.tokens.code_counts import CodeHolders, CountsOfPeople, PanelHolders, distinct
from healthfm_core.tokens.concept_sets import study_events
from healthfm_core.tokens.records import Events, read_parents
from healthfm_core.tokens.values import Sketch
from healthfm_core.tokens.wearing import ChannelMoments, MomentsOfPeople, total_moments

_Name = TypeVar("_Name", str, tuple[str, str])


@dataclass(frozen=True)
class SiteStatistics:
    """Additive statistics of one site, or of several once merged.

    Attributes:
        codes: C codes in order of name, without births and the values of panels.
        subjects: [C] int64, subjects who have the code.
        timed_subjects: [C] int64, subjects who have it with a time (0: it is static); all who have
            it where fewer than k have it without one.
        visits: [C] int64, visits in which it occurs.
        reached: [C] int64, subjects with records at the sites that let the code out.
        sites: [C] int64, sites that let the code out: 1 in a site's own, and not sent.
        all_visits: [1] int64, visits of whatever kind; 0 where the site has fewer subjects than k.
        sketch: one value per subject of each numeric code, over `codes`.
        panel: P names of the panels' columns (`modalities.registry.column_of`), by name.
        panel_subjects: [P] int64, subjects who have a value of it.
        panel_sites: [P] int64, sites that let it out: 1 in a site's own, and not sent.
        channels: K pairs (device, channel).
        channel_subjects: [K] int64, subjects with an observed sample.
        channel_sum: [K] float64, sum over subjects of the mean of their samples.
        channel_square: [K] float64, sum over subjects of the mean of their squared samples.
        channel_hz: [K] float64, highest sampling rate seen.
        channel_sites: [K] int64, sites that let it out: 1 in a site's own, and not sent.
        modality_subjects: [M] int64, subjects with each of the modalities, in their order.
        label_values: [2] int64, labels of the study's task that are 0 and that are 1; both 0 where
            fewer than k subjects have either.
        lineage: L pairs (code, its parent) of the codes without values that are let out, and of
            what is above them (`lineage.lineage_of`), by name; none where the study asks for none.
        lineage_sites: [L] int64, sites that say so, which have a code at or below it: 1 in a
            site's own, and not sent.
    """

    codes: tuple[str, ...]
    subjects: Int64
    timed_subjects: Int64
    visits: Int64
    reached: Int64
    sites: Int64
    all_visits: Int64
    sketch: Sketch
    panel: tuple[str, ...]
    panel_subjects: Int64
    panel_sites: Int64
    channels: tuple[tuple[str, str], ...]
    channel_subjects: Int64
    channel_sum: Float64
    channel_square: Float64
    channel_hz: Float64
    channel_sites: Int64
    modality_subjects: Int64
    label_values: Int64
    lineage: tuple[tuple[str, str], ...] = ()
    lineage_sites: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return plain numeric arrays for the wire; names travel as UTF-8 bytes of JSON."""
        names = {"codes": self.codes, "panel": self.panel, "channels": self.channels}
        if self.lineage:
            names["lineage"] = self.lineage
        text = json.dumps(names, ensure_ascii=False, separators=(",", ":")).encode()
        return {
            "names": np.frombuffer(text, np.uint8).copy(),
            "sketch_code": self.sketch.code,
            "sketch_bucket": self.sketch.bucket,
            "sketch_count": self.sketch.count,
            **{name: getattr(self, name) for name in _ARRAYS},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> SiteStatistics:
        """Return the statistics that `to_arrays` wrote.

        Raises:
            ProtocolError: HF-402 where an array is missing or does not fit the others.
        """
        try:
            names = json.loads(np.asarray(arrays["names"], np.uint8).tobytes())
            statistics = cls(
                codes=tuple(names["codes"]),
                sites=np.ones(len(names["codes"]), np.int64),
                panel=tuple(names["panel"]),
                panel_sites=np.ones(len(names["panel"]), np.int64),
                channels=tuple((device, channel) for device, channel in names["channels"]),
                channel_sites=np.ones(len(names["channels"]), np.int64),
                lineage=tuple((code, parent) for code, parent in names.get("lineage", ())),
                lineage_sites=np.ones(len(names.get("lineage", ())), np.int64),
                sketch=Sketch(
                    np.asarray(arrays["sketch_code"], np.int32),
                    np.asarray(arrays["sketch_bucket"], np.int32),
                    np.asarray(arrays["sketch_count"], np.int64),
                ),
                **{name: _finite(arrays[name], dtype) for name, dtype in _ARRAYS.items()},
            )
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:
            raise _unfit(f"statistics that cannot be read ({type(error).__name__})") from error
        _check(statistics)
        return statistics

    def check_people(self, n_subjects: int) -> None:
        """Refuse counts of more people than a site has.

        Args:
            n_subjects: How many people it says it has.

        Raises:
            ProtocolError: HF-402.
        """
        for name in _COUNTS_OF_PEOPLE:
            if (getattr(self, name) > n_subjects).any():
                raise _unfit(f"{name} counts more people than the site has")


_COUNTS_OF_PEOPLE: Final = (
    "subjects",
    "timed_subjects",
    "reached",
    "panel_subjects",
    "channel_subjects",
    "modality_subjects",
)
_ARRAYS: Final[dict[str, type[np.generic]]] = {
    "subjects": np.int64,
    "timed_subjects": np.int64,
    "visits": np.int64,
    "reached": np.int64,
    "all_visits": np.int64,
    "panel_subjects": np.int64,
    "channel_subjects": np.int64,
    "channel_sum": np.float64,
    "channel_square": np.float64,
    "channel_hz": np.float64,
    "modality_subjects": np.int64,
    "label_values": np.int64,
}


def _finite(array: npt.NDArray[np.generic], dtype: type[np.generic]) -> Any:
    """Return an array in another type; what is not finite fits none of whole numbers."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    return np.asarray(array, dtype)


def _unfit(seen: str) -> ProtocolError:
    return ProtocolError(
        402,
        where="federated statistics",
        seen=seen,
        wanted="arrays of one length per code, panel column and channel, finite and not negative",
    )


def _check(statistics: SiteStatistics) -> None:
    lengths = {
        "subjects": statistics.codes,
        "panel": statistics.panel,
        "channel": statistics.channels,
    }
    by_code = ("subjects", "timed_subjects", "visits", "reached")
    sizes = dict.fromkeys(by_code, len(lengths["subjects"]))
    sizes |= {"panel_subjects": len(statistics.panel), "modality_subjects": len(modality_names())}
    sizes |= {"all_visits": 1, "label_values": 2}
    if not all(isinstance(name, str) for pair in statistics.lineage for name in pair):
        raise _unfit("lineage has what is no name")
    if len({code for code, _ in statistics.lineage}) < len(statistics.lineage):
        raise _unfit("lineage names two parents of one code")
    for name in _ARRAYS:
        size = sizes.get(name, len(statistics.channels))
        array = getattr(statistics, name)
        if array.shape != (size,) or not np.isfinite(array).all():
            raise _unfit(f"{name} has shape {array.shape}, or a value that is not finite")
        if name != "channel_sum" and (array < 0).any():
            raise _unfit(f"{name} has a negative count")
    code, bucket, count = statistics.sketch.code, statistics.sketch.bucket, statistics.sketch.count
    if not len(code) == len(bucket) == len(count) or (count < 0).any():
        raise _unfit("the sketch's arrays differ in length, or a count is negative")
    if len(code) and (code.min() < 0 or code.max() >= len(statistics.codes)):
        raise _unfit("the sketch has a code without a name")


def site_statistics(
    stores: Sequence[StoreView],
    config: TokensConfig,
    split: str | None = "train",
    task: str | None = None,
) -> SiteStatistics:
    """Return what the site's stores let out about a split, with small counts taken out.

    A code that fewer than `k_min` of the site's subjects have is counted as its parent, and so on
    upwards, so that an ancestor that stands for rare codes can enter the vocabulary.

    Args:
        stores: The site's stores, of which no two share a person (`join_stores`).
        config: Thresholds, gaps and devices.
        split: Whose records count; None is everyone.
        task: Label table whose labels are counted too; a store without it has none.
    """
    k = config.k_min
    parents = {c: p for store in stores for c, p in read_parents(store).items()}
    with _Blocks(stores, split, config) as people:
        holders, panels = CodeHolders(k), PanelHolders()
        for events in people.events():
            holders.add(events)
            panels.add(events)
        if config.common_share:
            parents = holders.with_forms(parents)
        counts = CountsOfPeople(holders.counted_as(parents), config)
        for events in people.events():
            counts.add(events)
        worn = people.moments()
    held = holders.people_of_modality
    people_of = [worn.n_subjects if s.form == "samples" else held[s.name] for s in specs()]
    keep = np.flatnonzero(worn.subjects >= k)
    panel, panel_subjects = panels.columns(k)
    return SiteStatistics(
        **counts.total(parents),
        panel=panel,
        panel_subjects=panel_subjects,
        panel_sites=np.ones(len(panel), np.int64),
        channels=tuple(worn.channels[i] for i in keep),
        channel_subjects=worn.subjects[keep],
        channel_sum=worn.sum[keep],
        channel_square=worn.square[keep],
        channel_hz=worn.hz[keep],
        channel_sites=np.ones(len(keep), np.int64),
        modality_subjects=_withheld(np.array(people_of, np.int64), k),
        label_values=_label_values(stores, task, split, k),
    )


class _Blocks(AbstractContextManager["_Blocks"]):
    """The people of a site's stores, some at a time, again and again."""

    def __init__(
        self, stores: Sequence[StoreView], split: str | None, config: TokensConfig
    ) -> None:
        self._files, self._config = ExitStack(), config
        self._blocks = [self._files.enter_context(PeopleBlocks(s, split)) for s in stores]
        self._whole: dict[int, Events] = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()

    def events(self) -> Iterator[Events]:
        """Yield what the study reads; a store that is one block is read once."""
        for number, blocks in enumerate(self._blocks):
            if number in self._whole:
                yield self._whole[number]
                continue
            for people in blocks:
                events = study_events(people, None, self._config)
                if len(blocks) == 1:
                    self._whole[number] = events
                yield events

    def moments(self) -> ChannelMoments:
        """Return the moments of what they wore."""
        each = []
        for blocks in self._blocks:
            moments = MomentsOfPeople(blocks.subjects, self._config.device)
            for people in blocks:
                moments.add(people)
            each.append(moments.total())
        return total_moments(each)


def _label_values(
    stores: Sequence[StoreView], task: str | None, split: str | None, k: int
) -> Int64:
    counts, people = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for store in stores:
        if task is None or task not in store.tasks:
            continue
        labels = store.labels(task)
        subject = labels["subject_id"].to_numpy()
        value = labels["boolean_value"].to_numpy(zero_copy_only=False).astype(np.int64)
        ours = np.isin(subject, store.subjects(split))
        counts += np.bincount(value[ours], minlength=2)
        people += [distinct(subject[ours & (value == which)]) for which in (0, 1)]
    return counts if (people >= k).all() else np.zeros(2, np.int64)


def _withheld(count: Int64, k: int) -> Int64:
    return np.where(count >= k, count, 0)


def _exact_sum(values: Sequence[float]) -> float:
    """Return the sum, rounded once; infinite where no number holds it."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def merge(statistics: Sequence[SiteStatistics]) -> SiteStatistics:
    """Return the sum of sites' statistics over the union of their codes."""
    codes, maps = _union([s.codes for s in statistics])
    panel, panel_maps = _union([s.panel for s in statistics])
    channels, channel_maps = _union([s.channels for s in statistics])
    lineage, lineage_maps = _union([s.lineage for s in statistics])

    def real_total(name: str) -> Float64:
        """Add up what is no whole number, whose sum depends on no order either."""
        parts: list[list[float]] = [[] for _ in channels]
        for statistic, at in zip(statistics, channel_maps, strict=True):
            for place, value in zip(at, getattr(statistic, name), strict=True):
                parts[place].append(float(value))
        return np.array([_exact_sum(part) for part in parts])

    def total(name: str, where: Sequence[Int64], size: int, dtype: type[np.generic]) -> Any:
        sums = np.zeros(size, dtype)
        for statistic, at in zip(statistics, where, strict=True):
            np.add.at(sums, at, getattr(statistic, name))
        return sums

    hz = np.zeros(len(channels))
    for statistic, at in zip(statistics, channel_maps, strict=True):
        np.maximum.at(hz, at, statistic.channel_hz)
    moved = [
        Sketch(at[s.sketch.code].astype(np.int32), s.sketch.bucket, s.sketch.count)
        for s, at in zip(statistics, maps, strict=True)
    ]
    everyone = [np.arange(len(modality_names()))] * len(statistics)
    either = [np.arange(2)] * len(statistics)
    return SiteStatistics(
        codes=codes,
        subjects=total("subjects", maps, len(codes), np.int64),
        timed_subjects=total("timed_subjects", maps, len(codes), np.int64),
        visits=total("visits", maps, len(codes), np.int64),
        reached=total("reached", maps, len(codes), np.int64),
        sites=total("sites", maps, len(codes), np.int64),
        all_visits=total("all_visits", [np.arange(1)] * len(statistics), 1, np.int64),
        sketch=values.add(moved),
        panel=panel,
        panel_subjects=total("panel_subjects", panel_maps, len(panel), np.int64),
        panel_sites=total("panel_sites", panel_maps, len(panel), np.int64),
        channels=channels,
        channel_subjects=total("channel_subjects", channel_maps, len(channels), np.int64),
        channel_sum=real_total("channel_sum"),
        channel_square=real_total("channel_square"),
        channel_hz=hz,
        channel_sites=total("channel_sites", channel_maps, len(channels), np.int64),
        modality_subjects=total("modality_subjects", everyone, len(modality_names()), np.int64),
        label_values=total("label_values", either, 2, np.int64),
        lineage=lineage,
        lineage_sites=total("lineage_sites", lineage_maps, len(lineage), np.int64),
    )


def _union(names: Sequence[Sequence[_Name]]) -> tuple[tuple[_Name, ...], list[Int64]]:
    union = tuple(sorted({name for site in names for name in site}))
    index = {name: i for i, name in enumerate(union)}
    return union, [np.array([index[name] for name in site], np.int64) for site in names]
