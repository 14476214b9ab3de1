"""One site of a million people: memory, start of a round, speed, scores; beside it all in memory.

    python benchmarks/biobank.py [--people 1000000] [--events 100000000] [--worn 20000]
                                 [--size tiny] [--steps 200] [--repeats 2] [--work FOLDER]

Makes a store as an ingest leaves it, people scattered over its files: visits with diagnoses and
labs, and a week of minutes from a device for some. Then a site does its part of a study, each phase
in a process of its own, whose peak (VmHWM, pages of files included) is noted: ``statistics``;
``prepare``, which tokenises and tells coverage; ``round``, twice, of so many steps; ``evaluate``
over the tuning people; ``private``, a round of ten steps of DP-SGD; ``predict``, 4,096 people.

A round's start is the time from its order to its first batch, in a process that has loaded its
libraries. Then one process trains from the files and from the same people in memory in turns; speed
is tokens per second of processor, one thread; updates have to be the same to the bit and average
precision equal. Writes results/biobank.json; everything else goes at the end unless --keep.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from memory import forget_peak, held_mib, peak_mib

from healthfm_core.config.compose import compose
from healthfm_core.data.batch.sequences import RecordIndex, Sequences
from healthfm_core.data.store.event_spool import cell_of
from healthfm_core.data.store.schemas import CODES
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_draft import StoreDraft
from healthfm_core.data.store.wearables import stretches
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import VERSION, RoundOrder, RoundResult, Study
from healthfm_core.predict import PeopleLimits, PredictionTask, predict_people
from healthfm_core.tokens.coverage import coverage
from healthfm_core.tokens.statistics import SiteStatistics, merge, site_statistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.trained import TrainedModel
from healthfm_core.training import SiteData, initial_parameters, plan_privacy, train_round
from healthfm_core.training import loop as training_loop

RESULTS = Path(__file__).parent / "results"
DAY_US = 86_400_000_000
CODES_OF_DX, CODES_OF_LAB, PER_VISIT = 400, 60, 10
MINUTES, DAYS_WORN = 1440, 7
PREDICTED = 4096


def events_of(people: np.ndarray, each: float, rng: np.random.Generator) -> pa.Table:
    """Return the events of some people, sorted: visits of ten, some codes a person's own."""
    visits = 1 + rng.poisson(max(0.1, each / PER_VISIT - 1), len(people))
    person = np.repeat(np.arange(len(people)), visits)
    day = np.sort(rng.integers(0, 3650, len(person)) + person * 4000) - person * 4000
    of = np.repeat(np.arange(len(person)), PER_VISIT)
    own = rng.integers(0, CODES_OF_DX, (len(people), 6))[person[of], rng.integers(0, 6, len(of))]
    common = (CODES_OF_DX * rng.random(len(of)) ** 3).astype(np.int64)
    lab = np.arange(len(of)) % PER_VISIT < 3
    code = np.where(rng.random(len(of)) < 0.6, own, common)
    code = np.where(lab, CODES_OF_DX + own % CODES_OF_LAB, code)
    value = np.where(lab, rng.normal(100 + own % 7, 15).round(1), np.nan).astype(np.float32)
    time_us = day[of] * DAY_US + (np.arange(len(of)) % PER_VISIT) * 60_000_000
    names = [f"DX//{i}" for i in range(CODES_OF_DX)] + [f"LAB//{i}" for i in range(CODES_OF_LAB)]
    return pa.table(
        {
            "subject_id": pa.array(people[person[of]]),
            "time": pa.array(time_us, pa.int64()).cast(pa.timestamp("us")),
            "code": pa.DictionaryArray.from_arrays(pa.array(code.astype(np.int32)), names),
            "numeric_value": pa.array(value, mask=~lab),
        }
    )


def worn_by(people: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Return a week of minutes of heart rate and steps of some people."""
    who, day = np.repeat(people, DAYS_WORN), np.tile(np.arange(DAYS_WORN), len(people))
    parts = [
        stretches(who, (3000 + day) * DAY_US, name, 1 / 60, sample.astype(np.float32))
        for name, sample in (
            ("HR", rng.integers(50, 120, (len(who), MINUTES))),
            ("STEPS", rng.integers(0, 90, (len(who), MINUTES))),
        )
    ]
    return pa.concat_tables(parts)


def make(given: argparse.Namespace) -> dict[str, Any]:
    """Write the store."""
    rng, everyone = np.random.default_rng(0), np.arange(given.people, dtype=np.int64)
    cells, each = cell_of(everyone), given.events / given.people
    width = max(1, 1024 * 800_000 // max(given.events, 1))
    with closing(StoreDraft(given.work / "store", "store")) as draft:
        for low in range(0, 1024, width):
            people = everyone[(cells >= low) & (cells < low + width)]
            if len(people):
                draft.write_group(events_of(people, each, rng), texts=False)
        worn = np.sort(rng.choice(everyone, given.worn, replace=False))
        for low in range(0, len(worn), 500):
            draft.add_wearable("watch", worn_by(worn[low : low + 500], rng))
        draft.end_wearables()
        draft.write_splits()
        draft.write_codes(CODES.empty_table())
        draft.check_and_mark()
    store = given.work / "store"
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    return {"mb_of_store": size / 1e6}


def settings(given: argparse.Namespace, *more: str) -> list[str]:
    """Return the configuration's keys."""
    return [
        f"model={given.size}",
        "tokens.max_len=128",
        "tokens.max_queries=8",
        f"train.max_steps={given.steps}",
        "train.local_epochs=100",
        "rounds=2",
        *more,
    ]


def study_of(given: argparse.Namespace, *more: str) -> Study:
    """Return the study that the site's statistics make."""
    config = compose(settings(given, *more))
    arrays = dict(np.load(given.work / "statistics.npz"))
    merged = merge([SiteStatistics.from_arrays(arrays)])
    vocabulary = build_vocabulary(merged, config.tokens)
    return Study(VERSION, "biobank", config, vocabulary, ("ehr", "wearable"))


def store_of(given: argparse.Namespace) -> SiteStore:
    """Return the store, opened."""
    return SiteStore.open(given.work / "store")


def count(given: argparse.Namespace) -> dict[str, Any]:
    """Answer with what the vocabulary is made from."""
    config = compose(settings(given))
    found = site_statistics([store_of(given)], config.tokens)
    np.savez(given.work / "statistics.npz", **found.to_arrays())
    return {"codes": len(found.codes)}


def prepare(given: argparse.Namespace) -> dict[str, Any]:
    """Tokenise, and tell what is covered."""
    study, store = study_of(given), store_of(given)
    data = SiteData.load([store], study)
    covered = coverage([store], study.vocabulary, k_min=study.config.tokens.k_min)
    return {
        "training_people": data.train.n_subjects,
        "items": len(data.train.kind) + len(data.tuning.kind),
        "mb_of_tokens": sum(file.stat().st_size for file in given.work.glob(".store.tokens/*/*/*"))
        / 1e6,
        "exact": covered["coverage_exact"],
    }


def order_of(study: Study, round_: int, **more: Any) -> RoundOrder:
    """Return the order of a round."""
    groups = tuple(sorted({group_of(name) for name in initial_parameters(study)}))
    given = {"round": round_, "rounds": 2, "seed": 5, "groups": groups, "evaluate": False} | more
    return RoundOrder(**given)


class FirstBatch:
    """Notes when a loader first gave a batch, and counts tokens of all of them."""

    def __init__(self) -> None:
        self.at, self.cpu, self.tokens = 0.0, 0.0, 0

    def watching(self, make_loader: Callable[..., Any]) -> Callable[..., Any]:
        """Return a `loader_for` whose loaders' batches are noted."""

        def made(sequences: Sequences, study: Study) -> Any:
            loader = make_loader(sequences, study)
            epoch = loader.epoch

            def noted(*args: Any, **named: Any) -> Iterator[Any]:
                for batch in epoch(*args, **named):
                    self.at = self.at or time.perf_counter()
                    self.cpu = self.cpu or time.process_time()
                    self.tokens += int((batch.kind != 0).sum())
                    yield batch

            loader.epoch = noted
            return loader

        return made


def one_round(given: argparse.Namespace) -> dict[str, Any]:
    """Train a round, from where the last one ended, and tell how soon it began."""
    study = study_of(given)
    order = order_of(study, given.round)
    parameters = initial_parameters(study)
    file = given.work / "parameters.npz"
    if file.exists():
        parameters = dict(np.load(file))
    first, make_loader = FirstBatch(), training_loop.loader_for
    begun, cpu = time.perf_counter(), time.process_time()
    data = SiteData.load([store_of(given)], study)
    loaded = time.perf_counter()
    training_loop.loader_for = first.watching(make_loader)
    result = train_round(parameters, data, study, order)
    training_loop.loader_for = make_loader
    np.savez(file, **{name: a + result.update.get(name, 0) for name, a in parameters.items()})
    found = {name: value for name, value in result.metrics.items() if name.startswith("loss")}
    started = {"s_to_load": loaded - begun, "s_to_first_batch": first.at - begun}
    return started | {"cpu_s_to_first_batch": first.cpu - cpu} | found


def evaluate(given: argparse.Namespace) -> dict[str, Any]:
    """Score the model on the tuning people."""
    study = study_of(given)
    data = SiteData.load([store_of(given)], study)
    order = order_of(study, 2, train=False, evaluate=True)
    parameters = dict(np.load(given.work / "parameters.npz"))
    return dict(train_round(parameters, data, study, order).metrics)


def private(given: argparse.Namespace) -> dict[str, Any]:
    """Train ten steps with differential privacy."""
    delta = f"privacy.delta={min(1e-5, 0.1 / given.people)}"  # a tenth of one in its people
    study = study_of(given, "privacy=dp", delta, "train.max_steps=10", "train.batch_size=64")
    data = SiteData.load([store_of(given)], study)
    plan = plan_privacy(data.train, study, study.config.privacy)
    result = train_round(initial_parameters(study), data, study, order_of(study, 1), plan)
    return {"steps": result.metrics["steps"]}


def predict(given: argparse.Namespace) -> dict[str, Any]:
    """Ask the model about the first people, of all of whom the files are laid out."""
    study = study_of(given, "train.objectives.time_to_event=1")
    model = TrainedModel(study, initial_parameters(study), 2)
    store = store_of(given)
    task = PredictionTask.of(model, study.vocabulary.targets[0], 90.0)
    done = 0
    for part in predict_people(model, store, task, limits=PeopleLimits()):
        done += len(part)
        if done >= PREDICTED:
            break
    return {"predicted": done}


def in_memory(sequences: Sequences) -> Sequences:
    """Return the same people in memory."""
    held = replace(
        sequences,
        **{
            f.name: np.array(getattr(sequences, f.name))
            for f in fields(Sequences)
            if f.name != "panel_names"
        },
    )
    index = {f.name: np.array(getattr(sequences.record, f.name)) for f in fields(RecordIndex)}
    per_subject = {name: np.array(a) for name, a in sequences.per_subject.items()}
    vars(held).update(
        record=RecordIndex(**index), per_subject=per_subject, totals=dict(sequences.totals)
    )
    sequences.release()
    return held


def beside_memory(given: argparse.Namespace) -> dict[str, Any]:
    """Train from files and from memory in turns."""
    study = study_of(given)
    parameters, order = initial_parameters(study), order_of(study, 1)
    disk = SiteData.load([store_of(given)], study)
    memory = replace(disk, train=in_memory(disk.train), tuning=in_memory(disk.tuning))
    speeds: dict[str, list[float]] = {"files": [], "memory": []}
    found: dict[str, RoundResult] = {}
    for _ in range(given.repeats):
        for name, data in (("files", disk), ("memory", memory)):
            first, make_loader = FirstBatch(), training_loop.loader_for
            training_loop.loader_for = first.watching(make_loader)
            begun = time.process_time()
            found[name] = train_round(parameters, data, study, order)
            speeds[name].append(first.tokens / (time.process_time() - begun))
            training_loop.loader_for = make_loader
    equal = all(
        np.array_equal(array, found["memory"].update[name])
        for name, array in found["files"].update.items()
    )
    scored = order_of(study, 1, train=False, evaluate=True)
    scores = {
        name: dict(train_round(parameters, data, study, scored).metrics)
        for name, data in (("files", disk), ("memory", memory))
    }
    return {
        "tokens_per_s": speeds,
        "ratio": statistics.median(
            a / b for a, b in zip(speeds["files"], speeds["memory"], strict=True)
        ),
        "updates_equal": equal,
        "scores_equal": scores["files"] == scores["memory"],
        "tuning_average_precision": scores["files"].get("tuning_average_precision"),
    }


PHASES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "make": make,
    "statistics": count,
    "prepare": prepare,
    "round-1": one_round,
    "round-2": one_round,
    "evaluate": evaluate,
    "private": private,
    "predict": predict,
    "beside memory": beside_memory,
}


def measured(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return what a phase found, with its seconds and its peak in this process."""
    torch.set_num_threads(1)
    given.round = int(name[-1]) if name.startswith("round") else 1
    forget_peak()
    before, begun, cpu = held_mib(), time.perf_counter(), time.process_time()
    found = PHASES[name](given)
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "mib_before": before,
        "peak_mib": peak_mib(),
        **found,
    }


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--worn", type=int, default=20_000)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--phases", nargs="+", default=list(PHASES), choices=list(PHASES))
    parser.add_argument("--phase", choices=list(PHASES), help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> None:
    """Run every phase in a process of its own, print and write what they found."""
    given = parsed()
    if given.phase:
        print(json.dumps(measured(given.phase, given)))
        return
    work = given.work or Path(tempfile.mkdtemp(prefix="biobank-"))
    work.mkdir(parents=True, exist_ok=True)
    file = RESULTS / "biobank.json"
    told: dict[str, Any] = {"people": given.people, "events": given.events, "worn": given.worn}
    told |= {"model": given.size, "steps": given.steps}
    earlier = json.loads(file.read_text()) if file.exists() and given.work else {}
    told = {**earlier, **told} if earlier.items() >= told.items() else told
    sizes = [f"--{n}={getattr(given, n)}" for n in ("people", "events", "worn", "size", "steps")]
    try:
        for name in given.phases:
            words = [__file__, "--phase", name, f"--work={work}", f"--repeats={given.repeats}"]
            done = subprocess.run([sys.executable, *words, *sizes], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name} failed\n{done.stderr[-3000:]}")
            told[name] = json.loads(done.stdout.splitlines()[-1])
            print(f"{name:14s} {json.dumps(told[name])}", flush=True)
            RESULTS.mkdir(exist_ok=True)
            file.write_text(json.dumps(told, indent=1) + "\n")
    finally:
        if not given.work:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
