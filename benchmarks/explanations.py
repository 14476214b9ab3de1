"""Whether explanations are true: occlusion against the laws of the simulated cohort.

    python benchmarks/explanations.py [--folder runs/explanations] [--people 200] [--horizon 90]

A small world (8 conditions, 5 readings, 2 latents, 3 scores, nearly everybody wears) is simulated,
a tiny model trained on its hazards alone (10 minutes on a shared core), and people explained after
the first visit that follows their last wearing. The folder keeps the cohort and the model; a
second call trains nothing. Every pair of a condition and a source has a known effect, so that what
occlusion says can be held against it:

- scores: the slope, over people, of the change in log-odds on the score's z, against the planted
  log hazard per SD (most pairs have none);
- labs: the slope of an event's change on where its value lies, against Σ loading · lab loading, the
  part of the hazard that the lab reads;
- wearing: all of a person's wearing, against loading · latent at the visit, which is what wearing
  reads: a correlation over people for each condition, and of all pairs of a person and a condition.

A correlation of 0 is an explanation that knows nothing. Intervals are 95 %, from drawing people
again. Last stands the correlation of the whole risk with the true latents' part of the hazard: what
the model has not learned, no explanation of it can show. Writes results/explanations.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from healthfm_core.arrays import Float64, Int64
from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.data.batch.row_plan import RowPlan
from healthfm_core.data.batch.sequences import WEARABLE
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.explain.naming import CodeNames
from healthfm_core.explain.occlusion import OcclusionModel, log_odds
from healthfm_core.explain.record_parts import RecordPart, parts_of
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import VERSION, RoundOrder, Study
from healthfm_core.seeding import numpy_generator, seed_for
from healthfm_core.tokens.statistics import site_statistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.trained import TrainedModel
from healthfm_core.training import SiteData, initial_parameters, train_round
from healthfm_simulations.cohort import Cohort, generate, write_sites
from healthfm_simulations.cohort.ancestry import with_ancestry
from healthfm_simulations.cohort.cohort_tables import CodeBook
from healthfm_simulations.cohort.generate_cohort import FIRST_ID
from healthfm_simulations.cohort.generating_process import DataGeneratingProcess
from healthfm_simulations.cohort.simulated_people import (
    SimulatedVisits,
    draw_people,
    simulate_visits,
)

SETTINGS = [
    "data.cohort.subjects=2000",
    "data.cohort.sites=1",
    "data.cohort.conditions=8",
    "data.cohort.drugs=0",
    "data.cohort.labs=4",
    "data.cohort.latents_fast=1",
    "data.cohort.latents_slow=1",
    "data.cohort.prs=3",
    "data.cohort.without_wearable=0",
    "data.cohort.without_genomics=0",
    "data.cohort.label_shift=0",
    "train=multitask",
    "train.objectives.next_visit=0",
    "train.objectives.masked_reconstruction=0",
    "train.batch_size=32",
    "train.local_epochs=4",
    "train.lr=2e-3",
    "rounds=10",
]
RESULTS = Path(__file__).parent / "results"
REDRAWN = 200

LabReadings = list[tuple[int, float, Float64]]


@dataclass(frozen=True)
class Truth:
    """The laws, and everybody's latents at every visit."""

    world: DataGeneratingProcess
    book: CodeBook
    lives: SimulatedVisits


@dataclass(frozen=True)
class Found:
    """What occlusion said of n people and C conditions.

    Attributes:
        risk: [n, C] log-odds.
        latent: [n, K] true, at the visit.
        wearing: [n, C] change by all wearing.
        score: [n, P, C] change by each score, NaN where there is none.
        z: [n, P] the score.
        lab: for each person, (lab, where its value lies, [C] change) of every lab event read.
    """

    risk: Float64
    latent: Float64
    wearing: Float64
    score: Float64
    z: Float64
    lab: list[LabReadings]

    def of(self, rows: Int64) -> Found:
        """Return some people's."""
        arrays = (self.risk, self.latent, self.wearing, self.score, self.z)
        return Found(*(array[rows] for array in arrays), lab=[self.lab[row] for row in rows])


def truth_of(config: RunConfig) -> tuple[Truth, Cohort]:
    """Return the cohort, and its lives lived again: the seeds give the very same people."""
    own, seed = config.data.cohort, config.seed
    cohort = generate(own, seed)
    world = cohort.world
    site = np.zeros(own.subjects, np.int32)
    scores = int(world.score.max()) + 1
    people = draw_people(site, own.years, scores, numpy_generator(seed, "cohort", "people"))
    people = with_ancestry(people, own, numpy_generator(seed, "cohort", "ancestry"))
    lives = simulate_visits(world, people, numpy_generator(seed, "cohort", "lives"))
    return Truth(world, CodeBook.of(world), lives), cohort


def trained(folder: Path, store: SiteStore, config: RunConfig) -> TrainedModel:
    """Return the folder's model, trained at one site where there is none yet."""
    if folder.exists():
        return TrainedModel.load(folder)
    vocabulary = build_vocabulary(site_statistics([store], config.tokens), config.tokens)
    modalities = tuple(sorted(store.modalities))
    study = Study(VERSION, "explanations", config, vocabulary, modalities)
    parameters, data = initial_parameters(study), SiteData.load([store], study)
    groups = tuple(sorted({group_of(name) for name in parameters}))
    rounds = config.federation.rounds
    for round_ in range(1, rounds + 1):
        seed = seed_for(config.seed, "round", round_)
        order = RoundOrder(round=round_, rounds=rounds, groups=groups, evaluate=False, seed=seed)
        result = train_round(parameters, data, study, order)
        for name, update in result.update.items():
            parameters[name] = parameters[name] + update
        print(f"round {round_}: loss {result.metrics['loss_time_to_event']:.4f}", flush=True)
    model = TrainedModel(study, parameters, rounds)
    model.save(folder)
    return model


@dataclass(frozen=True)
class Person:
    """What occlusion said of one person; shapes as in `Found`."""

    risk: Float64
    latent: Float64
    wearing: Float64
    score: Float64
    z: Float64
    lab: LabReadings


class Explainer:
    """Explains people of one store, every condition at once."""

    def __init__(
        self, model: TrainedModel, store: SiteStore, truth: Truth, horizon_days: float
    ) -> None:
        vocabulary, book = model.study.vocabulary, truth.book
        self.truth, self.reading = truth, model.read(store)
        columns = tuple(vocabulary.targets.index(code) for code in book.conditions)
        edges = model.study.config.train.horizons_days
        self.asker = OcclusionModel(self.reading, columns, edges, horizon_days)
        self.names = CodeNames.of(vocabulary, store)
        self.lab_of = {int(vocabulary.look_up([c], {})[0][0]): g for g, c in enumerate(book.labs)}
        panel = [f"PRS//{name}" for name in vocabulary.panel]
        self.place = [panel.index(name) for name in book.scores]

    def people(self, most: int) -> Found:
        """Explain so many of those who wear and have scores."""
        held = np.flatnonzero(self.reading.people.panel_mask.any(1)).tolist()
        rows = ((subject, self._row(subject)) for subject in held)
        some = islice(((s, r) for s, r in rows if r is not None), most)
        found = [self._person(subject, *row) for subject, row in some]
        arrays = (
            np.array([getattr(p, f) for p in found]) for f in Person.__annotations__ if f != "lab"
        )
        return Found(*arrays, lab=[person.lab for person in found])

    def _row(self, subject: int) -> tuple[RowPlan, int] | None:
        """Return the first visit after the last wearing, and its number."""
        people = self.reading.people
        own = slice(*people.offsets[subject : subject + 2])
        worn = people.time_us[own][people.kind[own] == WEARABLE]
        rows = self.reading.loader.after_visits(subject)
        visit = int(np.searchsorted(rows.time_us, worn[-1])) if len(worn) else len(rows)
        return (rows.take(np.array([visit])), visit) if visit < len(rows) else None

    def _person(self, subject: int, row: RowPlan, visit: int) -> Person:
        people, lives = self.reading.people, self.truth.lives
        parts = self._parts(subject, row)
        found = self.asker.contributions(row, parts)
        change = np.array([[one.log_odds for one in target] for target in found]).T
        kind = np.array([part.kind for part in parts])
        score = np.full((people.panel.shape[1], change.shape[1]), np.nan)
        score[[part.scores[0] for part in parts if part.kind == "score"]] = change[kind == "score"]
        who = int(people.subject_id[subject]) - FIRST_ID
        at = np.searchsorted(lives.person, who) + visit
        if lives.time_us[at] != row.time_us[0]:
            raise SystemExit("the lives lived again are not the cohort's")
        return Person(
            risk=log_odds(self.asker.risks(row))[0],
            latent=lives.latent[at],
            wearing=change[kind == "group"][0],
            score=score[self.place],
            z=people.panel[subject].astype(np.float64)[self.place],
            lab=[self._lab(parts[i].items[0], change[i]) for i in np.flatnonzero(kind == "event")],
        )

    def _parts(self, subject: int, row: RowPlan) -> list[RecordPart]:
        """Return all wearing, each score, and each lab that is read."""
        people = self.reading.people
        read = set(self.reading.loader.items_read(row).tolist())
        every = parts_of(people, subject, int(row.stop[0]), self.names)
        return [
            part
            for part in every
            if part.kind == "score"
            or part.name == "all wearing"
            or (
                part.kind == "event"
                and part.items[0] in read
                and int(people.code[part.items[0]]) in self.lab_of
            )
        ]

    def _lab(self, item: int, change: Float64) -> tuple[int, float, Float64]:
        people = self.reading.people
        return self.lab_of[int(people.code[item])], float(people.quantile[item]), change


def correlations(found: Found, world: DataGeneratingProcess) -> dict[str, float]:
    """Return every correlation with the truth, see the module."""
    signal = found.latent @ world.loading.T
    per_condition = [_r(found.wearing[:, c], signal[:, c]) for c in range(signal.shape[1])]
    risk = [_r(found.risk[:, c], signal[:, c]) for c in range(signal.shape[1])]
    main = np.abs(world.loading).argmax(1)
    slow = world.half_life_days[main] > world.half_life_days.min()
    scores = _score_slopes(found)
    labs, wanted = _lab_slopes(found, world), world.loading @ world.lab_loading.T
    return {
        "score_slopes": _r(scores.ravel(), world.score_loading().ravel()),
        "lab_slopes": _r(labs.ravel(), wanted.ravel()),
        "wearing_all_pairs": _r(found.wearing.ravel(), signal.ravel()),
        "wearing_per_condition": float(np.mean(per_condition)),
        "wearing_per_slow_condition": float(np.mean(np.array(per_condition)[slow])),
        "wearing_per_fast_condition": float(np.mean(np.array(per_condition)[~slow])),
        "risk_per_condition": float(np.mean(risk)),
    }


def plainly(found: Found, world: DataGeneratingProcess) -> dict[str, float]:
    """Return means that need no correlation, in log-odds.

    Wearing's change in the tenth of pairs of a person and a condition whose latents raise the
    hazard most, and in the tenth where they lower it most; the slopes of planted scores and of
    others; the share of conditions whose steepest lab is the one that truly tells most.
    """
    signal = (found.latent @ world.loading.T).ravel()
    order, tenth = np.argsort(signal), len(signal) // 10
    wearing = found.wearing.ravel()[order]
    scores, planted = _score_slopes(found), world.score_loading() > 0
    told = world.loading @ world.lab_loading.T
    right = np.abs(_lab_slopes(found, world)).argmax(1) == np.abs(told).argmax(1)
    return {
        "wearing_where_it_raises_most": float(wearing[-tenth:].mean()),
        "wearing_where_it_lowers_most": float(wearing[:tenth].mean()),
        "slope_of_planted_scores": float(scores[planted].mean()),
        "slope_of_other_scores": float(scores[~planted].mean()),
        "share_with_the_right_lab": float(right.mean()),
    }


def _score_slopes(found: Found) -> Float64:
    """Return [C, P] slopes of the change on the score's z."""
    pairs = [
        [_slope(found.z[:, p], found.score[:, p, c]) for p in range(found.z.shape[1])]
        for c in range(found.score.shape[2])
    ]
    return np.array(pairs)


def _lab_slopes(found: Found, world: DataGeneratingProcess) -> Float64:
    """Return [C, G + 1] slopes of the change on where a lab's value lies."""
    events = [event for person in found.lab for event in person]
    lab = np.array([event[0] for event in events])
    value = np.array([event[1] for event in events])
    change = np.array([event[2] for event in events])
    slopes = np.zeros((change.shape[1], len(world.lab_loading)))
    for g in range(slopes.shape[1]):
        rows = lab == g
        slopes[:, g] = [_slope(value[rows], change[rows, c]) for c in range(len(slopes))]
    return slopes


def _slope(x: Float64, y: Float64) -> float:
    held = np.isfinite(y)
    x, y = x[held] - x[held].mean(), y[held] - y[held].mean()
    return float(x @ y / (x @ x))


def _r(x: Float64, y: Float64) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def with_intervals(found: Found, world: DataGeneratingProcess) -> dict[str, dict[str, float]]:
    """Return each correlation with its interval."""
    rng = np.random.default_rng(0)
    n = len(found.risk)
    drawn = [correlations(found.of(rng.integers(0, n, n)), world) for _ in range(REDRAWN)]
    return {
        name: {
            "r": value,
            "low": float(np.quantile([d[name] for d in drawn], 0.025)),
            "high": float(np.quantile([d[name] for d in drawn], 0.975)),
        }
        for name, value in correlations(found, world).items()
    }


def main() -> None:
    """Train, explain, correlate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/explanations"))
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--horizon", type=float, default=90.0)
    given = parser.parse_args()
    config = compose(SETTINGS)
    truth, cohort = truth_of(config)
    path = given.folder / "sites" / cohort.sites[0].name
    if not path.exists():
        write_sites(cohort, given.folder / "sites")
    store = SiteStore.open(path)
    model = trained(given.folder / "model", store, config)
    unseen = store.narrowed(subjects=store.subjects("held_out"))
    found = Explainer(model, unseen, truth, given.horizon).people(given.people)
    results = with_intervals(found, truth.world)
    print(f"{len(found.risk)} held-out people, {len(truth.book.conditions)} conditions")
    for name, row in results.items():
        print(f"{name:<28} r {row['r']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]")
    means = plainly(found, truth.world)
    for name, value in means.items():
        print(f"{name:<28}   {value:+.3f}")
    RESULTS.mkdir(exist_ok=True)
    told = {"people": len(found.risk), "horizon_days": given.horizon}
    told |= {"correlations": results, "means": means}
    (RESULTS / "explanations.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
