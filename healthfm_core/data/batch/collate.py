"""One batch from ragged sequences: offset arithmetic and scatters, no loop over rows or tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from healthfm_core.arrays import Int64
from healthfm_core.data.batch.batch import DAYS_PER_YEAR, Batch
from healthfm_core.data.batch.occurrences import Occurrences, days
from healthfm_core.data.batch.row_plan import (
    Drops,
    ItemPlacement,
    RowPlan,
    Sizes,
    place_items,
)
from healthfm_core.data.batch.segments import offsets_of, ranges, run_ends, run_starts
from healthfm_core.data.batch.sequences import (
    EVENT,
    NOW,
    SEP,
    SOFT,
    STATIC,
    UNKNOWN_TIME,
    WEARABLE,
    Sequences,
)


def collate(
    sequences: Sequences,
    rows: RowPlan,
    drops: Drops,
    sizes: Sizes,
    *,
    query_kind: int,
    later_us: int = 0,
    rng: np.random.Generator | None = None,
) -> Batch:
    """Return the batch of `rows`; see `Batch` for what each array means.

    Args:
        sequences: The subjects.
        rows: The rows, at least one.
        drops: What to hide.
        sizes: Cuts and padded sizes.
        query_kind: SEP or NOW.
        later_us: How long after a row's one query the later tokens go on; 0: there are none.
        rng: Draws the dropped events.
    """
    placed = place_items(sequences, rows, drops, sizes, rng)
    n_queries = np.diff(rows.query_offsets)
    row, index = np.repeat(np.arange(len(rows)), n_queries), _index_in_row(rows.query_offsets)
    position = placed.length[row] + index
    shape = (len(rows), int((placed.length + n_queries).max()))
    arrays = _tokens(sequences, placed, shape)
    arrays |= _times(sequences, rows, placed, drops, (row, position), shape)
    arrays |= _modalities(sequences, rows, placed, drops, sizes, shape)
    arrays |= _queries(sequences, rows, placed, sizes, query_kind)
    arrays |= _later(sequences, rows, later_us)
    if drops.single is not None:
        arrays["repeats"] -= drops.single.visits[:, None].astype(np.float32)
    arrays["kind"][row, position] = query_kind
    arrays["query"][row, index] = position
    return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def _tokens(sequences: Sequences, placed: ItemPlacement, shape: tuple[int, int]) -> dict[str, Any]:
    at = placed.row * shape[1] + placed.position
    arrays: dict[str, Any] = {}
    for name, dtype in (
        ("kind", np.int64),
        ("token", np.int64),
        ("code", np.int64),
        ("quantile", np.float32),
        ("has_value", np.bool_),
    ):
        flat = np.zeros(shape[0] * shape[1], dtype)
        flat[at] = getattr(sequences, name)[placed.item]
        arrays[name] = flat.reshape(shape)
    spread = sequences.spread
    arrays["spread"] = np.zeros((shape[0] * shape[1], spread.shape[1]), np.float32)
    arrays["spread"][at] = spread[placed.item]
    arrays["spread"] = arrays["spread"].reshape(*shape, spread.shape[1])
    row, slot = np.nonzero(placed.soft_tokens)
    position = (np.cumsum(placed.soft_tokens, axis=1) - 1)[row, slot]
    arrays["kind"][row, position] = SOFT
    arrays["soft_slot"] = np.full(shape, -1, np.int64)
    arrays["soft_slot"][row, position] = slot
    return arrays


def _times(
    sequences: Sequences,
    rows: RowPlan,
    placed: ItemPlacement,
    drops: Drops,
    queries: tuple[Int64, Int64],
    shape: tuple[int, int],
) -> dict[str, Any]:
    """Fill times and visibility of what comes before the queries, then of the queries."""
    history = np.flatnonzero(sequences.kind[placed.item] != STATIC)
    item, row, position = (a[history] for a in (placed.item, placed.row, placed.position))
    time = sequences.time_us[item]
    ends = np.cumsum(np.bincount(row, minlength=len(rows)))
    query_row, query_at = queries
    anchor = rows.time_us[rows.query_offsets[:-1]].copy()
    some = placed.length > placed.statics
    anchor[some] = time[ends[some] - 1]
    gaps = _gaps(rows, placed, row, time, query_row)
    ends_at = np.concatenate([_visible_to(sequences, item, row, position, time), placed.query_end])
    owner = np.concatenate([row, query_row])
    at = owner * shape[1] + np.concatenate([position, query_at])
    when = np.concatenate([time, rows.time_us])
    birth = sequences.birth_us[rows.subject]
    born = (birth != UNKNOWN_TIME) & ~drops.birth
    age = (when - np.where(born, birth, 0)[owner]) * born[owner]
    kv_end = np.where(np.arange(shape[1]) < placed.statics[:, None], placed.statics[:, None], 0)
    kv_end.reshape(-1)[at] = ends_at
    arrays: dict[str, Any] = {"kv_end": kv_end.astype(np.int32)}
    for name, value in (
        ("t_days", days(when - anchor[owner])),
        ("gap_days", days(gaps)),
        ("age_years", days(age) / np.float32(DAYS_PER_YEAR)),
    ):
        arrays[name] = np.zeros(shape, np.float32)
        arrays[name].reshape(-1)[at] = value
    return arrays


def _gaps(rows: RowPlan, placed: ItemPlacement, row: Int64, time: Int64, query_row: Int64) -> Int64:
    """Return µs since the item before (of each history item) or since the last known (queries)."""
    gap = np.diff(time, prepend=time[:1])
    gap[run_starts(row)] = 0
    first = np.searchsorted(row, np.arange(len(rows)))
    seen = placed.query_end - placed.statics[query_row]
    some = seen > 0
    query_gap = np.zeros(len(query_row), np.int64)
    query_gap[some] = rows.time_us[some] - time[(first[query_row] + seen - 1)[some]]
    return np.concatenate([gap, query_gap])


def _visible_to(
    sequences: Sequences, item: Int64, row: Int64, position: Int64, time: Int64
) -> Int64:
    """Return how far each history token sees: its whole visit, or all of its own time."""
    end = position[run_ends(run_starts(row, time)) - 1] + 1
    event = np.flatnonzero(sequences.kind[item] == EVENT)
    visit = run_starts(row[event], sequences.visit[item[event]])
    end[event] = position[event][run_ends(visit) - 1] + 1
    return end


def _index_in_row(offsets: Int64) -> Int64:
    count = np.diff(offsets)
    return ranges(np.zeros_like(count), count)


def _modalities(
    sequences: Sequences,
    rows: RowPlan,
    placed: ItemPlacement,
    drops: Drops,
    sizes: Sizes,
    shape: tuple[int, int],
) -> dict[str, Any]:
    worn = np.flatnonzero(sequences.kind[placed.item] == WEARABLE)
    row, source = placed.row[worn], sequences.wearable_row[placed.item[worn]]
    count = np.bincount(row, minlength=len(rows))
    slot = _index_in_row(offsets_of(count))
    box = (len(rows), max(1, int(count.max())), sizes.windows, sizes.features)
    wearable, observed = np.zeros(box, np.float32), np.zeros(box, np.bool_)
    wearable[row, slot] = sequences.wearable[source]
    observed[row, slot] = sequences.wearable_mask[source]
    wearable_slot = np.full(shape, -1, np.int64)
    wearable_slot[row, placed.position[worn]] = slot
    panel = np.zeros((len(rows), sizes.panel), np.float32)
    panel_mask = np.zeros((len(rows), sizes.panel), np.bool_)
    held = drops.panel_left(sequences, rows.subject)
    panel_mask[:, : held.shape[1]] = held
    panel[:, : held.shape[1]] = np.where(held, sequences.panel[rows.subject], 0)
    return {
        "wearable": wearable,
        "wearable_mask": observed,
        "wearable_slot": wearable_slot,
        "panel": panel,
        "panel_mask": panel_mask,
        "n_static": placed.statics.astype(np.int32),
        "subject": rows.subject.copy(),
    }


def _queries(
    sequences: Sequences, rows: RowPlan, placed: ItemPlacement, sizes: Sizes, query_kind: int
) -> dict[str, Any]:
    """Fill what is asked of each query, and how often and when each target occurs."""
    count = np.diff(rows.query_offsets)
    mask = np.arange(max(1, int(count.max()))) < count[:, None]
    query_time = np.zeros(mask.shape, np.int64)
    query_time[mask] = rows.time_us
    label = np.full(mask.shape, np.nan, np.float32)
    label[mask] = rows.label
    answers: dict[str, Any] = {
        "query": np.zeros(mask.shape, np.int64),
        "query_mask": mask,
        "query_time_us": query_time,
        "label": label,
        "exposure_days": np.zeros(mask.shape, np.float32),
    }
    pairs = Occurrences.of(sequences, rows, mask)
    shape = (*mask.shape, sizes.targets)
    answers["repeats"] = pairs.repeats(rows, shape)
    if query_kind == SEP:
        answers["target"] = pairs.at_next(rows, shape)
        answers["event_days"] = np.full(shape, np.inf, np.float32)
    if query_kind == NOW:
        answers["target"] = np.zeros(shape, np.float32)
        answers["event_days"] = pairs.days_to_next(rows, query_time, shape)
        left = np.maximum(
            sequences.record.end_us[rows.subject], rows.time_us[rows.query_offsets[:-1]]
        )
        exposure = np.maximum(days(left[:, None] - query_time), 0)
        answers["exposure_days"] = np.where(mask, exposure, 0).astype(np.float32)
    return answers


def _later(sequences: Sequences, rows: RowPlan, later_us: int) -> dict[str, Any]:
    """Fill the clinical tokens of the hours after each row's query, whatever is hidden of it."""
    count = np.zeros(len(rows), np.int64)
    if later_us:
        time = rows.time_us[rows.query_offsets[:-1]]
        count = sequences.history_before(rows.subject, time + later_us) - rows.stop
    item, row = ranges(rows.stop, count), np.repeat(np.arange(len(rows)), count)
    clinical = sequences.kind[item] == EVENT
    item, row = item[clinical], row[clinical]
    count = np.bincount(row, minlength=len(rows))
    at = row, _index_in_row(offsets_of(count))
    box, numbers = (len(rows), int(count.max())), sequences.spread.shape[1]
    code, has_value = np.zeros(box, np.int64), np.zeros(box, np.bool_)
    spread = np.zeros((*box, numbers), np.float32)
    code[at], has_value[at] = sequences.code[item], sequences.has_value[item]
    spread[at] = sequences.spread[item]
    return {"later_code": code, "later_spread": spread, "later_has_value": has_value}
