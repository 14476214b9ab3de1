"""Ragged, columnar records of many subjects: what tokenisation gives and batching reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int32, Int64, UInt8
from healthfm_core.data.batch.segments import offsets_of, search
from healthfm_core.npy_files import ArrayViews

PAD: Final = 0
STATIC: Final = 1
EVENT: Final = 2
WEARABLE: Final = 3
SOFT: Final = 4
SEP: Final = 5
NOW: Final = 6
KINDS: Final = 7
"""Kinds of token in a row; an item of `Sequences` is STATIC, EVENT or WEARABLE."""

SPREAD: Final = ("mean", "lowest", "highest", "first", "last", "count")
"""What a token tells of the values it stands for, besides the quantile of their mean."""

COUNT_SCALE: Final = 4.0
"""The count is log(1 + n) over this: about 1 at fifty values."""

UNKNOWN_TIME: Final = np.iinfo(np.int64).min
"""Stands for a missing birth."""

INDICES: Final[Mapping[str, str]] = {
    "offsets": "kind",
    "wearable_row": "wearable",
    "visit_offsets": "visit_time_us",
    "visit_target_offsets": "visit_target",
    "label_subject": "subject_id",
    "worn_offsets": "worn_item",
    "worn_item": "kind",
    "visit_stop": "kind",
}
"""Columns of `Sequences` and of `RecordIndex` that index another column, and which."""


_WORKED_OUT: Final = ("record", "per_subject", "totals", "files")
"""What does not depend on the labels."""


@dataclass(frozen=True)
class Sequences:
    """S subjects with N items, H wearable tokens, U visits, L labels; every array is C-contiguous.

    Items of subject s are ``offsets[s]:offsets[s + 1]``: statics first, then events and wearable
    tokens by time (a wearable token's time is the end of its hour). Times are int64 µs since 1970.
    A subject without a modality has no items of it: absent is a type, never a zero.

    Attributes:
        subject_id: [S] int64, known to the site only.
        site: [S] int32, index of the store the subject came from.
        birth_us: [S] int64, `UNKNOWN_TIME` where the record has none.
        offsets: [S + 1] int64 into items.
        kind: [N] uint8, STATIC | EVENT | WEARABLE.
        token: [N] int32, code⊕bin token (0 for a wearable token).
        code: [N] int32, code index without the bin (0 for a wearable token).
        quantile: [N] float32 in [-1, 1], where the value lies in the study's distribution of its
            code (0 is the median); 0 where `has_value` is false.
        spread: [N, K] float32, what `SPREAD` names of the values that a token stands for, as
            `Vocabulary.standardise` scales them; K is 0 where the study does without.
        has_value: [N] bool.
        time_us: [N] int64 (0 for statics).
        visit: [N] int32, index of the visit within the subject; -1 for statics and wearables.
        wearable_row: [N] int64 into `wearable`, -1 for other kinds.
        wearable: [H, W, F] float32, standardised by the study's moments, 0 where not observed.
        wearable_mask: [H, W, F] bool, true where observed.
        panel: [S, P] float32 values of the panels (polygenic scores), in standard deviations from
            the mean, clipped to ±6, 0 where absent.
        panel_mask: [S, P] bool, where present.
        visit_offsets: [S + 1] int64 into visits.
        visit_time_us: [U] int64, start of the visit.
        visit_target_offsets: [U + 1] int64 into `visit_target`.
        visit_target: [.] int32, distinct target codes (0 … V-1) that occur in the visit.
        label_subject: [L] int64, index of the subject (0 … S-1).
        label_time_us: [L] int64, prediction time: what is later than it may not be used.
        label_value: [L] float32, 0 or 1.
        panel_names: P names of the panels' columns, which tell whose each one is
            (`modalities.registry.columns_of`).
    """

    subject_id: Int64
    site: Int32
    birth_us: Int64
    offsets: Int64
    kind: UInt8
    token: Int32
    code: Int32
    quantile: Float32
    spread: Float32
    has_value: Bool
    time_us: Int64
    visit: Int32
    wearable_row: Int64
    wearable: Float32
    wearable_mask: Bool
    panel: Float32
    panel_mask: Bool
    visit_offsets: Int64
    visit_time_us: Int64
    visit_target_offsets: Int64
    visit_target: Int32
    label_subject: Int64
    label_time_us: Int64
    label_value: Float32
    panel_names: tuple[str, ...]

    @property
    def n_subjects(self) -> int:
        """Number of subjects S."""
        return len(self.subject_id)

    def n_items(self, subject: Int64) -> Int64:
        """Return how many items each of some subjects has."""
        return np.asarray(self.offsets[subject + 1] - self.offsets[subject])

    def n_visits(self, subject: Int64) -> Int64:
        """Return how many visits each of some subjects has."""
        return np.asarray(self.visit_offsets[subject + 1] - self.visit_offsets[subject])

    @property
    def items_worn(self) -> Int64:
        """[S] how many wearable tokens each subject has."""
        return np.diff(self.record.worn_offsets)

    # What follows lies on disk where the people do (`sequence_files`).

    @cached_property
    def record(self) -> RecordIndex:
        """What batching reads of the people again and again."""
        return RecordIndex.of(self)

    @cached_property
    def per_subject(self) -> dict[str, Int64]:
        """What was worked out of each subject [S], by what it is; filled as it is asked for."""
        return {}

    @cached_property
    def totals(self) -> dict[str, Int64]:
        """What was counted over all subjects, likewise."""
        return {}

    @cached_property
    def files(self) -> ArrayViews | None:
        """The files that the columns are views into; None where they are in memory."""
        return None

    def release(self) -> None:
        """Take the pages of the files out of memory that were read so far."""
        if self.files is not None:
            self.files.release()

    def with_labels(self, kept: Bool) -> Self:
        """Return the same people with some of their labels."""
        fewer = replace(
            self,
            label_subject=self.label_subject[kept],
            label_time_us=self.label_time_us[kept],
            label_value=self.label_value[kept],
        )
        vars(fewer).update({name: getattr(self, name) for name in _WORKED_OUT})
        return fewer

    def history_before(self, subject: Int64, time_us: Int64) -> Int64:
        """Return the item before which all that is not later than `time_us` lies."""
        low = self.offsets[subject] + self.record.n_static[subject]
        return search(self.time_us, low, self.offsets[subject + 1], time_us, "right")


@dataclass(frozen=True)
class RecordIndex:
    """What collation reads of `Sequences` again and again, worked out once.

    Attributes:
        n_static: [S] int64, static items.
        end_us: [S] int64, time of the last item, `UNKNOWN_TIME` where there is no timed one.
        worn_offsets: [S + 1] int64 into `worn_item`.
        worn_item: [H] int64, the wearable items.
        visit_end_us: [U] int64, time of the visit's last event.
        visit_stop: [U] int64, one past the last item that is not later than its end.
    """

    n_static: Int64
    end_us: Int64
    worn_offsets: Int64
    worn_item: Int64
    visit_end_us: Int64
    visit_stop: Int64

    @classmethod
    def of(cls, sequences: Sequences) -> RecordIndex:
        """Return it of people in memory."""
        subjects = sequences.n_subjects
        n_items, n_visits = np.diff(sequences.offsets), np.diff(sequences.visit_offsets)
        subject = np.repeat(np.arange(subjects), n_items)
        static, worn = sequences.kind == STATIC, np.flatnonzero(sequences.kind == WEARABLE)
        n_static = np.bincount(subject[static], minlength=subjects).astype(np.int64)
        end_us = np.full(subjects, UNKNOWN_TIME, np.int64)
        timed = n_items > n_static
        end_us[timed] = sequences.time_us[sequences.offsets[1:][timed] - 1]
        of_visit = np.repeat(np.arange(subjects), n_visits)
        visit_end_us = sequences.time_us[last_of_visits(sequences)]
        first_timed = sequences.offsets[:-1] + n_static
        return cls(
            n_static=n_static,
            end_us=end_us,
            worn_offsets=offsets_of(np.bincount(subject[worn], minlength=subjects)),
            worn_item=worn,
            visit_end_us=visit_end_us,
            visit_stop=search(
                sequences.time_us,
                first_timed[of_visit],
                sequences.offsets[1:][of_visit],
                visit_end_us,
                "right",
            ),
        )


def last_of_visits(sequences: Sequences) -> Int64:
    """Return [U] each visit's last item."""
    events = np.flatnonzero(sequences.kind == EVENT)
    subject = np.searchsorted(sequences.offsets, events, side="right") - 1
    last = np.zeros(len(sequences.visit_time_us), np.int64)
    last[sequences.visit_offsets[subject] + sequences.visit[events]] = events
    return last
