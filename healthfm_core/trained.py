"""A trained model as a folder, and what a researcher asks of it outside of any federation.

``model.safetensors`` holds the parameters, with the hash of the study beside them; ``study.json``
how people become tokens and what the model is; ``README.md`` is the model card. Nothing in the
folder is about a person. Answers are given at the study's own rates: a site's intercepts
(`training.intercepts`) stay at the site.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from meds import death_code
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from healthfm_core.arrays import Float32, Float32Arrays, Int64
from healthfm_core.config.renamed import upgraded_parameters
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.moments import Moments
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import RunError
from healthfm_core.federation.privacy_statement import privacy_statement
from healthfm_core.federation.protocol import Study
from healthfm_core.models import HealthFM
from healthfm_core.models.inference import answer, logistic, logits_of
from healthfm_core.objectives.time_to_event import check_horizon, risk
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_core.training.loaders import loader_for
from healthfm_core.training.site_data import loaded_model, model_for

WEIGHTS: Final = "model.safetensors"
STUDY: Final = "study.json"
CARD: Final = "README.md"
BATCH: Final = 64


@dataclass(frozen=True)
class Embeddings:
    """n states of the model, one after each visit that a subject's window holds.

    Attributes:
        subject_id: [n] int64, the store's own.
        time_us: [n] int64, µs since 1970: nothing later was read.
        vector: [n, d] float32.
    """

    subject_id: Int64
    time_us: Int64
    vector: Float32


@dataclass(frozen=True)
class Risks:
    """n predictions, one after each visit that a subject's window holds.

    Attributes:
        subject_id: [n] int64, the store's own.
        time_us: [n] int64, µs since 1970: nothing later was read.
        targets: V names, the columns of `probability`.
        probability: [n, V] float32, of the target's next occurrence within the horizon.
    """

    subject_id: Int64
    time_us: Int64
    targets: tuple[str, ...]
    probability: Float32


@dataclass(frozen=True)
class StoreReading:
    """A store as a model reads it.

    Attributes:
        people: Its people, tokenised.
        loader: Batches of them.
        model: With the encoders of what the store holds, set to evaluation.
        vocabulary: The study's.
    """

    people: Sequences
    loader: BatchLoader
    model: HealthFM
    vocabulary: Vocabulary


@dataclass(frozen=True)
class TrainedModel:
    """Parameters and the study they were trained in.

    Attributes:
        study: Vocabulary, configuration and modalities.
        parameters: Every parameter of the study's model, float32, by name.
        round: Rounds they were trained for.
    """

    study: Study
    parameters: Mapping[str, Float32]
    round: int

    def save(self, folder: Path, more: Sequence[str] = (), above: str = "") -> None:
        """Write the folder, whole or not at all.

        Args:
            folder: Does not exist yet.
            more: Lines for the model card, of the run that trained it.
            above: What stands above the card, for a model hub.

        Raises:
            RunError: There is something at `folder` already (HF-704).
        """
        if folder.exists():
            raise RunError(
                704,
                where=str(folder),
                seen="something is there already",
                wanted="a model is written to a folder of its own",
                do="Name a folder that does not exist yet",
            )
        draft = folder.with_name(f".{folder.name}.{os.getpid()}")
        draft.mkdir(parents=True)
        try:
            marks = {
                "study": self.study.hash,
                "vocabulary": self.study.vocabulary.hash,
                "round": str(self.round),
            }
            (draft / WEIGHTS).write_bytes(save(dict(self.parameters), metadata=marks))
            (draft / STUDY).write_text(self.study.to_json(), "utf-8")
            (draft / CARD).write_text(above + self.card(more), "utf-8")
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `save` wrote.

        Raises:
            RunError: Parts are missing, damaged, or of two different studies (HF-707).
            ProtocolError: Another protocol version made it (HF-401).
        """
        missing = [name for name in (WEIGHTS, STUDY) if not (folder / name).is_file()]
        if missing:
            raise _damaged(folder, f"no {missing[0]}")
        text = (folder / STUDY).read_bytes()
        study = Study.from_json(text.decode())
        try:
            with safe_open(folder / WEIGHTS, framework="numpy") as file:
                marks = file.metadata() or {}
                parameters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise _damaged(folder, f"{WEIGHTS} cannot be read") from error
        if marks.get("study") != hashlib.sha256(text).hexdigest():
            raise _damaged(folder, f"{WEIGHTS} is of another study than {STUDY}")
        return cls(study, upgraded_parameters(parameters), int(marks["round"]))

    def embed(self, store: SiteStore) -> Embeddings:
        """Return the model's state after each visit of every subject of a store."""
        reading = self.read(store)
        model = reading.model
        columns: list[tuple[npt.NDArray[np.generic], ...]] = []
        with torch.no_grad():
            for batch in reading.loader.in_order(batch_size=BATCH, query="now"):
                here = batch.to(model.device)
                keep = batch.query_mask
                subject = batch.subject[:, None].expand_as(batch.query)[keep]
                states = model(here, here.query).cpu()[keep]
                columns.append((subject.numpy(), batch.query_time_us[keep].numpy(), states.numpy()))
        if not columns:
            width = self.study.config.model.width
            none = np.zeros(0, np.int64)
            return Embeddings(none, none, np.zeros((0, width), np.float32))
        person, time_us, vector = (np.concatenate(column) for column in zip(*columns, strict=True))
        return Embeddings(reading.people.subject_id[person], time_us, vector)

    def risks(self, store: SiteStore, *, horizon_days: float) -> Risks:
        """Return each target's risk within `horizon_days` after each visit of every subject.

        Where death is among the targets, it competes: a target occurs only to who is alive.

        Raises:
            RunError: The model was not trained to say so (HF-708).
        """
        self.check_horizon(horizon_days)
        reading = self.read(store)
        asked = reading.loader.in_order(batch_size=BATCH, query="now")
        answers = answer(reading.model, asked, "time_to_event")
        edges = self.study.config.train.horizons_days
        targets = self.study.vocabulary.targets
        death = death_among(targets)
        logits = torch.from_numpy(answers.logit)[None]
        probability = risk(logits, edges, horizon_days, death=death)[0]
        subject_id = reading.people.subject_id[answers.subject]
        return Risks(subject_id, answers.time_us, targets, probability.numpy())

    def risks_at(
        self, store: SiteStore, *, horizon_days: float, at: pa.Table | None = None
    ) -> Risks:
        """Return each target's risk within `horizon_days` of one moment of each person.

        The record is read up to the last visit by then, as in training. Whatever has not come
        between that visit and the moment is known not to have: the risk is that of who is left.

        Args:
            store: The store, or a view of one.
            horizon_days: How far to look from the moment.
            at: Whom and when to ask about: subject_id, prediction_time; None is everybody with a
                history, at the end of the last visit.

        Raises:
            RunError: The model was not trained to say so (HF-708).
        """
        self.check_horizon(horizon_days)
        reading = self.read(store, at)
        moments = Moments.of(reading.loader, named=at is not None, after_visits=True)
        asked = reading.loader.asked(moments.rows(reading.loader), batch_size=BATCH)
        gaps, targets = moments.gap_days[moments.answered], self.study.vocabulary.targets
        parts = [np.zeros((0, len(targets)), np.float32)]
        for number, logits in enumerate(logits_of(reading.model, asked, "time_to_event")):
            from_days = gaps[number * BATCH :][: len(logits)]
            parts.append(self.risk_of(logits, horizon_days, from_days))
        subject = moments.subject[moments.answered]
        return Risks(
            reading.people.subject_id[subject],
            moments.time_us[moments.answered],
            targets,
            np.concatenate(parts),
        )

    def label_probabilities(self, store: SiteStore, *, at: pa.Table | None = None) -> Risks:
        """Return the probability of the study's label at one moment of each person.

        Args:
            store: The store, or a view of one.
            at: Whom and when to ask about: subject_id, prediction_time; None is everybody with a
                history, at its end.

        Raises:
            RunError: The model was not trained on a label (HF-708).
        """
        task = self.check_label()
        reading = self.read(store, at)
        moments = Moments.of(reading.loader, named=at is not None, after_visits=False)
        asked = reading.loader.asked(moments.rows(reading.loader), batch_size=BATCH)
        logits = [np.zeros((0, 1), np.float32), *logits_of(reading.model, asked, "label")]
        subject = moments.subject[moments.answered]
        return Risks(
            reading.people.subject_id[subject],
            moments.time_us[moments.answered],
            (task,),
            logistic(np.concatenate(logits)),
        )

    def predict(
        self, store: SiteStore, *, horizon_days: float | None = None, at: pa.Table | None = None
    ) -> pa.Table:
        """Return what the model says of a store's people, in MEDS's columns of a prediction.

        Nobody is left out for being unlike the model's people, as ``healthfm-client predict`` does.

        Args:
            store: The store, or a view of one.
            horizon_days: Each target's risk within so many days (`risks_at`); None asks for the
                label that the model was trained on (`label_probabilities`).
            at: Whom and when to ask about: subject_id, prediction_time; None is everybody.

        Returns:
            A row for each person, moment and target, with columns subject_id, prediction_time,
            task and predicted_boolean_probability; it is about people.

        Raises:
            RunError: The model was not trained to say so (HF-708).
        """
        if horizon_days is None:
            said = self.label_probabilities(store, at=at)
        else:
            said = self.risks_at(store, horizon_days=horizon_days, at=at)
        count, places = len(said.targets), np.arange(len(said.subject_id), dtype=np.int64)
        row, task = np.repeat(places, count), np.tile(np.arange(count, dtype=np.int32), len(places))
        columns = {
            "subject_id": pa.array(said.subject_id[row]),
            "prediction_time": pa.array(said.time_us[row]).cast(pa.timestamp("us")),
            "task": pa.DictionaryArray.from_arrays(task, list(said.targets)),
            "predicted_boolean_probability": pa.array(said.probability.ravel().astype(np.float64)),
        }
        return pa.table(columns)

    def risk_of(self, logits: Float32, horizon_days: float, from_days: Float32) -> Float32:
        """Return [b, V] risks from [b, V·K] log hazards and [b] days from query to moment."""
        edges = self.study.config.train.horizons_days
        found = risk(
            torch.from_numpy(logits)[:, None],
            edges,
            horizon_days,
            death=death_among(self.study.vocabulary.targets),
            from_days=torch.from_numpy(from_days)[:, None],
        )
        return found[:, 0].numpy()

    def check_label(self) -> str:
        """Return the label task that the model was trained on.

        Raises:
            RunError: There is none (HF-708).
        """
        task = self.study.config.label_task
        if task is None or self.study.config.train.objectives.label <= 0:
            raise RunError(
                708,
                where=f"study {self.study.run_id}",
                seen="the model has no head for a label",
                wanted="a model trained with train.objectives.label on a task",
                do="Train with evaluation.task and train.objectives.label=1",
            )
        return task

    def check_horizon(self, horizon_days: float) -> None:
        """Check that the model can say what happens within a horizon.

        Raises:
            RunError: It has no hazards, or none so far ahead (HF-708).
        """
        where = f"study {self.study.run_id}"
        if self.study.config.train.objectives.time_to_event <= 0:
            raise RunError(
                708,
                where=where,
                seen="the model has no head for the time to an event",
                wanted="a model trained with train.objectives.time_to_event",
                do="Train with train=multitask, or use `embed` with a model of your own on top",
            )
        check_horizon(horizon_days, self.study.config.train.horizons_days, where=where)

    def read(self, store: SiteStore, at: pa.Table | None = None) -> StoreReading:
        """Return the store, or view of one, as this model reads it.

        Args:
            store: The store.
            at: Whom and when something is asked of: the labels of the people read.

        Raises:
            RunError: The parameters are not those that this release's model has (HF-707).
        """
        view = store.narrowed(modalities=frozenset(self.study.modalities))
        people = self.people(view, at)
        model = self.network(view.modalities)
        return StoreReading(people, loader_for(people, self.study), model, self.study.vocabulary)

    def people(self, store: SiteStore, at: pa.Table | None = None) -> Sequences:
        """Return the people of a store, or view of one, as this model's tokens; see `read`."""
        view = store.narrowed(modalities=frozenset(self.study.modalities))
        study = self.study
        return tokenize([view], study.vocabulary, study.config.tokens, split=None, asked=at)

    def network(self, modalities: frozenset[str]) -> HealthFM:
        """Return the model with the encoders of `modalities`, set to evaluation.

        Raises:
            RunError: The parameters are not those that this release's model has (HF-707).
        """
        wanted = {name: p.shape for name, p in model_for(self.study).named_parameters()}
        held = {name: array.shape for name, array in self.parameters.items()}
        if not wanted.items() <= held.items():
            raise _damaged(
                Path(f"study {self.study.run_id}"),
                "the parameters are not those that this release's model has",
            )
        return loaded_model(self.parameters, self.study, modalities).eval()

    def start(self, fresh: Mapping[str, Float32]) -> Float32Arrays:
        """Return what a new run's model starts from: this model, and `fresh` where it has nothing.

        A label's head and its linear logit always start fresh: the new task is another one.

        Raises:
            RunError: A parameter both have differs in its shape (HF-712).
        """
        known = {
            name: array
            for name, array in self.parameters.items()
            if name in fresh and not _is_of_label(name)
        }
        for name, array in known.items():
            if array.shape != fresh[name].shape:
                raise RunError(
                    712,
                    where=name,
                    seen=f"{array.shape} in the trained model, {fresh[name].shape} in the new one",
                )
        return {**fresh, **{name: array.copy() for name, array in known.items()}}

    def card(self, more: Sequence[str] = ()) -> str:
        """Return the model card, in Markdown, with `more` lines on the run."""
        study, vocabulary = self.study, self.study.vocabulary
        weights = study.config.train.objectives.model_dump()
        numbers = sum(array.size for array in self.parameters.values())
        lines = [
            f"# Model of study {study.run_id}",
            "",
            "A HealthFM model: one person's record in, states and risks out.",
            "",
            "| | |",
            "|---|---|",
            f"| size | {study.config.model.name}, {numbers:,} parameters |",
            f"| modalities | {', '.join(study.modalities)} |",
            f"| objectives | {', '.join(name for name, w in weights.items() if w > 0)} |",
            f"| vocabulary | {vocabulary.n_codes:,} codes, {len(vocabulary.targets)} targets, "
            f"{len(vocabulary.panel)} scores; SHA-256 {vocabulary.hash} |",
            f"| rounds | {self.round} of {study.config.federation.rounds} |",
            f"| privacy | {privacy_statement(study)}; no record is in this folder |",
            "",
            *more,
            "Not a medical device: for research, and to be validated on your own people, by",
            "subgroup, before anything is concluded. Risks are at the rates of the study's sites;",
            "where an outcome is rarer or more common they have to be recalibrated.",
            "",
            "`healthfm_core.trained.TrainedModel.load` reads this folder.",
            "",
        ]
        return "\n".join(lines)


def death_among(targets: Sequence[str]) -> int | None:
    """Return which of the targets is death; None where none is."""
    return targets.index(death_code) if death_code in targets else None


def _damaged(folder: Path, seen: str) -> RunError:
    return RunError(
        707, where=str(folder), seen=seen, wanted=f"the {WEIGHTS}, {STUDY} and {CARD} of one model"
    )


def _is_of_label(parameter: str) -> bool:
    return parameter.startswith("heads.label.") or ".linear_logit." in parameter
