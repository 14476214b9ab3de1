"""Round 0 of a study: the counts, moments and sketches that a site lets out.

Everything is a sum over subjects, so that sites' statistics add up in any order. What fewer than
`k_min` subjects of the site have (a code, a column of a panel, a channel, a modality) is taken out
here, at the site, before anything is sent. Not covered: differential privacy, which needs noise on
top.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
from meds import birth_code

from healthfm_core.arrays import Float64, Int64, Integers
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.errors import ProtocolError
from healthfm_core.modalities.registry import (
    column_of,
    is_panel_code,
    modality_names,
    modality_of,
    specs,
)
from healthfm_core.modalities.spec import ModalitySpec
from healthfm_core.tokens import values
from healthfm_core.tokens.concept_sets import study_events
from healthfm_core.tokens.lineage import lineage_of, with_forms
from healthfm_core.tokens.records import (
    Events,
    pool,
    read_parents,
    visit_starts,
)
from healthfm_core.tokens.values import Sketch
from healthfm_core.tokens.wearing import channel_moments, total_moments

_MAX_DEPTH: Final = 32


_Name = TypeVar("_Name", str, tuple[str, str])


class _CodeCounts(TypedDict):
    codes: tuple[str, ...]
    subjects: Int64
    timed_subjects: Int64
    visits: Int64
    reached: Int64
    sites: Int64
    all_visits: Int64
    sketch: Sketch
    lineage: tuple[tuple[str, str], ...]
    lineage_sites: Int64


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
    events = pool([study_events(store, split, config) for store in stores])
    parents = {c: p for store in stores for c, p in read_parents(store).items()}
    if config.common_share:
        parents = with_forms(parents, events.codes)
    of_panel = np.array([is_panel_code(code) for code in events.codes], np.bool_)
    birth = np.array([code == birth_code for code in events.codes], np.bool_)
    clinical = events.where(~(of_panel | birth)[events.code])
    panels = events.where(of_panel[events.code])
    worn = total_moments([channel_moments(store, config.device, split) for store in stores])
    people = [
        worn.n_subjects if spec.form == "samples" else _subjects_of(spec, clinical, panels)
        for spec in specs()
    ]
    keep = np.flatnonzero(worn.subjects >= k)
    panel, panel_subjects = _panel_counts(panels, k)
    return SiteStatistics(
        **_code_counts(clinical, config, parents),
        panel=panel,
        panel_subjects=panel_subjects,
        panel_sites=np.ones(len(panel), np.int64),
        channels=tuple(worn.channels[i] for i in keep),
        channel_subjects=worn.subjects[keep],
        channel_sum=worn.sum[keep],
        channel_square=worn.square[keep],
        channel_hz=worn.hz[keep],
        channel_sites=np.ones(len(keep), np.int64),
        modality_subjects=_withheld(np.array(people, np.int64), k),
        label_values=_label_values(stores, task, split, k),
    )


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
        people += [_distinct(subject[ours & (value == which)]) for which in (0, 1)]
    return counts if (people >= k).all() else np.zeros(2, np.int64)


def _subjects_of(spec: ModalitySpec, clinical: Events, panels: Events) -> int:
    """Count the subjects with an event of a modality; all but panels' are clinical."""
    if spec.form != "panel":
        return _distinct(clinical.subject)
    own = np.array([modality_of(code) == spec.name for code in panels.codes], np.bool_)
    return _distinct(panels.subject[own[panels.code]])


def _distinct(keys: Int64) -> int:
    return len(np.unique(keys))


def _withheld(count: Int64, k: int) -> Int64:
    return np.where(count >= k, count, 0)


def _without_small_rests(count: Int64, of: Int64, k: int) -> Int64:
    """Return counts of which neither they nor what is left of `of` is 1 to k - 1.

    One that is nearly all is told as all, one that is nearly none as none.
    """
    return np.where(of - count < k, of, _withheld(count, k))


def _panel_counts(events: Events, k: int) -> tuple[tuple[str, ...], Int64]:
    events = events.where(~np.isnan(events.value))
    subjects = _subjects_per(events.code, events.subject, len(events.codes))
    names = sorted((column_of(events.codes[i]), i) for i in np.flatnonzero(subjects >= k))
    return tuple(name for name, _ in names), subjects[[i for _, i in names]]


def _subjects_per(code: Integers, other: Int64, n_codes: int) -> Int64:
    """Count the distinct `other` of each code."""
    width = int(other.max()) + 1 if len(other) else 1
    pairs = np.unique(code.astype(np.int64) * width + other)
    return np.bincount(pairs // width, minlength=n_codes).astype(np.int64)


def _code_counts(events: Events, config: TokensConfig, parents: Mapping[str, str]) -> _CodeCounts:
    codes, counted_as = _rolled_up(events, parents, config.k_min)
    code = counted_as[events.code]
    timed = ~events.static
    timed_code, timed_subject = code[timed], events.subject[timed]
    starts = visit_starts(timed_subject, events.time_us[timed], config.visit_gap_hours)
    subjects = _subjects_per(code, events.subject, len(codes))
    kept = np.array(sorted(np.flatnonzero(subjects >= config.k_min), key=codes.__getitem__), int)
    place = np.full(len(codes), -1, np.int64)
    place[kept] = np.arange(len(kept))
    of_own = counted_as[events.code] == events.code
    names = tuple(codes[i] for i in kept)
    sketch = _sketch(events.where(of_own & ~np.isnan(events.value)), place, config.k_min)
    lineage = _lineage(names, sketch, parents) if config.common_share else ()
    return _CodeCounts(
        codes=names,
        subjects=subjects[kept],
        timed_subjects=_without_small_rests(
            _subjects_per(timed_code, timed_subject, len(codes))[kept],
            subjects[kept],
            config.k_min,
        ),
        visits=_subjects_per(timed_code, np.cumsum(starts), len(codes))[kept],
        reached=np.full(len(kept), _distinct(events.subject), np.int64),
        sites=np.ones(len(kept), np.int64),
        all_visits=np.array([starts.sum() if _distinct(timed_subject) >= config.k_min else 0]),
        sketch=sketch,
        lineage=lineage,
        lineage_sites=np.ones(len(lineage), np.int64),
    )


def _lineage(
    codes: Sequence[str], sketch: Sketch, parents: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    numeric = {*sketch.code.tolist()}
    return lineage_of((code for i, code in enumerate(codes) if i not in numeric), parents)


def _rolled_up(events: Events, parents: Mapping[str, str], k: int) -> tuple[list[str], Int64]:
    """Return all codes, and what each code of `events` counts as: itself or an ancestor."""
    codes = list(events.codes)
    index = {code: i for i, code in enumerate(codes)}
    parent: list[int] = []
    for code in codes:  # grows while it runs: a parent has a parent
        above = parents.get(code)
        if above is not None and above not in index:
            index[above] = len(codes)
            codes.append(above)
        parent.append(-1 if above is None else index[above])
    above_of = np.array(parent, np.int64)
    counted_as = np.arange(len(codes))
    for _ in range(_MAX_DEPTH):
        subjects = _subjects_per(counted_as[events.code], events.subject, len(codes))
        rare = (subjects[counted_as] < k) & (above_of[counted_as] >= 0)
        if not rare[np.unique(events.code)].any():
            break
        counted_as = np.where(rare, above_of[counted_as], counted_as)
    return codes, counted_as


def _sketch(events: Events, place: Int64, k: int) -> Sketch:
    """Sketch one value per subject and code; `place` is the index of a code, -1 if withheld."""
    events = events.where(place[events.code] >= 0)
    if not len(events.code):
        return values.add([])
    keys = [hashlib.blake2b(code.encode(), digest_size=8).digest() for code in events.codes]
    code_key = np.frombuffer(b"".join(keys), np.int64)
    rows = values.one_per_subject(
        events.subjects[events.subject], events.code.astype(np.int64), code_key
    )
    sketch = values.sketch(place[events.code[rows]], events.value[rows])
    merged = values.merge_small(sketch, k)
    return values.spread(merged, values.stands_alone(merged, sketch, k))


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
