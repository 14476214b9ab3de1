"""A quantile sketch of every numeric code at once, linear over sites and bounded per subject.

The sketch is a vector of counts over fixed, logarithmically spaced buckets (DDSketch: Masson, Rim
and Lee, VLDB 2019), one vector per code, kept sparse. Buckets never depend on data, so the sketch
of two sites is the sum of theirs, in any order, and integer addition in a ring (secure
aggregation) is enough to merge it.

Accuracy: an edge read from a sketch lies within `RELATIVE_WIDTH` (1e-3, relative) of a value whose
rank in the sample is the one asked for. Merging small buckets at a site (`merge_small`) moves
less than 3k subjects of that site across any threshold; drawing the merged ones out again
(`spread`) takes a quarter to a half off what is left of it in the sum of several sites.

Privacy: the unit is the subject, who adds exactly one count per code they have a value of
(`one_per_subject`), so adding or removing a subject changes the vector of one code by 1 in L1 and
in L2. After `merge_small` every count is at least k, and `spread` divides such counts without
another look at the record. Not covered: noise, which a policy adds on top, and the fact that a
subject has several codes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float64, Floats, Int32, Int64, Integers, UInt64
from healthfm_core.data.batch.segments import run_ends, run_starts

RELATIVE_WIDTH: Final = 1e-3
"""Width of a bucket relative to its lower bound."""
SMALLEST: Final = 1e-9
"""Smaller magnitudes count as zero."""
LARGEST: Final = 1e18
"""Larger magnitudes count as this one."""
_LOG_GAMMA: Final = float(np.log1p(RELATIVE_WIDTH))
_SHIFT: Final = 1 << 16
_SHARES: Final = 4
"""Places over which `spread` draws a merged bucket out; eight were no nearer to the ranks."""
_REACH: Final = int(np.log(2.0) / _LOG_GAMMA)
"""Buckets that it reaches at most, a factor of two: a gap between 0 and 5 is not full of values."""
_MIX: Final = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True)
class Sketch:
    """Counts over buckets, sorted by code and bucket, each pair once.

    Attributes:
        code: [K] int32, index of the code.
        bucket: [K] int32, see `bucket_of`.
        count: [K] int64, subjects whose drawn value lies in the bucket; at least 1.
    """

    code: Int32
    bucket: Int32
    count: Int64


def bucket_of(value: Floats) -> Int32:
    """Return the bucket of each finite value: an integer that grows with the value, 0 for zero.

    Bucket b > 0 holds (S·γ^(b-2), S·γ^(b-1)] with γ = 1 + `RELATIVE_WIDTH` and S = `SMALLEST`;
    bucket -b holds the same magnitudes with a minus.
    """
    magnitude = np.abs(value.astype(np.float64))
    logs = np.log(np.clip(magnitude, SMALLEST, LARGEST) / SMALLEST) / _LOG_GAMMA
    index = np.ceil(logs).astype(np.int32) + 1
    return np.where(magnitude < SMALLEST, 0, np.where(value < 0, -index, index)).astype(np.int32)


def upper_edge(bucket: Int32) -> Float64:
    """Return the largest value of each bucket: what lies in or below the bucket is ≤ it."""
    steps = np.where(bucket > 0, bucket - 1, -bucket - 2).astype(np.float64)
    return np.sign(bucket) * SMALLEST * np.exp(steps * _LOG_GAMMA)


def one_per_subject(subject: Int64, code: Int64, code_key: Int64, *, seed: int = 0) -> Int64:
    """Return the rows to count: exactly one for each subject and code that has any.

    The draw is a hash of the subject, the code and `seed`: uniform over the rows, the same
    whenever the same record is read again, and independent of every other subject.

    Args:
        subject: [R] identifiers.
        code: [R] index of the code.
        code_key: [codes] a hash of each code, so that the draw does not depend on the index.
        seed: Key of the draw.
    """
    order = np.lexsort((code, subject))
    starts = run_starts(subject[order], code[order])
    first = np.flatnonzero(starts)
    size = np.diff(np.append(first, len(order)))
    row = order[first]
    chance = _mix(_mix(subject[row]) ^ _mix(code_key[code[row]] + np.int64(seed)).view(np.uint64))
    picked = first + (chance % size.astype(np.uint64)).astype(np.int64)
    return np.asarray(order[picked], np.int64)


def _mix(key: Integers) -> UInt64:
    """SplitMix64's finaliser."""
    z = key.view(np.uint64) + np.uint64(_MIX[0])
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX[1])
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX[2])
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def sketch(code: Integers, value: Floats) -> Sketch:
    """Return the sketch of rows that hold one finite value per subject and code."""
    return _collect(code, bucket_of(value), np.ones(len(code), np.int64))


def add(sketches: Sequence[Sketch]) -> Sketch:
    """Return the sum of sketches over the same code indices; the order does not matter."""
    code = np.concatenate([s.code for s in sketches] or [np.empty(0, np.int32)])
    bucket = np.concatenate([s.bucket for s in sketches] or [np.empty(0, np.int32)])
    count = np.concatenate([s.count for s in sketches] or [np.empty(0, np.int64)])
    return _collect(code, bucket, count)


def _collect(code: Integers, bucket: Int32, count: Int64) -> Sketch:
    key = _keys(code, bucket)
    order = np.argsort(key, kind="stable")
    key, count = key[order], count[order]
    first = np.flatnonzero(run_starts(key))
    total = np.add.reduceat(count, first) if len(first) else count
    key = key[first]
    return Sketch(
        (key // (2 * _SHIFT)).astype(np.int32),
        (key % (2 * _SHIFT) - _SHIFT).astype(np.int32),
        total.astype(np.int64),
    )


def _keys(code: Integers, bucket: Int32) -> Int64:
    return np.asarray(code.astype(np.int64) * (2 * _SHIFT) + (bucket.astype(np.int64) + _SHIFT))


def merge_small(given: Sketch, k: int) -> Sketch:
    """Merge neighbouring buckets of each code, from below, until each holds ≥ k subjects.

    A merged bucket stands at its largest member where that alone holds k, else at the mean of its
    members (microaggregation), so no count or place is that of fewer than k subjects. What is left
    at the top joins the bucket below; a code with fewer than k subjects vanishes.
    """
    groups = _groups(given, k)
    first = np.flatnonzero(groups)
    if not len(first):
        return Sketch(given.code[:0], given.bucket[:0], given.count[:0])
    group = np.cumsum(groups) - 1
    total = np.add.reduceat(given.count, first)
    largest = np.maximum.reduceat(given.count, first)
    weighted = np.add.reduceat(given.count * given.bucket.astype(np.int64), first)
    at_largest = np.flatnonzero(given.count == largest[group])
    place = np.empty(len(first), np.int64)
    place[group[at_largest]] = given.bucket[at_largest]
    place = np.where(largest >= k, place, np.rint(weighted / total).astype(np.int64))
    kept = total >= k
    return Sketch(given.code[first][kept], place[kept].astype(np.int32), total[kept])


def spread(merged: Sketch, whole: Bool) -> Sketch:
    """Draw merged buckets out: a share of their subjects at each of a few places around.

    Half of a bucket's subjects lie evenly between its place and the middle to the next one below,
    half towards the one above, as a cumulative distribution that is straight between places has
    them; beyond the ends as far out as in, and nowhere further than `_REACH`. It knows nothing but
    `merged`, so what comes out tells no more than what went in, though its counts are smaller:
    shares of a group.

    Args:
        merged: From `merge_small`.
        whole: [K] buckets that were not merged and stay where they are: many subjects, one value.
    """
    if not len(merged.code):
        return merged
    starts = run_starts(merged.code)
    ends = np.append(starts[1:], True)
    gap = np.diff(merged.bucket.astype(np.float64), append=0.0)
    reach = np.where(whole, 1.0, 0.5)  # up to a bucket that stands for itself alone, no half way
    above = np.where(ends, 0.0, gap * np.append(reach[1:], 0.0))
    below = np.where(starts, 0.0, np.roll(gap, 1) * np.append(0.0, reach[:-1]))
    above, below = np.where(ends, below, above), np.where(starts, above, below)
    above, below = np.minimum(above, _REACH), np.minimum(below, _REACH)
    around = (np.arange(_SHARES) + 0.5) / _SHARES * 2 - 1
    away = around * np.where(around < 0, below[:, None], above[:, None]) * ~whole[:, None]
    place = np.rint(merged.bucket[:, None] + away).astype(np.int32)
    cuts = merged.count[:, None] * np.arange(_SHARES + 1) // _SHARES
    share = np.diff(cuts, axis=1).reshape(-1)
    some = share > 0
    code = np.repeat(merged.code, _SHARES)
    return _collect(code[some], place.reshape(-1)[some], share[some])


def stands_alone(merged: Sketch, given: Sketch, k: int) -> Bool:
    """Return [K] which buckets of `merge_small(given, k)` hold k subjects of one value."""
    wanted, known = _keys(merged.code, merged.bucket), _keys(given.code, given.bucket)
    at = np.searchsorted(known, wanted).clip(max=max(0, len(known) - 1))
    return np.asarray((known[at] == wanted) & (given.count[at] >= k))


def _groups(given: Sketch, k: int) -> Bool:
    """Mark where a merged bucket starts: every code walks its buckets, all codes in step."""
    starts = run_starts(given.code)
    ends = run_ends(starts)
    groups = starts.copy()
    below = np.cumsum(given.count)
    here = np.flatnonzero(starts)
    while len(here):
        full = below[here] - given.count[here] + k
        after = np.searchsorted(below, full, side="left") + 1
        end = ends[here]
        inside = after < end
        after, end = after[inside], end[inside]
        enough = below[end - 1] - below[after - 1] >= k
        here = after[enough]
        groups[here] = True
    return groups


def quantile_buckets(merged: Sketch, codes: Int64, probabilities: Float64) -> Int32:
    """Return the bucket that holds each quantile, [len(codes), len(probabilities)].

    The p-quantile of n values is the smallest one with at least p·n values at or below it.

    Args:
        merged: Sketch in which each of `codes` has at least one count.
        codes: Code indices.
        probabilities: Each in (0, 1].
    """
    low = np.searchsorted(merged.code, codes, side="left")
    high = np.searchsorted(merged.code, codes, side="right")
    below = np.concatenate([[0], np.cumsum(merged.count)])
    total = below[high] - below[low]
    rank = np.maximum(np.ceil(total[:, None] * probabilities[None, :] - 1e-9), 1).astype(np.int64)
    at = np.searchsorted(below[1:], below[low][:, None] + rank, side="left")
    return np.asarray(merged.bucket[at], np.int32)
