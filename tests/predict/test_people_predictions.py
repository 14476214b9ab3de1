"""A part of the people at a time says what the whole store at once says, and of whom nothing."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest

from healthfm_core.data.store.people_in_order import PeopleInOrder
from healthfm_core.data.store.schemas import WEARABLE
from healthfm_core.errors import RunError
from healthfm_core.models.inference import answer
from healthfm_core.objectives.time_to_event import piece_exposure
from healthfm_core.predict import (
    REASONS,
    PeopleLimits,
    PeoplePredictions,
    PredictionTask,
    predict_people,
)
from healthfm_core.training import loader_for
from tests.explain.conftest import FIRST, OUTCOME
from tests.predict.conftest import AGELESS, CHILD, DEAD, KNOWN, NOTHING, STRANGER

DAY_US = 86_400_000_000
FIRST_US = round((FIRST - FIRST.replace(year=1970, month=1, day=1, hour=0)).total_seconds()) * 10**6
ANYONE = PeopleLimits(known_codes=0.0)


def whole(parts) -> PeoplePredictions:
    found = list(parts)
    return PeoplePredictions(
        *(np.concatenate([getattr(p, f.name) for p in found]) for f in fields(PeoplePredictions))
    )


def moments(*rows: tuple[int, int]) -> pa.Table:
    """Whom and when, in days since the planted first visit."""
    who, days = zip(*rows, strict=True)
    time = pa.array([FIRST_US + day * DAY_US for day in days], pa.int64())
    return pa.table(
        {"subject_id": pa.array(who, pa.int64()), "prediction_time": time.cast(pa.timestamp("us"))}
    )


def reasons(found: PeoplePredictions) -> dict[int, str | None]:
    names = [*REASONS, None]
    return {int(who): names[at] for who, at in zip(found.subject_id, found.reason, strict=True)}


def same(one, other) -> bool:
    return np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("people", [3, 50, 100, 1024])
def test_parts_of_any_size_give_what_the_trained_model_gives_to_the_last_bit(planted, people):
    task = PredictionTask.of(planted.model, OUTCOME, 90.0)
    at_once = planted.model.risks_at(planted.store, horizon_days=90.0)
    found = whole(predict_people(planted.model, planted.store, task, limits=ANYONE, people=people))
    assert np.array_equal(found.subject_id, at_once.subject_id)
    assert np.array_equal(found.time_us, at_once.time_us)
    assert np.array_equal(found.probability, at_once.probability[:, task.column])


@pytest.mark.parametrize("people", [5, 64, 1024])
def test_named_moments_too_where_one_person_has_several(planted, people):
    who = planted.store.subjects().tolist()
    at = moments(*((one, day) for one in who for day in (400, 2, -1000, 30)))
    task = PredictionTask.of(planted.model, OUTCOME, 90.0)
    at_once = planted.model.risks_at(planted.store, horizon_days=90.0, at=at)
    found = whole(
        predict_people(planted.model, planted.store, task, limits=ANYONE, at=at, people=people)
    )
    assert len(found) == 4 * len(who)
    assert (np.diff(found.time_us)[np.diff(found.subject_id) == 0] > 0).all()
    told = found.reason < 0
    assert np.array_equal(found.subject_id[told], at_once.subject_id)
    assert np.array_equal(found.probability[told], at_once.probability[:, task.column])
    assert set(np.array([*REASONS])[found.reason[~told]]) == {"no_history"}


def test_the_last_moment_is_the_last_of_all_visits(planted):
    visits = planted.model.risks(planted.store, horizon_days=90.0)
    last = np.append(np.flatnonzero(np.diff(visits.subject_id)), len(visits.subject_id) - 1)
    found = planted.model.risks_at(planted.store, horizon_days=90.0)
    assert np.array_equal(found.subject_id, visits.subject_id[last])
    assert np.array_equal(found.time_us, visits.time_us[last])
    assert np.allclose(found.probability, visits.probability[last], rtol=1e-5)


def test_nothing_later_than_the_moment_is_read_and_what_has_not_come_is_known(planted):
    model, who = planted.model, planted.with_signal[1]
    task = PredictionTask.of(model, OUTCOME, 30.0)
    found = whole(
        predict_people(
            model, planted.store, task, limits=ANYONE, at=moments((who, 0), (who, 10), (who, 20))
        )
    )
    reading = model.read(planted.store.narrowed(subjects=[who]))
    rows = reading.loader.after_visits(0)
    first = rows.take(np.flatnonzero(rows.time_us == FIRST_US))
    answers = answer(reading.model, reading.loader.asked(first, batch_size=1), "time_to_event")
    edges = model.study.config.train.horizons_days
    hazards = np.exp(answers.logit.reshape(-1, len(edges))[task.column].astype(np.float64))

    def risk(start: float, stop: float) -> float:
        import torch

        years = [
            piece_exposure(torch.tensor([[[d]]]), edges)[0, 0, 0].numpy() for d in (start, stop)
        ]
        return float(-np.expm1(-(hazards * (years[1] - years[0])).sum()))

    assert found.probability[0] == pytest.approx(risk(0.0, 30.0), rel=1e-4)
    assert found.probability[1] == pytest.approx(risk(10.0, 40.0), rel=1e-4)
    assert found.gap_days.tolist() == [0.0, 10.0, 0.0]
    assert found.probability[2] != pytest.approx(risk(20.0, 50.0), rel=0.05)


def test_a_label_is_asked_at_its_own_time(labelled):
    model, store = labelled
    task = PredictionTask.of(model, "soon")
    assert (task.head, task.horizon_days) == ("label", None)
    network = model.network(store.modalities)
    from healthfm_core.tokens.tokenizer import tokenize

    people = tokenize(
        [store], model.study.vocabulary, model.study.config.tokens, split=None, task="soon"
    )
    batches = loader_for(people, model.study).in_order(batch_size=64, query="label")
    wanted = answer(network, batches, "label").score[:, 0]
    assert np.ptp(wanted) > 0.01
    at = store.labels("soon")
    for size in (20, 1024):
        found = whole(predict_people(model, store, task, limits=ANYONE, at=at, people=size))
        assert np.array_equal(found.probability, wanted)
        assert np.array_equal(found.outcome, people.label_value)
    assert np.array_equal(model.label_probabilities(store, at=at).probability[:, 0], wanted)


def test_of_people_unlike_any_that_it_saw_it_says_nothing_and_why(planted, unlike):
    task = PredictionTask.of(planted.model, OUTCOME, 90.0)
    limits = PeopleLimits(known_codes=0.5, ages=(18.0, 90.0))
    found = whole(predict_people(planted.model, unlike, task, limits=limits))
    assert reasons(found) == {
        KNOWN: None,
        STRANGER: "few_known_codes",
        NOTHING: "no_history",
        DEAD: "died",
        CHILD: "age",
        AGELESS: "age_unknown",
    }
    assert same(np.isnan(found.probability), found.reason >= 0)
    assert found.known_codes[found.subject_id == STRANGER] == np.float32(0.4)
    assert found.age_years[found.subject_id == CHILD] == pytest.approx(10.0, abs=0.01)
    anyone = whole(predict_people(planted.model, unlike, task, limits=ANYONE))
    assert reasons(anyone) == dict.fromkeys([KNOWN, STRANGER, CHILD, AGELESS]) | {
        NOTHING: "no_history",
        DEAD: "died",
    }


def test_a_gap_is_as_long_as_the_hazards_reach_or_as_is_asked(planted, unlike):
    task = PredictionTask.of(planted.model, OUTCOME, 90.0)
    edge = planted.model.study.config.train.horizons_days[-1]
    end = 220
    at = moments(
        (KNOWN, end), (KNOWN, end + int(edge) - 90), (KNOWN, end + int(edge) - 89), (99, 0)
    )
    reach = PeopleLimits(last_edge_days=edge)
    found = whole(predict_people(planted.model, unlike, task, limits=reach, at=at))
    told = [None if at < 0 else tuple(REASONS)[at] for at in found.reason]
    assert told == [None, None, "gap", "not_in_store"]
    assert found.subject_id.tolist() == [KNOWN, KNOWN, KNOWN, 99]
    short = whole(
        predict_people(planted.model, unlike, task, limits=PeopleLimits(max_gap_days=1.0), at=at)
    )
    assert [at < 0 for at in short.reason] == [True, False, False, False]


def test_before_a_death_is_known_the_person_is_asked_about(planted, unlike):
    task = PredictionTask.of(planted.model, OUTCOME, 90.0)
    at = moments((DEAD, 299), (DEAD, 300))
    found = whole(predict_people(planted.model, unlike, task, limits=ANYONE, at=at))
    assert [None if at < 0 else tuple(REASONS)[at] for at in found.reason] == [None, "died"]


def test_what_a_model_was_not_trained_for_is_refused_with_what_it_has(planted, labelled):
    with pytest.raises(RunError, match=rf"HF-709.*nearest of which is {OUTCOME}"):
        PredictionTask.of(planted.model, "DX//OUTCOMES", 90.0)
    with pytest.raises(RunError, match=r"HF-709.*its label soon or"):
        PredictionTask.of(labelled[0], "sooner", 90.0)
    with pytest.raises(RunError, match="HF-708"):
        PredictionTask.of(planted.model, OUTCOME, 9000.0)
    with pytest.raises(RunError, match=r"HF-708.*no horizon"):
        PredictionTask.of(planted.model, OUTCOME)
    with pytest.raises(RunError, match=r"HF-708.*no head for a label"):
        planted.model.label_probabilities(planted.store)
    with pytest.raises(RunError, match=r"HF-708.*time to an event"):
        PredictionTask.of(labelled[0], OUTCOME, 90.0)


@pytest.mark.parametrize("events", [1, 300, 10_000])
def test_people_some_at_a_time_have_the_records_that_the_store_has(planted, events):
    store, everyone = planted.store, planted.store.subjects()
    window = PeopleInOrder(store, everyone, events=events)
    for low, high in ((0, 5), (5, 9), (7, 60), (100, 160)):
        view, some = window.view(low, high), store.narrowed(subjects=everyone[low:high])
        assert view.events().equals(some.events())
        assert np.array_equal(view.subjects(), everyone[low:high])
        assert view.modalities == store.modalities
        clinic = view.narrowed(modalities={"ehr"})
        assert clinic.events().equals(some.narrowed(modalities={"ehr"}).events())
        assert view.wearable("watch").cast(WEARABLE).equals(some.wearable("watch").cast(WEARABLE))
        one = view.narrowed(subjects=everyone[low : low + 1]).events()
        assert one.equals(store.narrowed(subjects=everyone[low : low + 1]).events())


def test_progress_is_told_up_to_the_end(planted):
    task = PredictionTask.of(planted.model, OUTCOME, 90.0)
    told: list[tuple[int, int]] = []
    parts = predict_people(
        planted.model,
        planted.store,
        task,
        limits=ANYONE,
        people=70,
        show=lambda done, total: told.append((done, total)),
    )
    assert len(list(parts)) == len(told)
    assert told == [(64, 160), (128, 160), (160, 160)]


def test_more_people_are_read_where_a_part_fills_no_batch(planted):
    """Of one part nobody has a history yet, of the next few have: batches stay whole."""
    task = PredictionTask.of(planted.model, OUTCOME, 90.0)
    who = planted.store.subjects().tolist()
    days = [(one, -2000 if n % 4 else 100) for n, one in enumerate(who)]
    at = moments(*days)
    found = whole(
        predict_people(planted.model, planted.store, task, limits=ANYONE, at=at, people=8)
    )
    at_once = planted.model.risks_at(planted.store, horizon_days=90.0, at=at)
    assert (found.reason >= 0).sum() == len(who) * 3 // 4
    told = found.probability[found.reason < 0]
    assert np.array_equal(told, at_once.probability[:, task.column])
