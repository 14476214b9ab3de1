"""Raw accelerometers: three makers' files become windows of movement in milli-g."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.accelerometers import actigraph, axivity, geneactiv
from healthfm_client.ingest.accelerometers.movement import (
    PieceSums,
    calibration,
    still,
    windows,
    worn,
)
from healthfm_client.ingest.accelerometers.raw_file import Damage
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError, IngestError
from healthfm_core.tokens.wearing import wearing_spans
from tests.ingest.raw_accelerometer_files import START, cwa, gt3x, lying
from tests.ingest.raw_accelerometer_files import geneactiv as bin_file

RNG = np.random.default_rng(7)


def read(files: Mapping[str, bytes], folder: Path, **options) -> SiteStore:
    source = folder / "in"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (out,) = ingest("auto", source, folder / "out", **options)
    store = SiteStore.open(out)
    store.check()
    return store


def values(store: SiteStore, device: str) -> dict[tuple[int, str], float]:
    """(Person, window's beginning) → milli-g."""
    found = {}
    for row in store.wearable(device).to_pylist():
        for n, (value, seen) in enumerate(zip(row["value"], row["mask"], strict=True)):
            if seen:
                at = row["start"] + timedelta(seconds=n / row["hz"])
                found[row["subject_id"], f"{at:%d %H:%M:%S}"] = value
    return found


@pytest.mark.parametrize(
    ("reader", "write", "hz"),
    [
        (axivity.samples, lambda units: cwa(units), 100),
        (axivity.samples, lambda units: cwa(units, 50, 0x62), 50),
        (actigraph.samples, lambda units: gt3x(units), 30),
        (actigraph.samples, lambda units: gt3x(units, 100, wide=True), 100),
        (geneactiv.samples, lambda units: bin_file(units), 100),
    ],
)
def test_every_sample_comes_back_with_its_axes_and_its_time(tmp_path, reader, write, hz):
    units = RNG.integers(-2048, 2048, (hz * 24, 3))
    (tmp_path / "file").write_bytes(write(units))
    damage = Damage()
    found = list(reader(tmp_path / "file", damage))
    g = np.concatenate([one.g for one in found])
    time = np.concatenate([one.time_us for one in found])
    assert damage == Damage()
    assert {one.hz for one in found} == {hz}
    np.testing.assert_allclose(g, units / 256, atol=1e-6)
    since = (time - int((START - datetime(1970, 1, 1)).total_seconds()) * 1_000_000) / 1e6
    np.testing.assert_allclose(since, np.arange(len(units)) / hz, atol=1e-3)


def test_ten_bits_with_an_exponent_are_unpacked(tmp_path):
    units = RNG.integers(-512, 512, (2400, 3)) * 4
    (tmp_path / "a.cwa").write_bytes(cwa(units, 100, 0x30))
    g = np.concatenate([one.g for one in axivity.samples(tmp_path / "a.cwa", Damage())])
    assert np.abs(g * 256 - units).max() <= 4


def test_windows_of_thirty_seconds_of_three_makers(tmp_path):
    files = {
        "5_90001_0_0.cwa": cwa(lying(80, 100)),
        "6/week.gt3x": gt3x(lying(80, 30)),
        "7.bin": bin_file(lying(80, 100)),
        "8.cwa.gz": gzip.compress(cwa(lying(80, 50), 50)),
    }
    store = read(files, tmp_path)
    assert store.subjects().tolist() == [5, 6, 7, 8]
    assert store.devices == ("actigraph", "axivity", "geneactiv")
    assert all(store.wearable(of)["hz"][0].as_py() == 1 / 30 for of in store.devices)
    found = {**values(store, "axivity"), **values(store, "actigraph"), **values(store, "geneactiv")}
    for person in (5, 6, 7, 8):
        times = [at for who, at in found if who == person]
        assert times == ["07 13:29:30", "07 13:30:00", "07 13:30:30", "07 13:31:00"]
    assert all(value == pytest.approx(501, abs=1.5) for value in found.values())
    assert store.not_read == {"files that could not be calibrated": 4}
    token_s, window_s = wearing_spans("axivity", 1 / 30, TokensConfig(wearable_window_s=30))
    assert (token_s, window_s) == (3600, 30)


def test_minutes_where_they_are_asked_for(tmp_path):
    store = read({"5.cwa": cwa(lying(80, 100))}, tmp_path, every_s=60)
    assert [at for _, at in values(store, "axivity")] == [
        "07 13:29:00",
        "07 13:30:00",
        "07 13:31:00",
    ]
    with pytest.raises(ConfigError, match="every_s"):
        read({"5.cwa": cwa(lying(80, 100))}, tmp_path / "odd", every_s=70)


def test_a_week_in_many_positions_calibrates_the_device(tmp_path):
    direction = RNG.normal(size=(300, 3))
    true = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    scale, offset = np.array([1.03, 0.97, 1.01]), np.array([0.02, -0.03, 0.01])
    seen = (true - offset) / scale
    moved = RNG.normal(size=(20, 3)) * 0.4
    of = np.concatenate([seen, moved])
    spread = np.concatenate([np.full((300, 3), 1e-6), np.full((20, 3), 0.04)])
    pieces = PieceSums(np.arange(320), np.full(320, 1000), np.hstack([of, of**2 + spread]) * 1000)
    quiet = still(pieces)
    assert quiet.sum() == 300
    found = calibration(pieces, quiet)
    assert found.found
    np.testing.assert_allclose(found.scale, scale, atol=2e-3)
    np.testing.assert_allclose(found.offset, offset, atol=2e-3)
    flat = PieceSums(pieces.at, pieces.count, np.abs(pieces.sums))
    assert not calibration(flat, still(flat)).found


def test_an_hour_without_any_movement_is_nobodys():
    at = np.concatenate([np.arange(1000), np.arange(2000, 2300)])
    quiet = np.zeros(1300, np.bool_)
    quiet[100:460] = quiet[600:959] = quiet[1000:1300] = True
    where = worn(at, quiet)
    assert np.flatnonzero(~where).tolist() == list(range(100, 460))
    pieces = PieceSums(at, np.ones(1300, np.int64), np.arange(1300.0)[:, None])
    time, mean = windows(pieces, where, 30_000_000)
    assert time[:2].tolist() == [0, 30_000_000]
    assert mean[:2].tolist() == [1.0, 4.0]
    assert not ((time >= 1_020_000_000) & (time < 4_590_000_000)).any()


def test_what_is_damaged_is_counted_and_the_rest_is_read(tmp_path):
    flipped = bytearray(cwa(lying(80, 100)))
    flipped[1024 + 512 * 3 + 40] ^= 1
    cut = gzip.compress(cwa(lying(80, 100)))[:-200]
    log = gt3x(lying(80, 30))
    files = {
        "5.cwa": bytes(flipped),
        "6.cwa.gz": cut,
        "7.gt3x": log,
        "8.gt3x": b"PK",
        "9.bin": b"x",
    }
    store = read(files, tmp_path)
    assert store.subjects().tolist() == [5, 6, 7]
    assert store.rejected == {"unreadable_file": 2}
    assert store.not_read["damaged blocks"] == 1
    assert store.not_read["files that end in the middle"] == 1


def test_a_window_that_two_files_have_counts_once_and_what_is_too_strong_is_set_aside(tmp_path):
    files = {
        "5/a.cwa": cwa(lying(40, 100)),
        "5/b.cwa": cwa(lying(80, 100, z=512)),
        "6/a.cwa": cwa(lying(40, 100, z=32_000)),
    }
    store = read(files, tmp_path)
    found = values(store, "axivity")
    assert found[5, "07 13:30:00"] == pytest.approx(501, abs=1.5)
    assert found[5, "07 13:30:30"] == pytest.approx(1000, abs=1.5)
    assert store.subjects().tolist() == [5]
    assert store.rejected == {"impossible_acceleration": 2}


def test_files_of_nothing_are_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "5.cwa").write_bytes(cwa(lying(80, 100))[:1200])
    with pytest.raises(IngestError, match="HF-306"):
        ingest("accelerometer", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
