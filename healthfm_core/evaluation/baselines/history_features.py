"""Numbers that sum up a history at a query: what a regression or boosted trees read of it.

Every modality of the registry has columns, by its form. Codes are counted over several windows, in
the last visit and since when they last occurred, with the last and the mean of their values;
samples of a device are averaged and counted, channel by channel, over several windows; a panel's
values stand beside marks of which there are. Besides: age, days to the query, visits so far, and
the site. Windows end where the history does. They are a ladder of round lengths, the same for
every study, so that none is fitted to how fast the people of one of them change.

Nothing later than what a model may know at the query is read: both end at the same item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Float32, Float64, Int64
from healthfm_core.data.batch.segments import ranges
from healthfm_core.data.batch.sequences import EVENT, UNKNOWN_TIME, WEARABLE, Sequences
from healthfm_core.modalities.registry import columns_of, specs
from healthfm_core.modalities.spec import DataForm, ModalitySpec

DAY_US: Final = 86_400_000_000
YEAR_DAYS: Final = 365.25
CODE_WINDOWS_DAYS: Final = (30.0, 365.0)
"""Windows over which each code is counted, beside the whole history."""
SAMPLE_WINDOWS_DAYS: Final = (1 / 24, 3 / 24, 1.0, 3.0, 7.0, 30.0)
"""Windows over which each channel is averaged, beside the whole history."""
MAX_CODES: Final = 512
QUERY: Final = "query"
SITE: Final = "site"


@dataclass(frozen=True)
class HistoryCuts:
    """Where each of n histories ends, and when its query asks.

    Attributes:
        subject: [n] index of the subject in its `Sequences`.
        stop: [n] item before which what the query may know ends.
        time_us: [n] the query's own time.
    """

    subject: Int64
    stop: Int64
    time_us: Int64

    def __len__(self) -> int:
        return len(self.subject)

    @classmethod
    def before_visits(cls, sequences: Sequences, visit: Int64) -> HistoryCuts:
        """Return the histories that end with the visit before each of `visit`, none a first one."""
        subject = np.searchsorted(sequences.visit_offsets, visit, side="right") - 1
        stop = sequences.record.visit_stop[visit - 1]
        return cls(subject, stop, sequences.visit_time_us[visit])


@dataclass(frozen=True)
class FeatureColumns:
    """What is read of a history: chosen once for a study, applied to everyone.

    Attributes:
        codes: [K] codes, at most `MAX_CODES`, the most frequent of the training people.
        channels: Channels of the device, 0 without one.
        panel: Names of the panels' columns.
        sites: Sites that have a column of their own; a site beyond has 0 in all of them.
    """

    codes: Int64
    channels: int
    panel: tuple[str, ...]
    sites: int

    @classmethod
    def choose(cls, train: Sequences, *, channels: int, sites: int) -> FeatureColumns:
        """Choose the codes on the training people.

        Args:
            train: The training people of every site.
            channels: Channels of the study's device, 0 without one.
            sites: How many sites get a column each.
        """
        count = np.bincount(train.code[train.kind != WEARABLE], minlength=1)
        order = np.argsort(-count, kind="stable")[:MAX_CODES]
        codes = np.sort(order[count[order] > 0]).astype(np.int64)
        return cls(codes, channels, train.panel_names, sites)


@dataclass(frozen=True)
class HistoryFeatures:
    """The numbers of n queries.

    Attributes:
        x: [n, F] float32, finite; 0 where there is nothing to sum up.
        blocks: Modality, ``query`` or ``site`` → which of the F columns are its own.
    """

    x: Float32
    blocks: dict[str, slice]


@dataclass(frozen=True)
class _Items:
    """The items of every history: P pairs of a query and an item it may know."""

    sequences: Sequences
    cuts: HistoryCuts
    columns: FeatureColumns
    site: Int64
    query: Int64
    item: Int64
    known_us: Int64
    age_days: Float64

    def sum(self, pairs: Int64, column: Int64, width: int, weight: Float64 | None) -> Float64:
        """Return [n, width], the weights of some pairs added up by query and column."""
        cell = self.query[pairs] * width + column
        n = len(self.cuts)
        return np.bincount(cell, weight, n * width).astype(np.float64).reshape(n, width)


def history_features(
    sequences: Sequences, cuts: HistoryCuts, columns: FeatureColumns, *, site: Int64 | None = None
) -> HistoryFeatures:
    """Return the numbers of each history.

    Args:
        sequences: The people.
        cuts: Where their histories end.
        columns: What is read.
        site: [n] the site's column; None: that of `sequences.site`.
    """
    items = _items(sequences, cuts, columns, site)
    parts = {QUERY: _query_numbers(items)}
    parts |= {spec.name: _BY_FORM[spec.form](items, spec) for spec in specs()}
    parts[SITE] = items.site[:, None] == np.arange(columns.sites)
    x = np.concatenate(list(parts.values()), axis=1, dtype=np.float32)
    ends = np.cumsum([part.shape[1] for part in parts.values()]).tolist()
    begins = [0, *ends[:-1]]
    return HistoryFeatures(x, dict(zip(parts, map(slice, begins, ends), strict=True)))


def _items(
    sequences: Sequences, cuts: HistoryCuts, columns: FeatureColumns, site: Int64 | None
) -> _Items:
    low = sequences.offsets[cuts.subject]
    query = np.repeat(np.arange(len(cuts)), cuts.stop - low)
    item = ranges(low, cuts.stop - low)
    timed = np.isin(sequences.kind[item], (EVENT, WEARABLE))
    known_us = cuts.time_us.copy()
    known_us[query[timed]] = sequences.time_us[item[timed]]  # in order of time: the last stays
    age = (known_us[query] - sequences.time_us[item]) / DAY_US
    where = sequences.site[cuts.subject].astype(np.int64) if site is None else site
    return _Items(
        sequences, cuts, columns, where, query, item, known_us, np.where(timed, age, np.inf)
    )


def _query_numbers(items: _Items) -> Float64:
    """Age in decades and whether it is known, days to the query, visits so far (logarithms)."""
    sequences, cuts = items.sequences, items.cuts
    birth = sequences.birth_us[cuts.subject]
    known = birth != UNKNOWN_TIME
    age = np.where(known, cuts.time_us - np.where(known, birth, 0), 0) / DAY_US / YEAR_DAYS / 10
    gap = np.log1p((cuts.time_us - items.known_us) / DAY_US)
    event = np.flatnonzero(sequences.kind[items.item] == EVENT)
    visits = np.zeros(len(cuts))
    visits[items.query[event]] = 1.0 + sequences.visit[items.item[event]]
    return np.column_stack([age, known, gap, np.log1p(visits)])


def _code_numbers(items: _Items, spec: ModalitySpec) -> Float64:
    """Counts of each code, whether the last visit had it, how long ago, last and mean value."""
    sequences, codes = items.sequences, items.columns.codes
    place = np.full(int(max(sequences.code.max(initial=0), codes.max(initial=0))) + 1, -1)
    place[codes] = np.arange(len(codes))
    of_code = sequences.kind[items.item] != WEARABLE
    pairs = np.flatnonzero(of_code & (place[sequences.code[items.item]] >= 0))
    column, age = place[sequences.code[items.item[pairs]]], items.age_days[pairs]
    width = len(codes)
    counts = [
        items.sum(pairs, column, width, (age <= days).astype(np.float64))
        for days in (np.inf, *CODE_WINDOWS_DAYS)
    ]
    timed = np.isfinite(age)
    visit = np.full(len(items.cuts), -1)
    visit[items.query[pairs[timed]]] = sequences.visit[items.item[pairs[timed]]]
    is_last = timed & (sequences.visit[items.item[pairs]] == visit[items.query[pairs]])
    in_last = items.sum(pairs, column, width, is_last.astype(np.float64)) > 0
    since = np.zeros((len(items.cuts), width))
    since[items.query[pairs[timed]], column[timed]] = np.log1p(age[timed])
    valued = sequences.has_value[items.item[pairs]]
    value = sequences.quantile[items.item[pairs]].astype(np.float64)
    last = np.zeros((len(items.cuts), width))
    last[items.query[pairs[valued]], column[valued]] = value[valued]
    n = items.sum(pairs, column, width, valued.astype(np.float64))
    mean = items.sum(pairs, column, width, np.where(valued, value, 0.0)) / np.maximum(n, 1)
    return np.concatenate([*map(np.log1p, counts), in_last, since, last, mean], axis=1)


def _sample_numbers(items: _Items, spec: ModalitySpec) -> Float64:
    """Mean and count (its logarithm) of each channel in each window, and in the last token."""
    sequences, channels = items.sequences, items.columns.channels
    if not channels:
        return np.zeros((len(items.cuts), 0))
    tokens, windows, features = sequences.wearable.shape
    shape = (tokens, windows, channels, features // channels)
    seen = sequences.wearable_mask.reshape(shape).sum(axis=(1, 3), dtype=np.float64)
    total = sequences.wearable.reshape(shape).sum(axis=(1, 3), dtype=np.float64)
    pairs = np.flatnonzero(sequences.kind[items.item] == WEARABLE)
    token, age = sequences.wearable_row[items.item[pairs]], items.age_days[pairs]
    zero = np.zeros(len(pairs), np.int64)
    since = np.zeros((len(items.cuts), 2))
    since[items.query[pairs], 0], since[items.query[pairs], 1] = np.log1p(age), 1.0
    youngest = np.full(len(items.cuts), np.inf)
    np.minimum.at(youngest, items.query[pairs], age)
    in_window = [age <= days for days in SAMPLE_WINDOWS_DAYS]
    in_window += [age <= youngest[items.query[pairs]], np.isfinite(age)]
    parts = [since]
    for chosen in in_window:
        for channel in range(channels):
            n = items.sum(pairs, zero, 1, seen[token, channel] * chosen)
            value = items.sum(pairs, zero, 1, total[token, channel] * chosen)
            parts += [value / np.maximum(n, 1.0), np.log1p(n)]
    return np.concatenate(parts, axis=1)


def _panel_numbers(items: _Items, spec: ModalitySpec) -> Float64:
    """The values of a panel, 0 where absent, and which there are."""
    own = columns_of(spec.name, items.columns.panel)
    subject = items.cuts.subject
    values, present = items.sequences.panel, items.sequences.panel_mask
    return np.concatenate([values[subject, own], present[subject, own]], axis=1, dtype=np.float64)


_BY_FORM: Final[dict[DataForm, Callable[[_Items, ModalitySpec], Float64]]] = {
    "codes": _code_numbers,
    "samples": _sample_numbers,
    "panel": _panel_numbers,
}
