"""Sites with different wearables: which train together, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.config.compose import compose
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.joined_stores import join_stores
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.evaluation.baselines.label_baselines import choose, summarise
from healthfm_core.federation.code_overlap import told_coverage, told_devices
from healthfm_core.federation.overlap_table import overlap_lines
from healthfm_core.tokens.coverage import coverage
from healthfm_core.tokens.shared_channels import device_use, study_wearable
from healthfm_core.tokens.statistics import SiteStatistics, merge, site_statistics
from healthfm_core.tokens.vocabulary import Vocabulary, build_vocabulary
from healthfm_core.tokens.wearing import wearable_tokens
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import NodeSpec, run_federation
from tests.tokens.small_store import Row, Worn, write

MINUTE = 1 / 60
DAY = 1 / 86_400
TOKENS = TokensConfig(k_min=1)
PEOPLE = range(1, 31)


def recording(
    who: int, channel: str, values: list[float | None], hz: float = MINUTE, start: float = 0.0
) -> Worn:
    return (who, start, channel, hz, values)


def fitbit(folder: Path, people: range = PEOPLE) -> SiteStore:
    worn = [recording(n, "STEPS", [float(n), 10.0]) for n in people]
    worn += [recording(n, "INTENSITY", [0.0, 2.0]) for n in people]
    return write(folder, rows(people), worn=worn, device="fitbit")


def axivity(folder: Path, people: range = PEOPLE) -> SiteStore:
    worn = [recording(n, "ACCELERATION", [10.0, 50.0]) for n in people]
    return write(folder, rows(people), worn=worn, device="axivity")


def rows(people: range) -> list[Row]:
    return [(n, hour, "DX//A", None) for n in people for hour in (1.0, 9000.0)]


def together(*stores: SiteStore) -> SiteStatistics:
    return merge([site_statistics([store], TOKENS) for store in stores])


def test_what_a_fitbit_and_an_accelerometer_say_of_movement_is_one_channel(tmp_path):
    sites = (fitbit(tmp_path / "f"), axivity(tmp_path / "a", range(1, 11)))
    spec = study_wearable(together(*sites), TOKENS)
    assert spec is not None
    assert (spec.device, spec.channels) == ("fitbit", ("ACTIVITY", "STEPS"))
    for store, observed in zip(sites, ([True, True], [True, False]), strict=True):
        tokens = wearable_tokens(store, spec, "train")
        activity = tokens.value[:, 0, :2]
        np.testing.assert_allclose(activity, np.tile([-1.0, 1.0], (len(activity), 1)), rtol=1e-6)
        assert tokens.observed[0, 0, [0, spec.samples]].tolist() == observed


def test_a_channel_in_one_unit_has_one_scale_on_every_device(tmp_path):
    one = [recording(n, "HR", [60.0, 80.0]) for n in PEOPLE]
    other = [recording(n, "HR", [100.0, 120.0]) for n in PEOPLE]
    stores = (
        write(tmp_path / "a", rows(PEOPLE), worn=one, device="apple"),
        write(tmp_path / "b", rows(PEOPLE), worn=other, device="band"),
    )
    spec = study_wearable(together(*stores), TOKENS)
    assert spec is not None
    assert (spec.channels, spec.mean) == (("HR",), (90.0,))
    sd = float(np.sqrt(500))
    assert spec.sd == pytest.approx((sd,))
    assert wearable_tokens(stores[1], spec, "train").value[0, 0, 0] == pytest.approx(10 / sd)


def test_of_a_person_with_two_devices_everything_is_read_and_they_count_once(tmp_path):
    few, band = range(1, 6), [recording(n, "HR", [None, 60.0]) for n in range(1, 6)]
    both = join_stores(
        [
            write(tmp_path / "a", rows(few), worn=band, device="band"),
            write(
                tmp_path / "b",
                rows(few),
                worn=[recording(n, "HR", [50.0, 70.0]) for n in few],
                device="watch",
            ),
        ]
    )
    (store,) = both
    found = site_statistics([store], TOKENS)
    assert found.channels == (("band", "HR"), ("watch", "HR"))
    assert found.modality_subjects.tolist()[1] == 5
    more = write(
        tmp_path / "c",
        rows(PEOPLE),
        worn=[recording(n, "HR", [60.0, 62.0]) for n in PEOPLE],
        device="watch",
    )
    spec = study_wearable(merge([found, site_statistics([more], TOKENS)]), TOKENS)
    assert spec is not None
    (mean,), (sd,) = spec.mean, spec.sd
    tokens = wearable_tokens(store, spec, "train")
    readings = tokens.value[0, 0, :2] * sd + mean
    np.testing.assert_allclose(readings, [50.0, 70.0], rtol=1e-5)  # the watch's, which most wear


def test_a_device_of_another_rate_is_left_out_and_why_is_said(tmp_path):
    daily = [recording(n, "STEPS", [9000.0], DAY) for n in range(1, 11)]
    store = write(tmp_path / "d", rows(range(1, 11)), worn=daily, device="fitbit_daily")
    merged = together(fitbit(tmp_path / "f"), store)
    spec = study_wearable(merged, TOKENS)
    assert spec is not None
    assert (spec.channels, spec.sources) == (("INTENSITY", "STEPS"), ())
    assert device_use(merged, spec, TOKENS).sentence() == (
        "Wearables: fitbit (INTENSITY, STEPS); fitbit_daily: not read, a sample every 86,400 s "
        "where fitbit has one every 60 s"
    )
    assert not len(wearable_tokens(store, spec, "train").subject)
    own = TokensConfig(k_min=1, device="fitbit_daily")
    asked = study_wearable(merge([site_statistics([store], own)]), own)
    assert asked is not None
    assert (asked.device, asked.channels, asked.sources) == ("fitbit_daily", ("STEPS",), ())


def test_glucose_of_two_sensors_and_a_watch_train_together_at_their_own_rates(tmp_path):
    few, fewer = range(1, 21), range(1, 11)
    sugar = [recording(n, "GLUCOSE", [90.0, 110.0, None, 130.0], 1 / 300) for n in few]
    slow = [recording(n, "GLUCOSE", [100.0, 120.0], 1 / 900) for n in fewer]
    stores = (
        fitbit(tmp_path / "f"),
        write(tmp_path / "d", rows(few), worn=sugar, device="dexcom"),
        write(tmp_path / "l", rows(fewer), worn=slow, device="libre"),
    )
    merged = together(*stores)
    spec = study_wearable(merged, TOKENS)
    assert spec is not None
    assert spec.channels == ("ACTIVITY", "GLUCOSE", "STEPS")
    of_glucose = slice(spec.samples, 2 * spec.samples)
    for store, at in ((stores[1], [0, 5, 15]), (stores[2], [0, 15])):
        tokens = wearable_tokens(store, spec, "train")
        assert np.flatnonzero(tokens.observed[0, :, of_glucose]).tolist() == at
    readings = tokens.value[0, :2, spec.samples] * spec.sd[1] + spec.mean[1]
    np.testing.assert_allclose(readings, [100.0, 120.0], rtol=1e-5)
    assert device_use(merged, spec, TOKENS).left_out == {}
    sensors = study_wearable(together(*stores[1:]), TOKENS)
    assert sensors is not None
    assert (sensors.device, sensors.channels, sensors.samples) == ("dexcom", ("GLUCOSE",), 3)


def test_of_a_device_of_another_rate_levels_are_read_and_sums_are_not(tmp_path):
    ten = range(1, 11)
    slow = [recording(n, "HR", [60.0, 80.0], 1 / 300) for n in ten]
    slow += [recording(n, "STEPS", [300.0, 0.0], 1 / 300) for n in ten]
    slow += [recording(n, "COUNTS", [30.0, 20.0], 1 / 300) for n in ten]
    band = write(tmp_path / "b", rows(ten), worn=slow, device="band")
    merged = together(fitbit(tmp_path / "f"), band)
    spec = study_wearable(merged, TOKENS)
    assert spec is not None
    assert [source.channel for source in spec.of_device("band")] == ["HR"]
    assert device_use(merged, spec, TOKENS).sentence() == (
        "Wearables: band (HR), fitbit (ACTIVITY, STEPS); band (COUNTS, STEPS): not read, a sample "
        "every 300 s where fitbit has one every 60 s"
    )
    hourly = [recording(n, "HR", [60.0, 80.0], 1 / 3600) for n in ten]
    clock = write(tmp_path / "c", rows(ten), worn=hourly, device="clock")
    alone = study_wearable(together(fitbit(tmp_path / "g"), clock), TOKENS)
    assert alone is not None
    assert alone.sources == ()  # an hour is more than a window of 15 minutes


@pytest.mark.parametrize(("with_days", "read"), [(40, "fitbit"), (70, "per_day")])
def test_a_few_more_people_with_days_alone_do_not_cost_a_study_its_minutes(
    tmp_path, with_days, read
):
    people = range(101, 101 + with_days)
    days = [recording(n, "STEPS_DAY", [9000.0, 7000.0], DAY) for n in people]
    of_days = write(tmp_path / "d", rows(people), worn=days, device="per_day")
    spec = study_wearable(together(fitbit(tmp_path / "f"), of_days), TOKENS)
    assert spec is not None
    assert spec.device == read


def test_a_study_of_one_device_is_written_as_ever(tmp_path):
    merged = together(axivity(tmp_path / "a"))
    vocabulary = build_vocabulary(merged, TOKENS)
    said = json.loads(vocabulary.to_json())["wearable"]
    assert said["channels"] == ["ACCELERATION"]
    assert "sources" not in said
    assert device_use(merged, vocabulary.wearable, TOKENS).sentence() == ""


def test_a_vocabulary_of_several_devices_reads_back_the_same(tmp_path):
    merged = together(fitbit(tmp_path / "f"), axivity(tmp_path / "a"))
    vocabulary = build_vocabulary(merged, TOKENS)
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert again.hash == vocabulary.hash


def test_a_site_whose_device_is_not_read_says_so(tmp_path):
    daily = [recording(n, "STEPS", [9000.0], DAY) for n in PEOPLE]
    store = write(tmp_path / "d", rows(PEOPLE), worn=daily, device="fitbit_daily")
    vocabulary = build_vocabulary(together(fitbit(tmp_path / "f"), fitbit(tmp_path / "g")), TOKENS)
    assert coverage([store], vocabulary)["coverage_devices"] == 0.0
    assert "coverage_devices" not in coverage([fitbit(tmp_path / "h")], vocabulary)


def test_the_regression_reads_every_device_too(tmp_path):
    labels = {"task": [(n, 9001.0, n % 2 == 0) for n in PEOPLE]}
    stores = []
    for name, channel, device in (("f", "STEPS", "fitbit"), ("a", "ACCELERATION", "axivity")):
        worn = [recording(n, channel, [1.0, 3.0]) for n in PEOPLE]
        path = tmp_path / name
        stores.append(write(path, rows(PEOPLE), worn=worn, device=device, labels=labels))
    what = choose(stores, k_min=1)
    assert what.channels == ("STEPS", "axivity/ACCELERATION")
    x = summarise(stores, "task", what).x[:, -4:]
    np.testing.assert_allclose(x[0], [2.0, 1.0, np.nan, np.nan])
    np.testing.assert_allclose(x[-1], [np.nan, np.nan, 2.0, 1.0])


def test_before_round_1_a_run_says_which_devices_train_together_and_which_do_not(tmp_path):
    fitbit(tmp_path / "f")
    axivity(tmp_path / "a")
    daily = [recording(n, "STEPS", [9000.0], DAY) for n in range(1, 21)]
    write(tmp_path / "d", rows(range(1, 21)), worn=daily, device="totals")
    small = ["model=tiny", "tokens.k_min=5", "train.max_steps=2", "federation.rounds=1"]
    nodes = [NodeSpec(name, [(tmp_path / name, None)]) for name in "fad"]
    result = run_federation(compose(small), nodes, tmp_path / "run")
    assert [row["answered"] for row in result.history] == [["a", "d", "f"]]
    events = RunStore.open(tmp_path / "run").events()
    assert told_devices(events) == (
        "Wearables: axivity (ACTIVITY), fitbit (ACTIVITY, STEPS); totals: not read, a sample every "
        "86,400 s where axivity has one every 60 s"
    )
    assert list(overlap_lines(told_coverage(events))) == [
        "site  all codes  devices read     DX",
        "a         100 %             –  100 %",
        "d         100 %           0 %  100 %",
        "f         100 %             –  100 %",
    ]
