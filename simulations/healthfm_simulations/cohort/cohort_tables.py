"""From simulated lives to MEDS tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from meds import birth_code

from healthfm_core.arrays import Bool, Float32, Float64, Int64
from healthfm_core.data.store.labels import label_table
from healthfm_simulations.cohort.ancestry import CODE
from healthfm_simulations.cohort.generating_process import (
    CHANNEL_MEAN,
    CHANNEL_SD,
    LAB_MEAN,
    LAB_SCALE,
    DataGeneratingProcess,
)
from healthfm_simulations.cohort.oracle import OracleProbabilities
from healthfm_simulations.cohort.readings import READINGS_PER_HOUR, LabReadings, WearableReadings
from healthfm_simulations.cohort.simulated_people import SimulatedPeople, SimulatedVisits

EVENTS = pa.schema(
    {
        "subject_id": pa.int64(),
        "time": pa.timestamp("us"),
        "code": pa.string(),
        "numeric_value": pa.float32(),
    }
)
CODES = pa.schema(
    {"code": pa.string(), "description": pa.string(), "parent_codes": pa.list_(pa.string())}
)
RETURN_DAYS = 30.0
RETURN_TASK = "return_within_30_days"
"""What hospitals count as a readmission; a task no model of visits is trained for."""

SEXES = ("SEX//F", "SEX//M")


@dataclass(frozen=True)
class CodeBook:
    """Names of everything that can be in a record, in the order of the cohort's arrays."""

    conditions: tuple[str, ...]
    drugs: tuple[str, ...]
    labs: tuple[str, ...]
    scores: tuple[str, ...]

    @classmethod
    def of(cls, process: DataGeneratingProcess) -> CodeBook:
        """Name the codes of a cohort."""
        drugs, labs = len(process.drug_for), len(process.lab_loading) - 1
        return cls(
            conditions=tuple(f"DX//C{i:02d}" for i in range(len(process.intercept))),
            drugs=tuple(f"RX//D{i:02d}" for i in range(drugs)),
            labs=("VITAL//V00//units", *(f"LAB//L{i:02d}//units" for i in range(labs))),
            scores=tuple(f"PRS//PGS{900_000 + i}" for i in range(int(process.score.max()) + 1)),
        )

    @property
    def timed(self) -> tuple[str, ...]:
        """Codes that sites may name differently."""
        return self.conditions + self.drugs + self.labs

    def table(self, process: DataGeneratingProcess) -> pa.Table:
        """Code table with descriptions (MEDS ``metadata/codes.parquet``)."""
        score = {c: self.scores[s] for c, s in enumerate(process.score.tolist()) if s >= 0}
        conditions = [
            f"simulated {'chronic' if process.chronic[c] else 'acute'} condition {c}"
            + (f", driven by {score[c]}" if c in score else "")
            for c in range(len(self.conditions))
        ]
        names = self.timed + self.scores
        texts = [
            *conditions,
            *(f"simulated drug {i}" for i in range(len(self.drugs))),
            *(f"simulated reading {i}" for i in range(len(self.labs))),
            *(f"simulated polygenic score {i}" for i in range(len(self.scores))),
        ]
        parents: list[list[str]] = [[] for _ in names]
        return pa.table([names, texts, pa.array(parents, CODES.types[2])], schema=CODES)


def clinical_events(
    process: DataGeneratingProcess,
    people: SimulatedPeople,
    lives: SimulatedVisits,
    labs: LabReadings,
    subject_id: Int64,
    rng: np.random.Generator,
) -> pa.Table:
    """Return sex, birth, diagnoses, drugs and labs of everybody, sorted, statics first."""
    book = CodeBook.of(process)
    groups = tuple(ancestry_codes(people))
    before_visits = (*SEXES, *groups, birth_code)
    names = before_visits + book.labs + book.conditions + book.drugs
    first = np.searchsorted(lives.person, np.arange(len(people.site)))
    n_first, n_lab, n_dx = len(before_visits), len(book.labs), len(book.conditions)
    coded = lives.present.astype(np.float64)
    drugged = rng.random((len(coded), len(book.drugs))) < -np.expm1(
        coded @ np.log1p(-process.drug_for).T
    )
    lab_visit, lab = np.nonzero(labs.taken)
    dx_visit, dx = np.nonzero(lives.present)
    rx_visit, rx = np.nonzero(drugged)
    grouped = first if groups else first[:0]
    visit = np.concatenate([first, grouped, first, lab_visit, dx_visit, rx_visit])
    code = np.concatenate(
        [
            people.male.astype(np.int64),
            len(SEXES) + people.ancestry[: len(grouped)],
            np.full(len(first), n_first - 1),
            lab + n_first,
            dx + n_first + n_lab,
            rx + n_first + n_lab + n_dx,
        ]
    )
    value = np.full(len(code), np.nan)
    before = 2 * len(first) + len(grouped)
    at_labs = slice(before, before + len(lab))
    value[at_labs] = LAB_MEAN + LAB_SCALE * labs.value[lab_visit, lab]
    order = np.argsort(visit * len(names) + code)
    visit, code, value = visit[order], code[order], value[order].astype(np.float32)
    person = lives.person[visit]
    time = np.where(code == n_first - 1, people.birth_us[person], lives.time_us[visit])
    codes = pa.DictionaryArray.from_arrays(pa.array(code, pa.int32()), pa.array(names))
    return pa.table(
        [
            pa.array(subject_id[person]),
            pa.array(time, pa.timestamp("us"), mask=code < n_first - 1),
            codes.cast(pa.string()),
            pa.array(value, mask=np.isnan(value)),
        ],
        schema=EVENTS,
    )


def ancestry_codes(people: SimulatedPeople) -> list[str]:
    """Return the static codes of the groups, in order; none where there is one group."""
    groups = int(people.ancestry.max(initial=0)) + 1
    return [CODE.format(group) for group in range(groups)] if groups > 1 else []


def score_rows(
    process: DataGeneratingProcess,
    z: Float64,
    has_score: Bool,
    subject_id: Int64,
) -> pa.Table:
    """Return the scores `z` [N, P], a row per subject and score (subject_id, score, z)."""
    names = [name.removeprefix("PRS//") for name in CodeBook.of(process).scores]
    holders = np.flatnonzero(has_score) if names else np.zeros(0, np.int64)
    return pa.table(
        {
            "subject_id": np.repeat(subject_id[holders], len(names)),
            "score": pa.array(names * len(holders), pa.string()),
            "z": z[holders][:, : len(names)].ravel(),
        }
    )


def wearable_rows(
    process: DataGeneratingProcess,
    lives: SimulatedVisits,
    wearing: WearableReadings,
    subject_id: Int64,
) -> pa.Table:
    """Return the readings, one row per channel and stretch of wearing, in physical units."""
    channels = len(process.channel_loading)
    length = np.repeat(wearing.hours * READINGS_PER_HOUR, channels)
    index = np.tile(np.arange(channels), len(wearing.visit))
    mean, sd = _scales(channels)
    value = wearing.reading * np.repeat(sd[index], length) + np.repeat(mean[index], length)
    value = np.where(wearing.worn, value, np.float32(0.0))
    offsets = pa.array(np.r_[0, np.cumsum(length)].astype(np.int32))
    channel = pa.DictionaryArray.from_arrays(
        pa.array(index, pa.int32()), pa.array(process.channels, pa.string())
    )
    return pa.table(
        {
            "subject_id": np.repeat(subject_id[lives.person[wearing.visit]], channels),
            "start": pa.array(np.repeat(wearing.start_us, channels), pa.timestamp("us")),
            "channel": channel.cast(pa.string()),
            "hz": np.full(len(index), READINGS_PER_HOUR / 3600.0),
            "value": pa.ListArray.from_arrays(offsets, pa.array(value)),
            "mask": pa.ListArray.from_arrays(offsets, pa.array(wearing.worn)),
        }
    )


def _scales(
    channels: int,
) -> tuple[Float32, Float32]:
    mean, sd = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    known = min(channels, len(CHANNEL_MEAN))
    mean[:known], sd[:known] = CHANNEL_MEAN[:known], CHANNEL_SD[:known]
    return mean, sd


def oracle_rows(
    process: DataGeneratingProcess,
    lives: SimulatedVisits,
    oracle: OracleProbabilities,
    subject_id: Int64,
) -> pa.Table:
    """Return a row per (visit asked about, condition): the outcome and its true probabilities."""
    conditions = CodeBook.of(process).conditions
    visits, n = len(oracle.visit), len(conditions)
    code = pa.DictionaryArray.from_arrays(
        pa.array(np.tile(np.arange(n, dtype=np.int32), visits)), pa.array(conditions)
    )
    at = oracle.visit
    return pa.table(
        {
            "subject_id": np.repeat(subject_id[lives.person[at]], n),
            "visit": np.repeat(lives.number[at].astype(np.int32), n),
            "time": pa.array(np.repeat(lives.time_us[at], n), pa.timestamp("us")),
            "code": code,
            "repeats": lives.earlier[at].ravel(),
            "outcome": lives.present[at].ravel(),
            "filtered": oracle.filtered.astype(np.float32).ravel(),
            "present": oracle.present.astype(np.float32).ravel(),
            "all": oracle.all.astype(np.float32).ravel(),
        }
    )


def return_labels(lives: SimulatedVisits, ids: Int64, rng: np.random.Generator) -> pa.Table:
    """Return one label per person with two visits: whether the next one comes within 30 days.

    Asked at the end of a visit drawn among all but the last, after which nothing is known.
    """
    first = np.flatnonzero(lives.number == 0)
    visits = np.diff(np.append(first, len(lives.number)))
    again = visits > 1
    chosen = first[again] + rng.integers(0, visits[again] - 1)
    soon = lives.gap_days[chosen + 1] <= RETURN_DAYS
    return label_table(ids[lives.person[chosen]], lives.time_us[chosen], soon)


def rows_of(table: pa.Table, first_id: int, last_id: int) -> pa.Table:
    """Return the rows of subjects ``first_id … last_id``; the table is sorted by subject."""
    ids = table["subject_id"].to_numpy()
    start, stop = np.searchsorted(ids, [first_id, last_id + 1])
    return table.slice(int(start), int(stop - start))
