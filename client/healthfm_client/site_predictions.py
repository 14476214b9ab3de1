"""A site's predictions: from a model and a store to a file that stays, and what is said of it."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_client.progress_bar import progress_bar
from healthfm_client.site.private_file import private_draft, write_private
from healthfm_client.site_store.asked_moments import asked_moments
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from healthfm_core.predict import (
    REASONS,
    PeopleLimits,
    PeoplePredictions,
    PredictionTask,
    check_readable,
    predict_people,
)
from healthfm_core.predict.prediction_table import PREDICTIONS, prediction_table
from healthfm_core.predict.site_calibration import SiteCalibration
from healthfm_core.seeding import numpy_generator
from healthfm_core.stdout import say
from healthfm_core.trained import TrainedModel

ROWS_PER_GROUP: Final = 1 << 16
THRESHOLD: Final = 20
"""Counts under it are not printed; the file has them."""
INTENDED_USE: Final = (
    "Not a medical device: for research, and to be validated on your own people before anything is "
    "concluded. No treatment may rest on it."
)


@dataclass
class Told:
    """What is said of predictions once they are written.

    Attributes:
        predicted: How many have a probability.
        total: The sum of the probabilities.
        left_out: Reason → how many.
    """

    predicted: int = 0
    total: float = 0.0
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, found: PeoplePredictions, probability: np.ndarray) -> None:
        """Count some more."""
        told = ~np.isnan(probability)
        self.predicted += int(told.sum())
        self.total += float(probability[told].sum())
        names = tuple(REASONS)
        of, count = np.unique(found.reason[found.reason >= 0], return_counts=True)
        for reason, n in zip(of.tolist(), count.tolist(), strict=True):
            self.left_out[names[reason]] += n


def write(given: Namespace) -> None:
    """Predict as the command line says, and write the file.

    Raises:
        HealthFMError: HF-201 to HF-210, HF-350, HF-351, HF-401, HF-707 to HF-709, HF-711.
    """
    model, store = TrainedModel.load(given.model), SiteStore.open(given.store)
    task = PredictionTask.of(model, given.task, given.horizon)
    view, unread = check_readable(model, store, given.modalities)
    for sentence in unread:
        say(sentence)
    at = None if given.at is None else asked_moments(given.at, store)
    found = _found(model, view, task, at, _limits(given, model, task))
    told, calibration = Told(), _calibration(given, model, task)
    tables = _tables(found, told, given.threshold, calibration)
    with private_draft(given.out) as draft:
        write_groups(tables, draft, _metadata(model, task, calibration))
    for line in _summary(model, task, told, calibration):
        say(line)
    if given.ages is None:
        say(
            "people of every age: the model does not tell which ages it saw; --ages leaves some out"
        )
    say(INTENDED_USE)
    say(f"{given.out}: about people; only you can read it, and it stays at this site")


def _limits(given: Namespace, model: TrainedModel, task: PredictionTask) -> PeopleLimits:
    edges = model.study.config.train.horizons_days
    return PeopleLimits(
        known_codes=given.known_codes,
        ages=given.ages,
        max_gap_days=given.max_gap,
        last_edge_days=edges[-1] if task.after_visits else None,
    )


def _found(
    model: TrainedModel,
    view: SiteStore,
    task: PredictionTask,
    at: pa.Table | None,
    limits: PeopleLimits,
) -> Iterator[PeoplePredictions]:
    with progress_bar() as show:

        def shown(done: int, total: int) -> None:
            show("people", done, total)

        yield from predict_people(model, view, task, limits=limits, at=at, show=shown)


def _tables(
    found: Iterable[PeoplePredictions],
    told: Told,
    threshold: float | None,
    calibration: SiteCalibration | None,
) -> Iterator[pa.Table]:
    for part in found:
        probability = part.probability.astype(np.float64)
        if calibration is not None:
            probability = calibration.curve(part.probability)
        told.add(part, probability)
        yield prediction_table(part, probability, threshold)


def write_groups(tables: Iterable[pa.Table], file: Path, metadata: dict[str, str]) -> None:
    """Write tables of `PREDICTIONS` to an open file, a group of rows at a time."""
    schema = PREDICTIONS.with_metadata(metadata)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        waiting: list[pa.Table] = []
        for table in tables:
            waiting.append(table)
            if sum(map(len, waiting)) >= ROWS_PER_GROUP:
                writer.write_table(pa.concat_tables(waiting).replace_schema_metadata(metadata))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting).replace_schema_metadata(metadata))


def _calibration(
    given: Namespace, model: TrainedModel, task: PredictionTask
) -> SiteCalibration | None:
    if given.calibration is None:
        return None
    where = str(given.calibration)
    try:
        text = given.calibration.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IngestError(353, where=where, seen="it cannot be read") from error
    return SiteCalibration.from_json(text, model, task, where)


def calibrate(given: Namespace) -> None:
    """Fit a calibration on the tuning people's outcomes, judge it on the held-out ones', write it.

    Raises:
        HealthFMError: As `write`, and HF-352.
    """
    model, store = TrainedModel.load(given.model), SiteStore.open(given.store)
    task = PredictionTask.of(model, given.task, given.horizon)
    view, _ = check_readable(model, store, given.modalities)
    at = asked_moments(given.calibrate, store, outcomes=True)
    others = np.concatenate([store.subjects("tuning"), store.subjects("held_out")])
    at = at.filter(pa.array(np.isin(ids(at), others)))
    found = list(_found(model, view, task, at, _limits(given, model, task)))
    who, score, outcome = (
        np.concatenate([np.zeros(0), *(getattr(part, name) for part in found)])
        for name in ("subject_id", "probability", "outcome")
    )
    told = ~np.isnan(score)
    subject, happened = who.astype(np.int64), outcome > 0
    tuning = told & np.isin(subject, store.subjects("tuning"))
    rest = told & ~tuning
    calibration = SiteCalibration.of(
        model,
        task,
        given.method,
        (score[tuning], happened[tuning]),
        (subject[rest], score[rest], happened[rest]),
        numpy_generator(0, "calibration"),
    )
    write_private(given.out, calibration.to_json())
    for line in _calibrated(calibration):
        say(line)
    say(f"{given.out}: use it with --calibration; it is made of people and stays at this site")


def _calibrated(calibration: SiteCalibration) -> Iterator[str]:
    rows, cases = calibration.fitted_on
    curve = calibration.curve
    yield (
        f"{calibration.task}: {curve.method} on {rows:,} rows of tuning people, {cases:,} with "
        "the outcome"
    )
    rows, cases = calibration.judged_on
    judged = calibration.judged
    if judged is None:
        yield "how well it holds is not known: too few outcomes among the held-out people"
        return
    yield f"on {rows:,} rows of held-out people, {cases:,} with the outcome, 95 % intervals:"
    for name in ("brier", "ece"):
        before, after, change = (
            "{:.4f} [{:.4f}, {:.4f}]".format(*getattr(judged, f"{name}_{which}"))
            for which in ("before", "after", "change")
        )
        yield f"  {name.upper() if name == 'ece' else 'Brier':<5}  {before} → {after}, {change}"
    if judged.brier_change[2] >= 0:
        yield "that it helps is not shown: the interval of the Brier score's change holds 0 or more"


def _metadata(
    model: TrainedModel, task: PredictionTask, calibration: SiteCalibration | None
) -> dict[str, str]:
    return {
        "healthfm.calibration": "none" if calibration is None else calibration.curve.method,
        "healthfm.question": task.sentence,
        "healthfm.study": model.study.run_id,
        "healthfm.study_sha256": model.study.hash,
        "healthfm.round": str(model.round),
        "healthfm.intended_use": INTENDED_USE,
    }


def _summary(
    model: TrainedModel, task: PredictionTask, told: Told, calibration: SiteCalibration | None
) -> Iterator[str]:
    asked = told.predicted + sum(told.left_out.values())
    yield (
        f"{task.sentence}, by the model of {model.study.run_id} after round {model.round}: "
        f"{told.predicted:,} of {asked:,} asked about"
    )
    if told.predicted:
        mean = told.total / told.predicted
        rates = (
            "if this site were as the study's sites are: the numbers are at their rates, and not "
            "calibrated to this site"
        )
        if calibration is not None:
            rates = f"by {calibration.curve.method} on {calibration.fitted_on[0]:,} rows of its own"
        yield f"of 100 of them about {100 * mean:.3g} would have it, {rates}"
    for name in REASONS:
        if told.left_out[name]:
            yield f"left out: {_few(told.left_out[name])}, since {REASONS[name]} ({name})"


def _few(count: int) -> str:
    return f"fewer than {THRESHOLD}" if count < THRESHOLD else f"{count:,}"
