"""What any model has to beat at a label: regression and boosted trees on summaries of the history.

Per numeric code the mean, smallest, largest and last value up to the prediction time, per other
code whether it occurred, per wearable channel mean and spread, and age. Missing summaries take the
training median and leave a mark of their own; trees branch on what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from meds import birth_code
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from healthfm_core.arrays import Bool, Float64, Int32, Int64
from healthfm_core.data.batch.segments import ranges, search
from healthfm_core.data.batch.sequences import UNKNOWN_TIME
from healthfm_core.data.store.events import coded, ids, times_us
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.evaluation.predictions import Predictions
from healthfm_core.tokens.shared_channels import SHARED

K_MIN: Final = 20
STRENGTH: Final = 0.05
"""Inverse weight of the L2 penalty (scikit-learn's C) on standardised summaries."""
YEAR_US: Final = 365.25 * 86_400_000_000


@dataclass(frozen=True)
class Summarised:
    """What is summarised: chosen on training people, applied to everyone.

    Attributes:
        numeric: Codes with values: mean, min, max and last of each.
        other: Codes without: whether they occurred.
        channels: Wearable channels: mean and spread of each.
        device: The wearable device, None for all of them.
    """

    numeric: tuple[str, ...]
    other: tuple[str, ...]
    channels: tuple[str, ...]
    device: str | None = None

    @property
    def width(self) -> int:
        """Number of summaries F."""
        return 1 + 4 * len(self.numeric) + len(self.other) + 2 * len(self.channels)


@dataclass(frozen=True)
class Summaries:
    """Summaries of n predictions.

    Attributes:
        subject: [n] subject ids.
        site: [n] int32, index of the store.
        x: [n, F] age, then as `Summarised` lists them; NaN where there is nothing to summarise.
        outcome: [n].
        time_us: [n] as of when; `UNKNOWN_TIME` throughout where nobody says.
    """

    subject: Int64
    site: Int32
    x: Float64
    outcome: Bool
    time_us: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.time_us):
            object.__setattr__(self, "time_us", np.full(len(self.subject), UNKNOWN_TIME))

    def where(self, mask: Bool) -> Summaries:
        """Return the predictions where `mask` [n] is true."""
        return Summaries(**{name: getattr(self, name)[mask] for name in self.__dataclass_fields__})


def choose(
    stores: Sequence[SiteStore],
    *,
    split: str | None = "train",
    device: str | None = None,
    k_min: int = K_MIN,
) -> Summarised:
    """Choose the codes that at least `k_min` of the stores' people have, and all channels.

    A code is numeric where at least half of its events hold a value.
    """
    people: dict[str, int] = {}
    valued: dict[str, list[int]] = {}
    channels: set[str] = set()
    for store in stores:
        events = store.events(split)
        code, names = coded(events["code"])
        pairs = np.unique(np.stack([code, ids(events)]), axis=1)[0]
        has = np.asarray(events["numeric_value"].is_valid()).astype(np.float64)
        for i, name in enumerate(names):
            people[name] = people.get(name, 0) + int((pairs == i).sum())
        rows = np.bincount(code, minlength=len(names))
        values = np.bincount(code, weights=has, minlength=len(names))
        for i, name in enumerate(names):
            before = valued.setdefault(name, [0, 0])
            valued[name] = [before[0] + int(rows[i]), before[1] + int(values[i])]
        for rows in _worn(store, device, split):
            channels |= set(rows["channel"].unique().to_pylist())
    kept = sorted(n for n, count in people.items() if count >= k_min and n != birth_code)
    numeric = tuple(name for name in kept if 2 * valued[name][1] >= valued[name][0])
    other = tuple(name for name in kept if name not in set(numeric))
    return Summarised(numeric, other, tuple(sorted(channels)), device)


def summarise(
    stores: Sequence[SiteStore], task: str, what: Summarised, *, split: str | None = None
) -> Summaries:
    """Summarise the history of every label of `task`, up to and including its prediction time."""
    parts = [_of_store(store, i, task, what, split) for i, store in enumerate(stores)]
    return Summaries(
        np.concatenate([part.subject for part in parts]),
        np.concatenate([part.site for part in parts]),
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.outcome for part in parts]),
        np.concatenate([part.time_us for part in parts]),
    )


def fit(train: Summaries, *, strength: float = STRENGTH) -> Pipeline:
    """Fit the regression; score others with ``model.predict_proba(x)[:, 1]``."""
    model = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=strength, max_iter=2000),
    )
    return model.fit(train.x, train.outcome)


def fit_trees(train: Summaries, *, seed: int = 0) -> HistGradientBoostingClassifier:
    """Fit gradient boosting: a hundred and fifty small trees."""
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=150,
        max_leaf_nodes=15,
        min_samples_leaf=20,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    nowhere = np.isnan(train.x).all(axis=0)  # scikit-learn finds no bins for it
    return model.fit(np.where(nowhere, 0.0, train.x), train.outcome)


def predict(model: Pipeline | HistGradientBoostingClassifier, test: Summaries) -> Predictions:
    """Return a fitted model's predictions of a label task."""
    n = len(test.subject)
    score = model.predict_proba(test.x)[:, 1] if n else np.zeros(0)
    return Predictions(
        subject=test.subject,
        site=test.site,
        target=np.zeros(n, np.int32),
        repeats=np.zeros(n, np.float32),
        score=np.asarray(score, np.float32),
        outcome=test.outcome,
        time_us=test.time_us,
    )


def _worn(store: SiteStore, device: str | None, split: str | None) -> Iterator[pa.Table]:
    """Yield what was worn of a device, of every one for None; a scale of its own is a column."""
    for name in store.devices:
        if device in (None, name):
            rows = store.wearable(name, split)
            code, names = coded(rows["channel"])
            named = [f"{name}/{one}" if one in SHARED and device is None else one for one in names]
            column = pa.array(named, pa.string()).take(pa.array(code))
            yield rows.set_column(rows.column_names.index("channel"), "channel", column)


def _of_store(
    store: SiteStore, site: int, task: str, what: Summarised, split: str | None
) -> Summaries:
    labels = store.labels(task)
    if split is not None:
        labels = labels.filter(pc.is_in(labels["subject_id"], pa.array(store.subjects(split))))
    labels = labels.filter(labels["boolean_value"].is_valid())
    subject, time = ids(labels), times_us(labels, "prediction_time")
    outcome = np.asarray(labels["boolean_value"].to_numpy(), np.bool_)
    x = np.full((len(subject), what.width), np.nan)
    if len(subject):
        _clinical(x, store.events(split), what, subject, time)
        worn = list(_worn(store, what.device, split)) if what.channels else []
        if worn:
            _wearable(x, pa.concat_tables(worn), what, subject, time)
    return Summaries(subject, np.full(len(subject), site, np.int32), x, outcome, time)


def _clinical(x: Float64, events: pa.Table, what: Summarised, subject: Int64, time: Int64) -> None:
    """Fill age and the summaries of codes."""
    code, names = coded(events["code"])
    value = events["numeric_value"].fill_null(np.nan).to_numpy().astype(np.float64)
    label, event = _up_to(ids(events), times_us(events), subject, time)
    born = [i for i, name in enumerate(names) if name == birth_code]
    births = np.isin(code[event], born)
    birth_time = times_us(events)[event[births]]
    x[label[births], 0] = (time[label[births]] - birth_time) / YEAR_US
    place = {name: i for i, name in enumerate(what.numeric)}
    column = np.array([place.get(name, -1) for name in names], np.int64)[code[event]]
    keep = (column >= 0) & np.isfinite(value[event])
    _four(x, label[keep], column[keep], value[event[keep]], len(what.numeric))
    first = 1 + 4 * len(what.numeric)
    place = {name: first + i for i, name in enumerate(what.other)}
    column = np.array([place.get(name, -1) for name in names], np.int64)[code[event]]
    if len(event):
        x[:, first : first + len(what.other)] = 0.0
    x[label[column >= 0], column[column >= 0]] = 1.0


def _up_to(owner: Int64, at: Int64, subject: Int64, time: Int64) -> tuple[Int64, Int64]:
    """Pairs (label, row) of every row of the label's subject at or before its time."""
    low = np.searchsorted(owner, subject, side="left").astype(np.int64)
    high = np.searchsorted(owner, subject, side="right").astype(np.int64)
    stop = search(at, low, high, time, "right")
    return np.repeat(np.arange(len(subject)), stop - low), ranges(low, stop - low)


def _four(x: Float64, label: Int64, column: Int64, value: Float64, width: int) -> None:
    """Fill mean, min, max and last of each (label, column); rows come in order of time."""
    if not len(value):
        return
    key = label * width + column
    order = np.argsort(key, kind="stable")
    key, value = key[order], value[order]
    begin = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    count = np.diff(np.r_[begin, len(key)])
    row, place = key[begin] // width, 1 + 4 * (key[begin] % width)
    x[row, place] = np.add.reduceat(value, begin) / count
    x[row, place + 1] = np.minimum.reduceat(value, begin)
    x[row, place + 2] = np.maximum.reduceat(value, begin)
    x[row, place + 3] = value[begin + count - 1]


def _wearable(x: Float64, rows: pa.Table, what: Summarised, subject: Int64, time: Int64) -> None:
    """Fill mean and spread of each channel over the stretches that ended by the label's time."""
    code, names = coded(rows["channel"])
    place = {name: i for i, name in enumerate(what.channels)}
    column = np.array([place.get(name, -1) for name in names], np.int64)[code]
    length = np.asarray(pc.list_value_length(rows["value"]).to_numpy(), np.int64)
    value = np.asarray(pc.list_flatten(rows["value"]).to_numpy(), np.float64)
    worn = np.asarray(pc.list_flatten(rows["mask"]).to_numpy(zero_copy_only=False), np.bool_)
    owner = np.repeat(np.arange(len(length)), length)[worn]
    sums = [
        np.bincount(owner, v, len(length))
        for v in (np.ones(len(owner)), value[worn], value[worn] ** 2)
    ]
    length_us = np.asarray(length / rows["hz"].to_numpy() * 1e6, np.int64)
    end = times_us(rows, "start") + length_us
    order = np.lexsort((end, ids(rows)))
    label, row = _up_to(ids(rows)[order], end[order], subject, time)
    row = order[row]
    keep = column[row] >= 0
    cell = label[keep] * len(what.channels) + column[row[keep]]
    n, total, square = (
        np.bincount(cell, s[row[keep]], len(subject) * len(what.channels)).reshape(len(subject), -1)
        for s in sums
    )
    filled = n > 0
    n = np.maximum(n, 1.0)
    spread = np.sqrt(np.maximum(square / n - (total / n) ** 2, 0.0))
    first = what.width - 2 * len(what.channels)
    x[:, first::2] = np.where(filled, total / n, np.nan)
    x[:, first + 1 :: 2] = np.where(filled, spread, np.nan)
