from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.__main__ import main
from healthfm_core.data.store.site_store import SiteStore


def test_ingest_describe_check(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["ingest", "event_table", str(source), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "2 stores, <20 subjects" in said
    assert main(["check", str(out)]) == 0
    assert capsys.readouterr().out.count(": sound") == 2
    assert main(["describe", str(out)]) == 0
    assert "10: fewer than 20 subjects" in capsys.readouterr().out


def test_options_of_a_reader_are_flags(source, tmp_path, capsys):
    flags = ["--site-column", "", "--today", "2021-01-01"]
    out = tmp_path / "out"
    assert main(["ingest", "event_table", str(source), "--out", str(out), *flags]) == 0
    assert SiteStore.open(out).rejected == {"after_today": 1, "duplicate": 1}


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["check", "nowhere"], "HF-208", 3),
        (["describe", "nowhere"], "HF-208", 3),
        (["ingest", "auto", "nowhere", "--out", "out"], "HF-301", 4),
        (["ingest", "nhanes", "events.parquet", "--out", "o", "--groups", "0"], "HF-102", 2),
        (["ingest", "auto", "events.parquet", "--out", "events.parquet"], "HF-304", 4),
    ],
)
def test_an_error_is_one_sentence_and_its_exit_code(
    source, monkeypatch, capsys, arguments, code, exit_code
):
    monkeypatch.chdir(source.parent)
    before = sorted(source.parent.iterdir())
    assert main(arguments) == exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert code in said.err
    assert said.err.count("\n") == 1
    assert sorted(source.parent.iterdir()) == before


def test_an_interruption_is_130_and_leaves_nothing(source, tmp_path, monkeypatch, capsys):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("healthfm_core.data.store.store_draft.check_store", interrupt)
    out = tmp_path / "out"
    assert main(["ingest", "event_table", str(source), "--out", str(out)]) == 130
    assert "nothing was left half-written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.parquet"]


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_nothing(tmp_path, repository, number, exit_code):
    rng = np.random.default_rng(0)
    rows = 2_000_000
    table = pa.table(
        {
            "subject_id": rng.integers(0, 50_000, rows),
            "time": pa.array(rng.integers(0, 10**15, rows)).cast(pa.timestamp("us")),
            "code": np.full(rows, "A"),
            "numeric_value": rng.random(rows, np.float32),
            "site": rng.integers(0, 3, rows),
        }
    )
    pq.write_table(table, tmp_path / "events.parquet")
    command = [sys.executable, str(repository / "client" / "client.py"), "ingest", "event_table"]
    command += [str(tmp_path / "events.parquet"), "--out", str(tmp_path / "out")]
    # A job that was itself started in the background ignores SIGINT and hands that on.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, inherited)
    while not list(tmp_path.glob(".out.partial-*/*")):
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=600)
    assert process.returncode == exit_code
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["events.parquet"]


def many(tmp_path, people: int = 40) -> pa.Table:
    """A store of 40 people: code RARE in 19 of them, COMMON in all."""
    ids = list(range(people))
    table = pa.table(
        {
            "subject_id": pa.array(ids + ids[:19], pa.int64()),
            "time": pa.array([10**15] * (people + 19)).cast(pa.timestamp("us")),
            "code": ["COMMON"] * people + ["RARE"] * 19,
            "numeric_value": pa.nulls(people + 19, pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "many.parquet")
    out = tmp_path / "many"
    command = ["ingest", "event_table", str(tmp_path / "many.parquet"), "--out", str(out)]
    assert main([*command, "--site-column", ""]) == 0
    return out


def test_a_description_withholds_what_fewer_than_k_have(tmp_path, capsys):
    out = many(tmp_path)
    capsys.readouterr()
    assert main(["describe", str(out), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["subjects"] == 40
    assert found["splits"] == {"train": None, "tuning": None, "held_out": None}
    assert found["modalities"]["ehr"] == {"subjects": 40, "events": 59}
    assert found["codes"] == {
        "distinct": 2,
        "carried_by_20_or_more": 1,
        "share_of_events_with_those": round(40 / 59, 4),
        "most_common": {"COMMON": 40},
    }
    assert found["years"] == [2001, 2001]


def test_a_smaller_k_shows_more(tmp_path, capsys):
    out = many(tmp_path)
    capsys.readouterr()
    assert main(["describe", str(out), "--json", "--k", "1"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["codes"]["most_common"] == {"COMMON": 40, "RARE": 19}
    assert sum(found["splits"].values()) == 40
