"""From a site's stores to ragged sequences of tokens, a column at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from meds import birth_code

from healthfm_core.arrays import Bool, Float32, Float64, Int32, Int64
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.segments import offsets_of, run_starts, search
from healthfm_core.data.batch.sequences import (
    COUNT_SCALE,
    EVENT,
    INDICES,
    STATIC,
    UNKNOWN_TIME,
    WEARABLE,
    Sequences,
)
from healthfm_core.data.store.events import ids, times_us
from healthfm_core.data.store.genetics import CLIP
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.data.store.people_blocks import PeopleBlocks
from healthfm_core.modalities.registry import code_of_column, is_panel_code
from healthfm_core.tokens.concept_sets import study_events
from healthfm_core.tokens.records import (
    US_PER_HOUR,
    Events,
    read_parents,
    visit_starts,
)
from healthfm_core.tokens.vocabulary import EXACT, Vocabulary
from healthfm_core.tokens.wearing import WearableTokens, wearable_tokens


@dataclass(frozen=True)
class _Clinical:
    """Clinical events under the study's codes, by subject and time, statics first."""

    subject: Int64
    time_us: Int64
    static: Bool
    code: Int64
    value: Float64
    spread: Float64

    def take(self, rows: npt.NDArray[np.generic]) -> _Clinical:
        return _Clinical(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class _Labels:
    """Labels of a store's subjects, by subject and time."""

    subject: Int64
    time_us: Int64
    value: Float32


@dataclass(frozen=True)
class _Visits:
    """Visits of a store: which one each event is in, where they start, what occurs in them."""

    of_event: Int32
    offsets: Int64
    time_us: Int64
    target_offsets: Int64
    target: Int32


def tokenize(
    stores: Sequence[StoreView],
    vocabulary: Vocabulary,
    config: TokensConfig,
    *,
    split: str | None,
    task: str | None = None,
    asked: pa.Table | None = None,
) -> Sequences:
    """Return the sequences of every subject of a split, store by store.

    Args:
        stores: The site's stores, of which no two share a person (`join_stores`), or those of
            several sites; `Sequences.site` is the index here.
        vocabulary: The study's.
        config: How visits, bins and wearables are cut.
        split: train, tuning or held_out; None is all three.
        task: Label table to read; a store without it gives no labels.
        asked: Instead, of whom something is asked and when: subject_id, prediction_time and, where
            it is known, boolean_value. Who is of no store is left out.

    Returns:
        Subjects in the order of the stores, and of their ids within one. A subject without any
        event is there, with no items.
    """
    parts = tokenized_parts(stores, vocabulary, config, split=split, task=task, asked=asked)
    return concatenate(list(parts))


def tokenized_parts(
    stores: Sequence[StoreView],
    vocabulary: Vocabulary,
    config: TokensConfig,
    *,
    split: str | None,
    task: str | None = None,
    asked: pa.Table | None = None,
) -> Iterator[Sequences]:
    """Yield what `tokenize` returns, some people at a time (`PeopleBlocks`), one part at least."""
    for index, store in enumerate(stores):
        labelled = asked
        if asked is None and task is not None and task in store.tasks:
            labelled = store.labels(task)
        with PeopleBlocks(store, split) as blocks:
            for people in blocks:
                part = _tokenize_store(people, vocabulary, config, labelled)
                yield replace(part, site=np.full(part.n_subjects, index, np.int32))


def _tokenize_store(
    store: StoreView,
    vocabulary: Vocabulary,
    config: TokensConfig,
    labelled: pa.Table | None,
) -> Sequences:
    events = study_events(store, None, config)
    of_panel = np.array([is_panel_code(code) for code in events.codes], np.bool_)
    is_birth = np.array([code == birth_code for code in events.codes], np.bool_)
    own = events.where(~(of_panel | is_birth)[events.code])
    index, how = vocabulary.look_up(events.codes, read_parents(store))
    # a value counts only under the code it was recorded by
    value = np.where(how[own.code] == EXACT, own.value, np.nan)
    none = np.zeros((len(value), 0))
    clinical = _Clinical(own.subject, own.time_us, own.static, index[own.code], value, none)
    labels = _labels(labelled, events.subjects)
    clinical = _in_bins(clinical, labels, config.bin_hours, spread=config.bin_spread)
    worn = _worn(store, vocabulary)
    visits = _visits(clinical, vocabulary, config.visit_gap_hours, len(events.subjects))
    panel, panel_mask = _panel(events.where(of_panel[events.code]), vocabulary)
    births = events.where(is_birth[events.code] & ~events.static)
    birth_us = np.full(len(events.subjects), UNKNOWN_TIME, np.int64)
    birth_us[births.subject] = births.time_us
    return Sequences(
        subject_id=events.subjects,
        site=np.zeros(len(events.subjects), np.int32),
        birth_us=birth_us,
        **_items(clinical, worn, visits, vocabulary, len(events.subjects)),
        wearable=worn.value,
        wearable_mask=worn.observed,
        panel=panel,
        panel_mask=panel_mask,
        visit_offsets=visits.offsets,
        visit_time_us=visits.time_us,
        visit_target_offsets=visits.target_offsets,
        visit_target=visits.target,
        label_subject=labels.subject,
        label_time_us=labels.time_us,
        label_value=labels.value,
        panel_names=vocabulary.panel,
    )


def _in_bins(events: _Clinical, labels: _Labels, bin_hours: float, *, spread: bool) -> _Clinical:
    """Collapse values of one subject, code and bin into their mean at the last one's time.

    Bins are counted from 1970, in whole microseconds, and end at every prediction time: a token
    that stood later would be hidden with all that was known by then. With `spread` each event gets
    the columns of `sequences.SPREAD`, a value alone in its bin its own, and events without a value
    collapse too, since the token says how many there were.
    """
    if spread:
        alone = np.where(events.static & np.isnan(events.value), 0.0, 1.0)
        events = replace(events, spread=np.stack([*[events.value] * 4, alone], axis=1))
    if bin_hours == 0:
        return events
    collapsed = ~events.static & (spread | np.isfinite(events.value))
    rows, first = _runs(events, labels, np.flatnonzero(collapsed), bin_hours)
    if not len(first):
        return events
    size = np.diff(np.append(first, len(rows)))
    last = events.take(rows[first + size - 1])
    value = events.value[rows]
    last = replace(last, value=np.add.reduceat(value, first) / size)
    if spread:
        ends = value[first], value[first + size - 1]
        extremes = np.minimum.reduceat(value, first), np.maximum.reduceat(value, first)
        last = replace(last, spread=np.stack([*extremes, *ends, size], axis=1))
    rest = events.take(~collapsed)
    both = _Clinical(
        *(np.concatenate([getattr(rest, f.name), getattr(last, f.name)]) for f in fields(rest))
    )
    return both.take(np.lexsort((both.time_us, ~both.static, both.subject)))


def _runs(events: _Clinical, labels: _Labels, rows: Int64, bin_hours: float) -> tuple[Int64, Int64]:
    """Return `rows` in runs of one subject, code and bin, and where each run starts."""
    subject, code, time_us = events.subject[rows], events.code[rows], events.time_us[rows]
    low = np.searchsorted(labels.subject, subject, side="left").astype(np.int64)
    high = np.searchsorted(labels.subject, subject, side="right").astype(np.int64)
    asked = search(labels.time_us, low, high, time_us, "left")
    columns = (np.isnan(events.value[rows]), asked, time_us // round(bin_hours * US_PER_HOUR))
    order = np.lexsort((*columns, code, subject))
    starts = run_starts(subject[order], code[order], *(column[order] for column in columns))
    return rows[order], np.flatnonzero(starts)


def _visits(
    events: _Clinical, vocabulary: Vocabulary, gap_hours: float, n_subjects: int
) -> _Visits:
    timed = np.flatnonzero(~events.static)
    subject, time_us = events.subject[timed], events.time_us[timed]
    starts = visit_starts(subject, time_us, gap_hours)
    number = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    offsets = offsets_of(np.bincount(subject[first], minlength=n_subjects))
    of_event = np.full(len(events.subject), -1, np.int32)
    of_event[timed] = number - offsets[subject]
    target = vocabulary.target_of_code[events.code[timed]]
    hit = target >= 0
    width = max(1, len(vocabulary.targets))
    pairs = np.unique(number[hit] * width + target[hit])
    return _Visits(
        of_event=of_event,
        offsets=offsets,
        time_us=time_us[first],
        target_offsets=offsets_of(np.bincount(pairs // width, minlength=len(first))),
        target=(pairs % width).astype(np.int32),
    )


def _items(
    events: _Clinical,
    worn: WearableTokens,
    visits: _Visits,
    vocabulary: Vocabulary,
    n_subjects: int,
) -> dict[str, Any]:
    """Return the item columns of `Sequences`: events and wearable tokens in one order."""
    token, quantile = vocabulary.place(events.code, events.value)
    spread = _spread(events, vocabulary)
    n_worn = len(worn.subject)
    none = np.zeros(n_worn, np.int32)
    kind = np.where(events.static, STATIC, EVENT).astype(np.uint8)
    has_value = token != vocabulary.first_token[events.code]
    columns: dict[str, Any] = {
        "kind": np.concatenate([kind, np.full(n_worn, WEARABLE, np.uint8)]),
        "token": np.concatenate([token, none]),
        "code": np.concatenate([events.code.astype(np.int32), none]),
        "quantile": np.concatenate([quantile, none.astype(np.float32)]),
        "spread": np.concatenate([spread, np.zeros((n_worn, spread.shape[1]), np.float32)]),
        "has_value": np.concatenate([has_value, none.astype(np.bool_)]),
        "time_us": np.concatenate([events.time_us, worn.end_us]),
        "visit": np.concatenate([visits.of_event, none - np.int32(1)]),
        "wearable_row": np.concatenate([np.full(len(token), -1), np.arange(n_worn)]),
    }
    subject = np.concatenate([events.subject, worn.subject])
    if n_worn:
        timed = columns["kind"] != STATIC
        order = np.lexsort((columns["kind"], columns["time_us"], timed, subject))
        columns = {name: column[order] for name, column in columns.items()}
    columns["offsets"] = offsets_of(np.bincount(subject, minlength=n_subjects))
    return columns


def _spread(events: _Clinical, vocabulary: Vocabulary) -> Float32:
    """Return what `Sequences.spread` holds of the events: values, then the count's logarithm."""
    if not events.spread.shape[1]:
        return events.spread.astype(np.float32)
    columns = (events.value, *events.spread[:, :-1].T)
    places = [vocabulary.standardise(events.code, column) for column in columns]
    often = np.log1p(events.spread[:, -1]) / COUNT_SCALE
    return np.stack([*places, often], axis=1).astype(np.float32)


def _panel(events: Events, vocabulary: Vocabulary) -> tuple[Float32, Bool]:
    """Return the values of the study's panels and where they are present, [S, P] each."""
    place = {code_of_column(name): i for i, name in enumerate(vocabulary.panel)}
    column = np.array([place.get(code, -1) for code in events.codes], np.int64)[events.code]
    known = (column >= 0) & ~np.isnan(events.value)
    shape = (len(events.subjects), len(vocabulary.panel))
    panel, mask = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    at = events.subject[known], column[known]
    panel[at] = np.clip(events.value[known], -CLIP, CLIP)
    mask[at] = True
    return panel, mask


def _worn(store: StoreView, vocabulary: Vocabulary) -> WearableTokens:
    if vocabulary.wearable is not None:
        return wearable_tokens(store, vocabulary.wearable, None)
    none = np.empty(0, np.int64)
    shape = (0, 1, 1)
    return WearableTokens(none, none, np.empty(shape, np.float32), np.empty(shape, np.bool_))


def _labels(table: pa.Table | None, subjects: Int64) -> _Labels:
    if table is None:
        return _Labels(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    who = ids(table)
    value = np.full(len(who), np.nan, np.float32)
    if "boolean_value" in table.column_names:
        value = np.asarray(table["boolean_value"].to_numpy()).astype(np.float32)
    rows = np.isin(who, subjects)
    at = np.searchsorted(subjects, who[rows]).astype(np.int64)
    time_us, value = times_us(table, "prediction_time")[rows], value[rows]
    order = np.lexsort((time_us, at))
    return _Labels(at[order], time_us[order], value[order])


def concatenate(parts: Sequence[Sequences]) -> Sequences:
    """Join sequences of different subjects; indices and offsets move behind those before.

    `Sequences.site` stays as it is.
    """
    columns: dict[str, Any] = {}
    for field in fields(Sequences):
        if field.name == "panel_names":
            columns[field.name] = parts[0].panel_names
            continue
        arrays = [getattr(part, field.name) for part in parts]
        if field.name in INDICES:
            before = offsets_of(
                np.array([len(getattr(part, INDICES[field.name])) for part in parts])
            )
            arrays = [
                np.where(array < 0, array, array + shift)
                for array, shift in zip(arrays, before[:-1], strict=True)
            ]
        if field.name.endswith("offsets"):
            arrays = [arrays[0], *(array[1:] for array in arrays[1:])]
        columns[field.name] = np.ascontiguousarray(np.concatenate(arrays))
    return Sequences(**columns)
