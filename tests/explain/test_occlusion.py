"""What moved a risk is what the risk loses without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.errors import RunError, StoreError
from healthfm_core.explain import explain
from healthfm_core.explain.naming import CodeNames
from healthfm_core.explain.occlusion import log_odds
from healthfm_core.explain.record_parts import hidden_of, parts_of
from tests.explain.conftest import FIRST, OUTCOME, QUIET, SIGNAL

FIRST_US = int(FIRST.timestamp() * 1e6)
DAY_US = 86_400_000_000


def contributions(planted, who, targets=(OUTCOME,), **options):
    found = explain(
        planted.model,
        planted.store,
        who,
        targets=targets,
        **{"horizon_days": 90.0, "at_us": FIRST_US + DAY_US, **options},
    )
    return found, found.targets[0].contributions


def test_the_only_event_that_tells_raises_the_risk_and_nothing_else_does_as_much(planted):
    for who in planted.with_signal[1:7]:
        found, parts = contributions(planted, who)
        assert found.targets[0].risk[found.chosen] > 0.3
        single = {c.part.name: c for c in parts if c.part.kind not in ("group", "visit")}
        signal = single.pop(f"pays $5 & more ({SIGNAL})")
        assert signal.log_odds > 1
        assert signal.risk > 0.2
        assert max(abs(c.log_odds) for c in single.values()) < signal.log_odds / 2


def test_the_risk_without_a_part_is_that_of_a_record_without_it(planted):
    """The whole of a kind of data hidden is the modality dropped, an exact second way."""
    who = planted.with_signal[0]
    _, parts = contributions(planted, who)
    wearing = next(c for c in parts if c.part.name == "all wearing")
    clinic = planted.store.narrowed(modalities={"ehr", "genomics"})
    narrow = explain(
        planted.model,
        clinic,
        who,
        targets=[OUTCOME],
        horizon_days=90.0,
        at_us=FIRST_US + DAY_US,
    )
    whole, _ = contributions(planted, who)
    risk = np.array([e.targets[0].risk[e.chosen] for e in (whole, narrow)])
    assert abs(wearing.log_odds) > 1e-3
    assert wearing.risk == pytest.approx(risk[0] - risk[1], abs=1e-6)
    assert wearing.log_odds == pytest.approx(-np.diff(log_odds(risk))[0], abs=1e-5)


def test_the_risks_are_those_that_the_model_gives(planted):
    who = planted.with_signal[1]
    found, _ = contributions(planted, who, at_us=None)
    risks = planted.model.risks(planted.store.narrowed(subjects=[who]), horizon_days=90.0)
    column = risks.targets.index(OUTCOME)
    assert found.time_us.tolist() == risks.time_us.tolist()
    assert np.allclose(found.targets[0].risk, risks.probability[:, column], atol=1e-5)
    assert found.targets[0].recorded.tolist() == [False, True, False]


def test_what_lies_beyond_the_window_adds_exactly_nothing(planted):
    _, parts = contributions(planted, planted.long_record)
    events = [c for c in parts if c.part.kind == "event"]
    unread = [c for c in events if not c.read]
    assert 0 < len(unread) < len(events)
    assert {(c.log_odds, c.risk) for c in unread} == {(0.0, 0.0)}
    assert max(c.part.time_us for c in unread) <= min(c.part.time_us for c in events if c.read)


def test_a_hidden_target_occurred_once_less_unless_its_visit_holds_it_twice(planted):
    """The hazard's head is told in how many earlier visits each target occurred."""
    view = planted.store.narrowed(subjects=[planted.long_record])
    reading = planted.model.read(view)
    people, vocabulary = reading.people, planted.model.study.vocabulary
    rows = reading.loader.after_visits(0)
    row = rows.take(np.array([len(rows) - 1]))
    parts = parts_of(people, 0, int(row.stop[0]), CodeNames.of(vocabulary, view))
    items = np.arange(len(people.kind))
    (batch,) = reading.loader.asked(row, batch_size=1)
    whole = batch.repeats[0, 0].long().numpy()
    for part, less in zip(
        parts, hidden_of(parts, people, items, vocabulary.target_of_code).visits, strict=True
    ):
        left = set(range(len(items))) - set(part.items)
        held = {
            (int(people.visit[at]), int(vocabulary.target_of_code[people.code[at]]))
            for at in left
            if people.kind[at] == 2 and vocabulary.target_of_code[people.code[at]] >= 0
        }
        wanted = [sum(t == target for _, t in held) for target in range(len(whole))]
        assert (whole - less).tolist() == wanted, part
    clinic = next(part for part in parts if part.name == "all clinical events")
    (less,) = hidden_of([clinic], people, items, vocabulary.target_of_code).visits
    assert less.tolist() == whole.tolist()
    assert whole.sum() == 3


def test_what_the_model_has_no_encoder_for_is_no_part(planted):
    study = replace(planted.model.study, modalities=("ehr",))
    found = explain(
        replace(planted.model, study=study),
        planted.store,
        planted.with_signal[0],
        targets=[OUTCOME],
        horizon_days=90.0,
    )
    kinds = {c.part.kind for c in found.targets[0].contributions}
    assert kinds == {"event", "visit", "static", "age", "group"}
    assert len(found.worn_us) == 0


def test_every_kind_of_part_is_there_once(planted):
    _, parts = contributions(planted, planted.long_record)
    kinds = [c.part.kind for c in parts]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "event": 32,
        "visit": 31,
        "wearing": 2,
        "score": 2,
        "static": 1,
        "age": 1,
        "group": 4,
    }


def test_a_visit_of_one_event_adds_what_its_event_adds(planted):
    _, parts = contributions(planted, planted.with_signal[0], at_us=None)
    event = {c.part.visit: c for c in parts if c.part.kind == "event"}
    last = next(c for c in parts if c.part.kind == "visit" and c.part.visit == 2)
    assert last.log_odds == pytest.approx(event[2].log_odds, abs=1e-5)


def test_the_same_question_gets_the_same_answer_bit_for_bit(planted):
    first, _ = contributions(planted, planted.long_record, targets=(OUTCOME, QUIET))
    again, _ = contributions(planted, planted.long_record, targets=(OUTCOME, QUIET))
    for one, other in zip(first.targets, again.targets, strict=True):
        assert one.contributions == other.contributions
        assert np.array_equal(one.risk, other.risk)


def test_of_many_events_those_of_the_visits_that_matter_are_hidden_alone(planted):
    found, parts = contributions(planted, planted.long_record, alone=3)
    events = [c for c in parts if c.part.kind == "event"]
    assert len(events) == 3
    assert found.with_visit_only == 29
    assert f"pays $5 & more ({SIGNAL})" in {c.part.name for c in events}
    _, whole = contributions(planted, planted.long_record)
    exact = {c.part: c.log_odds for c in whole}
    for c in events:
        assert c.log_odds == pytest.approx(exact[c.part], abs=1e-5)


def test_a_stranger_is_refused_without_being_named(planted):
    with pytest.raises(StoreError, match="HF-210") as refusal:
        contributions(planted, 8_123_456)
    assert "8123456" not in str(refusal.value)


def test_a_target_the_model_has_not_is_refused_with_the_nearest(planted):
    with pytest.raises(RunError, match=rf"HF-709.*nearest of which is {OUTCOME}"):
        contributions(planted, planted.with_signal[0], targets=("DX//OUTCOMES",))


def test_a_time_before_the_record_is_refused(planted):
    with pytest.raises(RunError, match="HF-710"):
        contributions(planted, planted.with_signal[0], at_us=0)


def test_a_model_without_hazards_is_refused(planted):
    config = planted.model.study.config
    objectives = config.train.objectives.model_copy(
        update={"time_to_event": 0.0, "next_visit": 1.0}
    )
    train = config.train.model_copy(update={"objectives": objectives})
    study = replace(planted.model.study, config=config.model_copy(update={"train": train}))
    with pytest.raises(RunError, match="HF-708"):
        explain(
            replace(planted.model, study=study),
            planted.store,
            planted.with_signal[0],
            targets=[OUTCOME],
            horizon_days=90.0,
        )
