"""Ragged, columnar records of many subjects: what tokenisation gives and batching reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int32, Int64, UInt8

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
