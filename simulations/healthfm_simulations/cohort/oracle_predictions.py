"""The oracle's tables, read back: ceilings for a report, half-lives of the process."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.errors import StoreError
from healthfm_core.evaluation import Predictions
from healthfm_simulations.cohort.cohort_stores import PROCESS_FILE, TRUTH

OracleInformation = Literal["filtered", "present", "all"]
Truth = OracleInformation | Literal["outcome", "repeats"]
"""A column of the oracle's tables."""


def ceiling(
    folder: Path,
    subjects: Mapping[str, Int64],
    targets: Sequence[str],
    *,
    information: OracleInformation = "present",
    latest: int | None = None,
) -> Predictions:
    """Return the oracle's predictions for the given people's visits, as if it were a model.

    Args:
        folder: What `write_sites` wrote to.
        subjects: Site name → ids of the people asked about, for example the held-out ones.
        targets: The vocabulary's targets; only those that are conditions give rows.
        information: What the oracle knows, see `oracle`: ``filtered`` the readings the site holds,
            ``present`` the latents up to the previous visit (no model can do better but by
            chance), ``all`` the latents at the visit asked about too.
        latest: Only so many latest visits of each subject, as many as the model was asked about.

    Raises:
        StoreError: HF-208, there are no oracle tables in `folder`.
    """
    parts = []
    for index, (site, ids) in enumerate(subjects.items()):
        path = folder / TRUTH / f"{site}.parquet"
        if not path.exists():
            raise _no_truth(f"{TRUTH}/{site}.parquet")
        table = pq.read_table(
            path, columns=["subject_id", "visit", "code", "repeats", "outcome", information]
        )
        table = table.filter(pc.is_in(table["subject_id"], pa.array(ids, pa.int64())))
        parts.append(_predictions(table, index, list(targets), information, latest))
    return Predictions.concatenate(parts)


def _predictions(
    table: pa.Table,
    site: int,
    targets: list[str],
    information: OracleInformation,
    latest: int | None,
) -> Predictions:
    code = table["code"].combine_chunks().dictionary_encode()
    column = {name: i for i, name in enumerate(targets)}
    place = np.array([column.get(name, -1) for name in code.dictionary.to_pylist()], np.int32)
    target = place[np.asarray(code.indices)] if len(place) else np.zeros(0, np.int32)
    subject = table["subject_id"].to_numpy()
    keep = target >= 0
    if latest is not None and len(subject):
        visit = table["visit"].to_numpy()
        _, person = np.unique(subject, return_inverse=True)
        last = np.zeros(person.max() + 1, visit.dtype)
        np.maximum.at(last, person, visit)
        keep &= visit > last[person] - latest
    return Predictions(
        subject=subject[keep],
        site=np.full(int(keep.sum()), site, np.int32),
        target=target[keep],
        repeats=table["repeats"].to_numpy()[keep].astype(np.float32),
        score=table[information].to_numpy()[keep],
        outcome=np.asarray(table["outcome"])[keep].astype(np.bool_),
    )


def scores_at(
    folder: Path,
    site: str,
    subject: Int64,
    time_us: Int64,
    targets: Sequence[str],
    *,
    information: Truth = "present",
) -> Float32:
    """Return the oracle's probability [n, V] of each target at each visit asked about.

    For a ceiling on the very rows a model answered. NaN where the target is no condition.

    Args:
        folder: What `write_sites` wrote to.
        site: The site's name.
        subject: [n] subject ids.
        time_us: [n] time of the visit asked about (a SEP's own time).
        targets: V names.
        information: What the oracle knows, see `ceiling`; or instead of a probability what
            happened, and how many earlier visits held the target.

    Raises:
        StoreError: HF-208 without oracle tables in `folder`; HF-210 where a visit is not in it.
    """
    path = folder / TRUTH / f"{site}.parquet"
    if not path.exists():
        raise _no_truth(f"{TRUTH}/{site}.parquet")
    table = pq.read_table(path, columns=["subject_id", "time", "code", information])
    code = table["code"].combine_chunks().dictionary_encode()
    conditions = len(code.dictionary)
    grid = table[information].to_numpy().reshape(-1, conditions)
    names = [code.dictionary[i].as_py() for i in np.asarray(code.indices)[:conditions]]
    key = np.empty(len(grid), [("subject", np.int64), ("time", np.int64)])
    key["subject"] = table["subject_id"].to_numpy()[::conditions]
    key["time"] = table["time"].cast(pa.int64()).to_numpy()[::conditions]
    asked = np.empty(len(subject), key.dtype)
    asked["subject"], asked["time"] = subject, time_us
    row = np.minimum(np.searchsorted(key, asked), max(len(key) - 1, 0))
    if not np.array_equal(key[row], asked):
        raise StoreError(
            210,
            where=f"{TRUTH}/{site}.parquet",
            seen="a visit asked about is not in it",
            wanted="visits of this cohort, each with an earlier one",
            do="Ask about visits of the stores beside these tables",
        )
    scores = np.full((len(subject), len(targets)), np.nan, np.float32)
    for column, name in enumerate(targets):
        if name in names:
            scores[:, column] = grid[row, names.index(name)]
    return scores


def half_lives(folder: Path) -> tuple[float, ...]:
    """Return the half-lives of the latents in days, slow ones first.

    Raises:
        StoreError: HF-208, there are no oracle tables in `folder`.
    """
    path = folder / TRUTH / PROCESS_FILE
    if not path.exists():
        raise _no_truth(f"{TRUTH}/{PROCESS_FILE}")
    return tuple(json.loads(path.read_text(encoding="utf-8"))["half_life_days"])


def is_condition(targets: Collection[str]) -> Bool:
    """Return which targets are conditions of the cohort, those the oracle predicts."""
    return np.array([name.startswith("DX//") for name in targets], np.bool_)


def _no_truth(where: str) -> StoreError:
    return StoreError(
        208,
        where=where,
        seen="the file does not exist",
        wanted="a folder of the simulated cohort has the oracle's tables beside its stores",
        do="Simulate the cohort again",
    )
