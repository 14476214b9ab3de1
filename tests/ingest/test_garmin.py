"""Garmin: the FIT files of watches, as steps, heart rates and nights by the minute."""

from __future__ import annotations

import random
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.tables.fit_messages import FitMessages, decode
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from tests.ingest.fit_file import (
    MONITORING,
    RECORD,
    RUNNING,
    SAMPLE,
    SLEEP_LEVEL,
    at,
    checksum,
    clock,
    fit,
    seconds,
    steps,
    watch,
)
from tests.ingest.test_devices import days, minutes

CLOCK = clock("2020-03-14T00:00:00", "2020-03-14T01:00:00")


def read(files: Mapping[str, bytes], folder: Path, notify=None, **options) -> SiteStore:
    source = folder / "in"
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(text)
    said = {} if notify is None else {"notify": notify}
    (store,) = ingest("auto", source, folder / "out", **said, **options)
    found = SiteStore.open(store)
    found.check()
    return found


def of_one(*messages, tmp_path: Path, **options) -> SiteStore:
    return read({"31/a.fit": fit(watch(7), *messages)}, tmp_path, **options)


def of_days(store: SiteStore, channel: str) -> dict[str, float]:
    return days(store).get((31, channel), {})


def test_a_day_and_a_night_of_a_watch_stand_at_the_clock_that_it_showed(tmp_path):
    store = read({f"31/{name}": text for name, text in SAMPLE.items()}, tmp_path)
    assert store.subjects().tolist() == [31]
    assert minutes(store, "HR") == {"2020-03-14 08:00": 60.0, "2020-03-14 08:01": 62.0}
    assert minutes(store, "STEPS") == {
        "2020-03-14 08:04": 50.0,
        "2020-03-14 08:05": 75.0,
        "2020-03-14 08:06": 75.0,
    }
    assert minutes(store, "SLEEP") == {
        "2020-03-14 02:00": 1.0,
        "2020-03-14 02:01": 1.0,
        "2020-03-14 02:02": 3.0,
    }
    assert of_days(store, "STEPS_DAY") == {"2020-03-14": 200.0}
    assert of_days(store, "RESTING_HR_DAY") == {"2020-03-14": 52.0}
    assert of_days(store, "HRV_DAY") == {"2020-03-14": 40.0}
    assert store.not_read == {"stress_level messages": 1}


def test_the_sites_zone_holds_before_the_watchs_clock(tmp_path):
    store = of_one(
        CLOCK,
        (RECORD, [at("2020-03-14T08:00:30"), (3, "uint8", 120)]),
        (RECORD, [at("2020-03-14T08:00:31"), (3, "uint8", 130)]),
        tmp_path=tmp_path,
        time_zone="America/New_York",
    )
    assert minutes(store, "HR") == {"2020-03-14 04:00": 125.0}


def test_without_any_clock_utc_is_kept_and_counted(tmp_path):
    store = of_one((RECORD, [at("2020-03-14T08:00:30"), (3, "uint8", 120)]), tmp_path=tmp_path)
    assert minutes(store, "HR") == {"2020-03-14 08:00": 120.0}
    assert store.not_read == {"FIT files without a clock, whose times of UTC were kept": 1}


def test_walking_and_running_add_up_and_counters_begin_anew_at_the_walls_midnight(tmp_path):
    store = of_one(
        CLOCK,
        steps("2020-03-14T22:00:00", 1000, active_s=600),
        steps("2020-03-14T22:10:00", 1100, active_s=660),
        steps("2020-03-14T22:10:00", 60, RUNNING, active_s=60),
        steps("2020-03-14T23:00:00", 1500, active_s=900),  # midnight: the day's total
        steps("2020-03-14T23:05:00", 40, active_s=60),
        tmp_path=tmp_path,
    )
    found = minutes(store, "STEPS")
    assert found["2020-03-14 23:09"] == 160.0
    assert [found[f"2020-03-14 23:{minute}"] for minute in (56, 59)] == [100.0, 100.0]
    assert found["2020-03-15 00:04"] == 40.0
    assert of_days(store, "STEPS_DAY") == {"2020-03-14": 1560.0, "2020-03-15": 40.0}


def test_steps_before_a_days_first_message_are_the_days_and_no_minutes(tmp_path):
    store = of_one(
        CLOCK,
        steps("2020-03-14T12:00:00", 5000, active_s=3000),
        steps("2020-03-14T12:01:00", 5080, active_s=3060),
        steps("2020-03-14T12:02:00", 5070, active_s=3090),
        steps("2020-03-14T18:00:00", 9000),
        tmp_path=tmp_path,
    )
    found = minutes(store, "STEPS")
    assert found.pop("2020-03-14 13:00") == 80.0
    assert sum(found.values()) == pytest.approx(3930)
    assert min(found) == "2020-03-14 18:45"
    assert of_days(store, "STEPS_DAY") == {"2020-03-14": 9000.0}
    assert store.not_read["steps of no known minute"] == 2


def test_counters_go_on_from_file_to_file_and_two_watches_do_not_add_up(tmp_path):
    files = {
        "31/b.fit": fit(watch(7), CLOCK, steps("2020-03-14T08:02:00", 150, active_s=120)),
        "31/a.fit": fit(watch(7), CLOCK, steps("2020-03-14T08:01:00", 100, active_s=60)),
        "31/c.fit": fit(watch(8), CLOCK, steps("2020-03-14T08:02:00", 90, active_s=60)),
    }
    store = read(files, tmp_path)
    assert minutes(store, "STEPS") == {"2020-03-14 09:00": 100.0, "2020-03-14 09:01": 50.0}
    assert of_days(store, "STEPS_DAY") == {"2020-03-14": 150.0}


def test_short_times_packed_kinds_and_the_other_byte_order_are_read(tmp_path):
    low = seconds("2020-03-14T22:00:00") & 0xFFFF
    assert low < seconds("2020-03-14T08:00:00") & 0xFFFF  # it went round
    text = fit(
        watch(7),
        CLOCK,
        (MONITORING, [at("2020-03-14T08:00:00"), (27, "uint8", 70)]),
        (MONITORING, [(26, "uint16", low), (24, "byte", 6 | 2 << 5), (3, "uint32", 30)]),
        (MONITORING, [(26, "uint16", low + 60), (3, "uint32", 999)]),  # of no kind of moving
        (MONITORING, [(26, "uint16", low + 60), (24, "byte", 6), (3, "uint32", 45)]),
        big=True,
    )
    store = read({"31/a.fit": text}, tmp_path)
    assert minutes(store, "STEPS") == {"2020-03-14 23:00": 15.0}
    assert of_days(store, "STEPS_DAY") == {"2020-03-14": 45.0}
    assert store.not_read == {"monitoring messages": 1, "steps of no known minute": 1}


def test_stages_that_the_watch_could_not_tell_are_counted(tmp_path):
    levels = [("01:00", 0), ("01:10", 4), ("01:12", 9), ("01:20", 1)]
    stages = [(SLEEP_LEVEL, [at(f"2020-03-14T{t}:00"), (0, "enum", of)]) for t, of in levels]
    store = of_one(CLOCK, *stages, tmp_path=tmp_path)
    assert minutes(store, "SLEEP") == {"2020-03-14 02:10": 2.0, "2020-03-14 02:11": 2.0}
    assert store.not_read == {"stages of sleep that could not be told": 2}


def test_a_file_that_is_cut_off_is_set_aside_and_the_others_are_read(tmp_path):
    files = {f"31/{name}": text for name, text in SAMPLE.items()}
    files |= {"31/cut.fit": SAMPLE["day.fit"][:-40], "32/none.fit": b"no such file"}
    changed = bytearray(SAMPLE["day.fit"])
    changed[60] ^= 1
    store = read(files | {"31/flipped.fit": bytes(changed)}, tmp_path)
    assert store.rejected == {"unreadable_file": 3}
    assert store.subjects().tolist() == [31]


def test_an_archive_in_a_folder_is_read_and_one_in_an_archive_is_named(tmp_path):
    inner = tmp_path / "UploadedFiles_0-_Part1.zip"
    with zipfile.ZipFile(inner, "w") as packed:
        for name, text in SAMPLE.items():
            packed.writestr(name, text)
    said: list[str] = []
    files = {"31/DI_CONNECT/DI-Connect-Uploaded-Files/a.zip": inner.read_bytes()}
    store = read(files, tmp_path / "one")
    assert store.subjects().tolist() == [31]
    assert of_days(store, "STEPS_DAY") == {"2020-03-14": 200.0}
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "32.zip", "w") as whole:
        whole.writestr("DI_CONNECT/DI-Connect-Uploaded-Files/a.zip", inner.read_bytes())
        whole.writestr("DI_CONNECT/day.fit", SAMPLE["day.fit"])
    store = read({}, tmp_path, said.append)
    assert store.not_read["archives within an archive"] == 1
    assert any("lie within another archive" in line for line in said)


def test_changed_bytes_under_a_right_checksum_are_a_file_or_none(tmp_path):
    came = set()
    for seed in range(400):
        rng = random.Random(seed)
        text = bytearray(SAMPLE["day.fit"][:-2])
        for _ in range(rng.randint(1, 4)):
            text[rng.randrange(14, len(text))] = rng.randrange(256)
        found = decode(bytes(text) + struct.pack("<H", checksum(bytes(text))))
        came.add(type(found))
    assert came == {FitMessages, type(None)}


def test_what_holds_no_wearing_is_refused(tmp_path):
    with pytest.raises(IngestError, match="HF-306"):
        of_one(CLOCK, tmp_path=tmp_path)
    assert not (tmp_path / "out").exists()
