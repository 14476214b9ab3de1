"""Batches: what every position is, what it sees, what is asked of it."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.sequences import EVENT, NOW, PAD, SEP, SOFT, STATIC, WEARABLE
from tests.data.people import (
    FEATURES,
    HOUR_US,
    TARGETS,
    WINDOWS,
    Item,
    Person,
    items_of,
    sequences_of,
    visits_of,
)

SLOTS = 2
INF = float("inf")


def loader_of(people: list[Person], gap: int = 0, **cuts: int) -> BatchLoader:
    config = TokensConfig(**{"max_len": 64, "max_queries": 16, **cuts})
    return BatchLoader(
        sequences_of(people, gap),
        config,
        n_targets=TARGETS,
        windows=WINDOWS,
        features=FEATURES,
        soft_tokens={"genomics": SLOTS},
    )


def one_batch(people: list[Person], query: str, gap: int = 0, **cuts: int) -> Batch:
    (batch,) = loader_of(people, gap, **cuts).in_order(batch_size=100, query=query)
    return batch


# Hours: statics, a score, two visits (0 h and 48 h), wearing that ends at 24 h and at 48 h.
ANNA = Person(
    statics=(3,),
    events=((0, 4, 0), (0, 10, None), (48, 5, 1)),
    worn=(24, 48),
    scores=(1.5, -2.0),
    birth=-24,
)


def test_a_row_is_prs_slots_statics_history_and_queries():
    batch = one_batch([ANNA], "sep")
    kinds = [SOFT, SOFT, STATIC, EVENT, EVENT, WEARABLE, EVENT, WEARABLE, SEP]
    assert batch.kind.tolist() == [kinds]
    assert batch.token.tolist() == [[0, 0, 3, 4, 10, 0, 5, 0, 0]]
    assert batch.has_value.tolist() == [[False] * 4 + [True] + [False] * 4]
    assert batch.quantile[0, 4].item() == pytest.approx(0.1)
    assert batch.n_static.tolist() == [3]
    assert batch.soft_slot.tolist() == [[0, 1, -1, -1, -1, -1, -1, -1, -1]]
    assert batch.wearable_slot.tolist() == [[-1, -1, -1, -1, -1, 0, -1, 1, -1]]
    assert batch.panel.tolist() == [[1.5, -2.0]]
    assert batch.panel_mask.all()
    assert batch.wearable[0, 1].flatten().tolist() == [7, 8, 9, 10, 11, 12]


def test_each_position_sees_exactly_its_prefix():
    batch = one_batch([ANNA], "sep")
    # static prefix 3 · first visit up to 5 · wearing at 24 h sees itself · the event at 48 h sees
    # its visit but not the wearing that ends with it · that wearing sees the event · SEP after the
    # first visit knows that visit alone
    assert batch.kv_end.tolist() == [[3, 3, 3, 5, 5, 6, 7, 8, 5]]


def test_times_are_days_from_the_last_history_item():
    batch = one_batch([ANNA], "sep")
    assert batch.t_days.tolist() == [[0, 0, 0, -2, -2, -1, 0, 0, 0]]
    assert batch.gap_days.tolist() == [[0, 0, 0, 0, 0, 1, 1, 0, 2]]  # SEP: since what it knows
    age_days = (batch.age_years * 365.25).tolist()
    assert age_days == [pytest.approx([0, 0, 0, 1, 1, 2, 3, 3, 3], abs=1e-4)]


def test_sep_asks_for_the_next_visit():
    batch = one_batch([ANNA], "sep")
    assert batch.query.tolist() == [[8]]
    assert batch.query_mask.tolist() == [[True]]
    assert batch.query_time_us.tolist() == [[48 * HOUR_US]]
    assert batch.target.tolist() == [[[0, 1, 0, 0]]]
    assert batch.repeats.tolist() == [[[1, 0, 0, 0]]]
    assert torch.isnan(batch.label).all()


def test_now_asks_after_every_visit_when_it_occurs_next():
    person = Person(events=((0, 4, 0), (24, 5, 1), (72, 6, 0)), worn=(96,))
    batch = one_batch([person], "now")
    assert batch.kind.tolist() == [[EVENT] * 3 + [WEARABLE] + [NOW] * 3]
    assert batch.query.tolist() == [[4, 5, 6]]
    assert batch.kv_end.tolist() == [[1, 2, 3, 4, 1, 2, 3]]
    assert batch.query_time_us.tolist() == [[0, 24 * HOUR_US, 72 * HOUR_US]]
    assert batch.event_days[0, :, 0].tolist() == [3, 2, INF]
    assert batch.event_days[0, :, 1].tolist() == [1, INF, INF]
    assert batch.exposure_days.tolist() == [[4, 3, 1]]
    assert batch.repeats[0, :, 0].tolist() == [1, 1, 2]
    assert batch.target.sum() == 0


def test_now_in_training_ends_the_row_at_one_visit_before_the_last():
    person = Person(events=tuple((24 * v, 4, 0) for v in range(4)), worn=(1, 200))
    loader = loader_of([person] * 60)
    seen = set()
    for batch in loader.epoch(np.random.default_rng(0), batch_size=7, query="now"):
        assert batch.query_mask.sum(1).tolist() == [1] * batch.size
        at = batch.query[:, 0]
        rows = torch.arange(batch.size)
        assert (batch.kv_end[rows, at] == at).all()  # it knows all that stands before it
        assert (batch.t_days[rows, at] == 0).all()
        seen |= set(batch.query_time_us[:, 0].tolist())
    assert seen == {0, 24 * HOUR_US, 48 * HOUR_US}


def test_a_subject_who_only_wears_a_device_is_asked_at_the_end():
    batch = one_batch([Person(worn=(1, 2, 3))], "now")
    assert batch.kind.tolist() == [[WEARABLE] * 3 + [NOW]]
    assert batch.query_time_us.tolist() == [[3 * HOUR_US]]
    assert batch.kv_end.tolist() == [[1, 2, 3, 3]]
    assert loader_of([Person(worn=(1,))]).n_rows("sep") == 0


def test_nothing_later_than_the_label_is_in_its_row():
    person = Person(
        statics=(3,),
        events=((0, 4, 0), (10, 5, 1), (20, 6, 0)),
        worn=(10, 11),
        labels=((10, 1), (5, 0)),
    )
    batch = one_batch([person], "label")
    assert batch.label[:, 0].tolist() == [0, 1]  # a row per label, in order of time
    assert batch.kind.tolist() == [
        [STATIC, EVENT, NOW, PAD, PAD],
        [STATIC, EVENT, EVENT, WEARABLE, NOW],
    ]
    assert batch.kv_end.tolist() == [[1, 2, 2, 0, 0], [1, 2, 3, 4, 4]]
    assert batch.t_days[0].tolist() == pytest.approx([0, 0, 5 / 24, 0, 0])
    assert batch.repeats[:, 0, :2].tolist() == [[1, 0], [1, 1]]
    assert batch.event_days[:, 0, 0].tolist() == pytest.approx([15 / 24, 10 / 24])
    assert batch.event_days[:, 0, 1].tolist() == [pytest.approx(5 / 24), INF]


def test_a_visit_cut_by_the_label_counts_neither_before_nor_after():
    person = Person(events=((0, 4, 0), (10, 5, 1), (12, 6, 2)), labels=((11, 1),))
    batch = one_batch([person], "label", gap=3)
    assert batch.token.tolist() == [[4, 5, 0]]
    assert batch.repeats[0, 0].tolist() == [1, 0, 0, 0]
    assert batch.event_days[0, 0].tolist() == [INF] * 4


def test_a_visit_over_several_times_sees_itself_whole():
    person = Person(events=((0, 4, 0), (4, 5, None), (30, 6, 1)), worn=(2, 4, 5))
    batch = one_batch([person], "sep", gap=4)
    # 0 h event, 2 h wearing, 4 h event, 4 h wearing, 5 h wearing, 30 h event, SEP at 30 h
    assert batch.kind.tolist() == [[EVENT, WEARABLE, EVENT, WEARABLE, WEARABLE, EVENT, SEP]]
    assert batch.kv_end.tolist() == [[3, 2, 3, 4, 5, 6, 4]]


def test_the_latest_items_are_kept_but_repeats_count_the_whole_history():
    person = Person(statics=(3, 7), events=tuple((v, 4 + v % 2, 0) for v in range(30)))
    batch = one_batch([person], "sep", max_len=8, max_queries=3)
    assert batch.kind.tolist() == [[STATIC] * 2 + [EVENT] * 6 + [SEP] * 3]
    assert batch.repeats[0, :, 0].tolist() == [27, 28, 29]
    assert batch.kv_end.tolist() == [[2, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7]]


def test_only_visits_of_the_window_ask():
    person = Person(events=tuple((v, 4, 0) for v in range(30)))
    batch = one_batch([person], "sep", max_len=8)
    assert batch.query_mask.sum() == 7
    assert batch.repeats[0, 0, 0] == 23


def test_the_latest_wearing_tokens_are_kept():
    person = Person(events=((0, 4, 0),), worn=tuple(range(1, 20)))
    batch = one_batch([person], "now", max_wearable_tokens=3)
    assert batch.kind.tolist() == [[EVENT, WEARABLE, WEARABLE, WEARABLE, NOW]]
    assert batch.wearable[0, :, 0, 0].tolist() == [1 + 6 * 16, 1 + 6 * 17, 1 + 6 * 18]


def test_a_study_without_wearables_or_scores_has_boxes_of_one():
    sequences = replace(
        sequences_of([Person(events=((0, 4, 0), (1, 4, 0)))]),
        wearable=np.empty((0, 1, 1), np.float32),
        wearable_mask=np.empty((0, 1, 1), np.bool_),
        panel=np.empty((1, 0), np.float32),
        panel_mask=np.empty((1, 0), np.bool_),
        panel_names=(),
    )
    loader = BatchLoader(
        sequences, TokensConfig(), n_targets=4, windows=0, features=0, soft_tokens={"genomics": 0}
    )
    (batch,) = loader.in_order(batch_size=4, query="sep")
    assert batch.wearable.shape == (1, 1, 1, 1)
    assert batch.panel.shape == (1, 1)
    assert not batch.wearable_mask.any()
    assert not batch.panel_mask.any()


def without(person: Person, modality: str) -> Person:
    gone = {"ehr": {"events": (), "statics": ()}, "wearable": {"worn": ()}}
    return replace(person, **gone.get(modality, {"scores": None}))


@pytest.mark.parametrize("modality", ["wearable", "genomics"])
def test_dropped_is_exactly_like_absent(modality):
    people = [ANNA, replace(ANNA, worn=()), replace(ANNA, scores=None)]
    chance = {modality: 1.0}
    dropped = list(
        loader_of(people).epoch(np.random.default_rng(0), batch_size=1, query="sep", dropout=chance)
    )
    lacking = loader_of([without(person, modality) for person in people])
    absent = list(lacking.in_order(batch_size=1, query="sep"))
    for batch in dropped:
        assert_equal(batch, absent[int(batch.subject[0])])


def test_the_clinic_is_dropped_only_where_something_remains():
    people = [ANNA, replace(ANNA, worn=(), scores=None)]
    for batch in loader_of(people).epoch(
        np.random.default_rng(0), batch_size=1, query="sep", dropout={"ehr": 1.0}
    ):
        kinds = batch.kind.tolist()[0]
        if batch.subject[0] == 0:
            assert kinds == [SOFT, SOFT, WEARABLE, WEARABLE, SEP]
            assert batch.kv_end.tolist() == [[2, 2, 3, 4, 2]]  # no wearing before SEP's visit ended
        else:
            assert kinds == [STATIC, EVENT, EVENT, EVENT, SEP]
        assert batch.repeats.tolist() == [[[1, 0, 0, 0]]]  # what is asked does not change


def test_a_label_row_without_the_clinic_is_that_of_a_subject_who_has_none():
    person = replace(ANNA, labels=((48, 1),))
    (shown,) = loader_of([person]).in_order(
        batch_size=1, query="label", inputs={"wearable", "genomics"}
    )
    bare = replace(person, events=(), statics=(), birth=None)
    (absent,) = loader_of([bare]).in_order(batch_size=1, query="label")
    for name in ("repeats", "event_days", "exposure_days"):  # what is asked stays
        shown = replace(shown, **{name: getattr(absent, name)})
    assert_equal(shown, absent)


def test_inputs_restrict_what_is_shown_and_not_what_is_asked():
    full = one_batch([ANNA], "sep")
    (shown,) = loader_of([ANNA]).in_order(batch_size=1, query="sep", inputs={"genomics"})
    assert shown.kind.tolist() == [[SOFT, SOFT, SEP]]
    assert shown.t_days.tolist() == [[0, 0, 0]]
    assert not shown.age_years.any()
    assert torch.equal(shown.target, full.target)
    assert torch.equal(shown.query_time_us, full.query_time_us)
    (none,) = loader_of([ANNA]).in_order(batch_size=1, query="sep", inputs=set())
    assert none.kind.tolist() == [[SEP]]
    assert none.kv_end.tolist() == [[0]]


def test_dropped_events_are_events_and_never_all_of_a_row():
    person = Person(statics=(3, 7), events=tuple((v, 4, 0) for v in range(50)), worn=(7, 9))
    lone = Person(events=((0, 4, 0), (1, 5, 1)))
    loader = loader_of([person, lone] * 50)
    kept = []
    for batch in loader.epoch(np.random.default_rng(1), batch_size=8, query="sep", drop_events=0.5):
        kinds = batch.kind
        for row in range(batch.size):
            if batch.subject[row] % 2 == 0:
                assert (kinds[row] == STATIC).sum() == 2
                assert (kinds[row] == WEARABLE).sum() == 2
                kept.append(int((kinds[row] == EVENT).sum()))
            else:
                assert (kinds[row] == EVENT).any()
    assert 20 < np.mean(kept) < 30


def test_every_row_comes_once_an_epoch_and_the_seed_decides_the_rest():
    rng = np.random.default_rng(3)
    people = [
        Person(events=tuple((h, 4, 0) for h in range(2 + int(rng.integers(40))))) for _ in range(90)
    ]
    loader = loader_of(people)
    runs = [
        list(loader.epoch(np.random.default_rng(seed), batch_size=8, query="sep", drop_events=0.3))
        for seed in (0, 0, 1)
    ]
    for run in runs:
        assert sorted(torch.cat([b.subject for b in run]).tolist()) == list(range(90))
        assert loader.n_rows("sep") == 90
    for one, same in zip(runs[0], runs[1], strict=True):
        assert_equal(one, same)
    assert runs[0][0].subject.tolist() != runs[2][0].subject.tolist()


def test_rows_of_like_length_share_a_batch():
    rng = np.random.default_rng(3)
    people = [
        Person(events=tuple((h, 4, 0) for h in range(2 + int(rng.integers(40)))))
        for _ in range(400)
    ]
    batches = list(loader_of(people).epoch(np.random.default_rng(0), batch_size=8, query="sep"))
    filled = sum(int((b.kind != PAD).sum()) for b in batches)
    assert filled / sum(b.kind.numel() for b in batches) > 0.85


def assert_equal(one: Batch, other: Batch) -> None:
    for field in fields(Batch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


hours = st.integers(0, 12)
persons = st.builds(
    Person,
    events=st.lists(
        st.tuples(hours, st.integers(3, 12), st.none() | st.integers(0, TARGETS - 1)), max_size=12
    ).map(tuple),
    statics=st.lists(st.integers(3, 9), max_size=3).map(tuple),
    worn=st.lists(hours, max_size=6, unique=True).map(tuple),
    scores=st.none() | st.just((0.5, -0.5)),
    labels=st.lists(st.tuples(hours, st.integers(0, 1)), max_size=2).map(tuple),
    birth=st.none() | st.just(-1000),
)


WORN_SINCE = Person(((0, 3, None), (1, 3, None), (2, 3, None)), (3, 3, 3), (2, 3, 4), (0.5, -0.5))
"""Of whose visits none is in a window of 8: two scores, three statics, three hours worn."""


def kept_items(person: Person, gap: int, cut: int | None, config: TokensConfig) -> list[Item]:
    """What a row keeps, by the definition: statics, then the latest of the rest."""
    items = [i for i in items_of(person, gap) if cut is None or i.hour <= cut or i.kind == STATIC]
    statics = [item for item in items if item.kind == STATIC]
    history = [item for item in items if item.kind != STATIC]
    worn = [item for item in history if item.kind == WEARABLE][-config.max_wearable_tokens :]
    history = [item for item in history if item.kind == EVENT or item in worn]
    room = config.max_len - len(statics) - (SLOTS if person.scores else 0)
    return statics + history[-room:]


def check_history(batch: Batch, row: int, person: Person, items: list[Item]) -> None:
    """Compare a row's history with its items, and each position's view with the definition."""
    slots = SLOTS if person.scores else 0
    n = slots + len(items)
    static = slots + sum(item.kind == STATIC for item in items)
    assert batch.kind[row, :n].tolist() == [SOFT] * slots + [item.kind for item in items]
    assert batch.token[row, :n].tolist() == [0] * slots + [item.token for item in items]
    assert batch.n_static[row] == static
    for at, item in enumerate(items, start=slots):
        end = int(batch.kv_end[row, at])
        if item.kind == STATIC:
            assert end == static
            continue
        seen = items[static - slots : end - slots]
        rest = items[end - slots :]
        assert end > at
        if item.kind == WEARABLE:
            assert all(other.hour <= item.hour for other in seen)
            assert all(other.hour > item.hour for other in rest)
        else:
            own = [other for other in items if other.visit == item.visit and other.kind == EVENT]
            assert all(other in seen for other in own)
            assert all(other.hour >= item.hour for other in rest)
            assert all(other.hour <= own[-1].hour for other in seen)
    for other in range(int(batch.kind.shape[1])):
        if batch.kind[row, other] in (SEP, NOW):  # nothing it sees sees further than it
            end = int(batch.kv_end[row, other])
            assert (batch.kv_end[row, static:end] <= end).all()


@settings(max_examples=150)
@example([WORN_SINCE], 0, 8, 3, 100)
@given(
    st.lists(persons, min_size=1, max_size=4),
    st.sampled_from([0, 2]),
    st.sampled_from([8, 10, 40]),
    st.sampled_from([1, 3, 16]),
    st.sampled_from([2, 100]),
)
def test_next_visit_rows_follow_the_definition(people, gap, max_len, max_queries, max_worn):
    cuts = {"max_len": max_len, "max_queries": max_queries, "max_wearable_tokens": max_worn}
    config = TokensConfig(**cuts)
    asked = [p for p in people if len(visits_of(p, gap)) >= 2]
    loader = loader_of(people, gap, **cuts)
    assert loader.n_rows("sep") == len(asked)
    done = 0
    for batch in loader.in_order(batch_size=2, query="sep"):
        for row in range(batch.size):
            person = asked[done]
            done += 1
            items = kept_items(person, gap, None, config)
            check_history(batch, row, person, items)
            check_seps(batch, row, person, gap, items, max_queries)
    assert done == len(asked)


def check_seps(
    batch: Batch, row: int, person: Person, gap: int, items: list[Item], max_queries: int
) -> None:
    visits = visits_of(person, gap)
    kept = {item.visit for item in items if item.kind == EVENT}
    # partly cut visits ask too, where an item of theirs or of an earlier one is in the window
    history = [item for item in items if item.kind != STATIC]
    inside = [v for v in range(len(visits) - 1) if v in kept or v > min(kept, default=v)]
    wanted = inside[-max_queries:] or [len(visits) - 2]
    mask = batch.query_mask[row]
    assert mask.sum() == len(wanted)
    static = int(batch.n_static[row])
    for q, v in enumerate(wanted):
        at = int(batch.query[row, q])
        end_hour = visits[v][-1][0]
        assert batch.kind[row, at] == SEP
        known = sum(item.hour <= end_hour for item in history)
        assert batch.kv_end[row, at] == static + known
        assert batch.query_time_us[row, q] == visits[v + 1][0][0] * HOUR_US
        for target in range(TARGETS):
            present = [any(t == target for *_, t in visit) for visit in visits]
            assert batch.target[row, q, target] == present[v + 1]
            assert batch.repeats[row, q, target] == sum(present[: v + 1])
        last = history[known - 1].hour if known else visits[v + 1][0][0]
        gap_hours = visits[v + 1][0][0] - last
        assert batch.gap_days[row, at] == pytest.approx(gap_hours / 24, abs=1e-6)


@settings(max_examples=100)
@given(st.lists(persons, min_size=1, max_size=4), st.sampled_from([0, 2]))
def test_label_rows_hold_the_past_and_nothing_else(people, gap):
    loader = loader_of(people, gap)
    wanted = [(p, hour, value) for p in people for hour, value in sorted(p.labels)]
    assert loader.n_rows("label") == len(wanted)
    done = 0
    for batch in loader.in_order(batch_size=3, query="label"):
        for row in range(batch.size):
            person, hour, value = wanted[done]
            done += 1
            items = kept_items(person, gap, hour, TokensConfig(max_len=64))
            slots = SLOTS if person.scores else 0
            n = slots + len(items)
            assert batch.kind[row, : n + 1].tolist() == [SOFT] * slots + [
                item.kind for item in items
            ] + [NOW]
            assert (batch.kind[row, n + 1 :] == PAD).all()
            assert batch.kv_end[row, n] == n
            assert (batch.kv_end[row, : n + 1] <= n).all()
            assert batch.label[row, 0] == value
            assert batch.query_time_us[row, 0] == hour * HOUR_US
            visits = visits_of(person, gap)
            for target in range(TARGETS):
                has = [any(t == target for *_, t in visit) for visit in visits]
                before = sum(h for h, v in zip(has, visits, strict=True) if v[-1][0] <= hour)
                after = [v[0][0] for h, v in zip(has, visits, strict=True) if h and v[0][0] > hour]
                assert batch.repeats[row, 0, target] == before
                days = (min(after) - hour) / 24 if after else INF
                assert batch.event_days[row, 0, target] == pytest.approx(days, abs=1e-6)
    assert done == len(wanted)


@settings(max_examples=60)
@given(st.lists(persons, min_size=1, max_size=4), st.sampled_from([0, 2]))
def test_now_rows_know_when_each_target_comes_next(people, gap):
    loader = loader_of(people, gap)
    asked = [p for p in people if p.events or p.worn]
    assert loader.n_rows("now") == len(asked)
    done = 0
    for batch in loader.in_order(batch_size=3, query="now"):
        for row in range(batch.size):
            person = asked[done]
            done += 1
            check_history(batch, row, person, kept_items(person, gap, None, TokensConfig()))
            visits = visits_of(person, gap)
            for q, visit in enumerate(visits):
                end = visit[-1][0]
                record_end = max([e[0] for e in person.events] + list(person.worn))
                exposure = batch.exposure_days[row, q]
                assert exposure == pytest.approx((record_end - end) / 24, abs=1e-6)
                for target in range(TARGETS):
                    later = [v[0][0] for v in visits[q + 1 :] if any(t == target for *_, t in v)]
                    days = (later[0] - end) / 24 if later else INF
                    assert batch.event_days[row, q, target] == pytest.approx(days, abs=1e-6)
    assert done == len(asked)
