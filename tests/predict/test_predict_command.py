"""``healthfm-client predict``: a file in MEDS's columns, for the one who asked, whole or not."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client import site_predictions as predictions
from healthfm_client.__main__ import main
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import stretches
from tests.explain.conftest import OUTCOME, Planted
from tests.predict.conftest import KNOWN, STRANGER

MEDS = {
    "subject_id": pa.int64(),
    "prediction_time": pa.timestamp("us"),
    "boolean_value": pa.bool_(),
    "predicted_boolean_value": pa.bool_(),
    "predicted_boolean_probability": pa.float64(),
}


def ask(planted: Planted, out: Path, store: Path | None = None, **changes: str) -> int:
    options = {"task": OUTCOME, "horizon": "90", "out": str(out)} | changes
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    at = str(store or planted.folder / "store")
    return main(["predict", str(planted.folder / "model"), at, *given])


def test_the_file_has_meds_columns_and_the_models_own_numbers(planted, tmp_path, capsys):
    assert ask(planted, tmp_path / "risks.parquet") == 0
    table = pq.read_table(tmp_path / "risks.parquet")
    assert {name: table.schema.field(name).type for name in MEDS} == MEDS
    at_once = planted.model.risks_at(planted.store, horizon_days=90.0)
    column = at_once.probability[:, at_once.targets.index(OUTCOME)]
    told = table["predicted_boolean_probability"].to_numpy()
    assert np.array_equal(told, column.astype(np.float64))
    assert table["boolean_value"].null_count == table["reason"].null_count == len(told)
    assert table.schema.metadata[b"healthfm.question"] == b"risk of DX//OUTCOME within 90 days"
    assert table.schema.metadata[b"healthfm.study"] == b"planted"
    said, errors = capsys.readouterr()
    assert "160 of 160 asked about" in said
    assert f"of 100 of them about {100 * told.mean():.3g} would" in said
    assert "Not a medical device" in said
    assert errors == ""
    assert [path.name for path in tmp_path.iterdir()] == ["risks.parquet"]


def test_the_file_is_its_owner_s_alone_whatever_the_umask(planted, tmp_path):
    before = os.umask(0)
    try:
        assert ask(planted, tmp_path / "risks.parquet") == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "risks.parquet").stat().st_mode) == 0o600


def test_who_is_left_out_is_in_the_file_with_the_reason_and_told_by_count(
    planted, unlike, tmp_path, capsys
):
    assert ask(planted, tmp_path / "risks.parquet", unlike.path, ages="18-90") == 0
    rows = pq.read_table(tmp_path / "risks.parquet").to_pylist()
    by_person = {row["subject_id"]: row for row in rows}
    assert len(by_person) == 6
    assert by_person[KNOWN]["reason"] is None
    assert by_person[KNOWN]["predicted_boolean_probability"] > 0
    assert by_person[STRANGER]["reason"] == "few_known_codes"
    assert by_person[STRANGER]["predicted_boolean_probability"] is None
    assert by_person[STRANGER]["predicted_boolean_value"] is None
    said = capsys.readouterr().out
    assert "left out: fewer than 20, since the model knows too few of their codes" in said
    assert "1 of 6 asked about" in said


def test_named_moments_keep_their_outcomes_and_a_threshold_gives_answers(planted, tmp_path):
    who = planted.store.subjects()[:3]
    when = np.full(3, 2_000_000_000_000_000)
    file = tmp_path / "asked.parquet"
    pq.write_table(label_table(who, when, np.array([True, False, True])), file)
    assert ask(planted, tmp_path / "out.parquet", at=str(file), threshold="0") == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["boolean_value"].to_pylist() == [True, False, True]
    assert table["reason"].to_pylist() == ["gap"] * 3
    soon = label_table(who, np.full(3, 1_600_000_000_000_000), np.array([True, False, True]))
    pq.write_table(soon.drop_columns(["boolean_value"]), file)
    assert ask(planted, tmp_path / "soon.parquet", at=str(file), threshold="0.01") == 0
    table = pq.read_table(tmp_path / "soon.parquet")
    above = table["predicted_boolean_probability"].to_numpy() >= 0.01
    assert table["predicted_boolean_value"].to_pylist() == above.tolist()
    assert table["boolean_value"].null_count == 3


def test_a_label_table_of_the_store_is_named_by_its_name(labelled, tmp_path, capsys):
    model, store = labelled
    folder = str(store.path.parent / "model")
    out = tmp_path / "soon.parquet"
    given = ["predict", folder, str(store.path), "--task=soon", "--at=soon", f"--out={out}"]
    assert main(given) == 0
    table = pq.read_table(out)
    wanted = model.label_probabilities(store, at=store.labels("soon")).probability[:, 0]
    assert np.array_equal(table["predicted_boolean_probability"].to_numpy(), wanted)
    assert table["boolean_value"].equals(store.labels("soon")["boolean_value"])
    assert "probability of the label soon" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "number", "code"),
    [
        ({"task": "DX//OUTCOMES"}, 8, f"HF-709.*{OUTCOME}"),
        ({"horizon": "10000"}, 8, "HF-708"),
        ({"at": "nowhere.parquet"}, 4, "HF-350.*cannot be read"),
        ({"modalities": "ehr,genomics,wearable,imaging"}, 4, "HF-351.*imaging.*never saw it"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_nothing(
    planted, tmp_path, capsys, changes, number, code
):
    assert ask(planted, tmp_path / "risks.parquet", **changes) == number
    said, errors = capsys.readouterr()
    assert said == ""
    assert re.search(code, errors)
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_moments_is_refused_for_what_is_wrong_with_it(planted, tmp_path, capsys):
    who = planted.store.subjects()[:2]
    sound = label_table(who, np.array([5, 5]), np.array([True, False]))
    unsound = {
        "no column": sound.drop_columns(["prediction_time"]),
        "asks twice": pa.concat_tables([sound, sound]),
        "has none of its people": sound.set_column(0, "subject_id", pa.array([1, 2])),
        "string": sound.set_column(0, "subject_id", pa.array(["1", "2"])),
    }
    for seen, table in unsound.items():
        pq.write_table(table, tmp_path / "asked.parquet")
        at = str(tmp_path / "asked.parquet")
        assert ask(planted, tmp_path / "risks.parquet", at=at) == 4
        assert re.search(rf"HF-350.*{seen}", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["asked.parquet"]


def test_what_the_model_never_saw_is_told_and_alone_is_refused(planted, tmp_path, capsys):
    writer = StoreWriter(tmp_path / "store", dataset_name="ring")
    hr = np.full((3, 120), 60.0, np.float32)
    start = np.zeros(3, np.int64)
    writer.add_wearable("ring", stretches(np.arange(1, 4), start, "HRV", 1 / 60, hr))
    writer.write()
    assert ask(planted, tmp_path / "risks.parquet", tmp_path / "store") == 4
    assert re.search("HF-351.*nothing of it", capsys.readouterr().err)
    assert ask(planted, tmp_path / "risks.parquet", tmp_path / "store", modalities="wearable") == 4
    assert re.search("HF-351.*no device of ring", capsys.readouterr().err)
    writer = StoreWriter(tmp_path / "both", dataset_name="both")
    writer.add_events(planted.store.narrowed(subjects=planted.store.subjects()[:3]).events())
    who = planted.store.subjects()[:3]
    writer.add_wearable("ring", stretches(who, start, "HRV", 1 / 60, hr))
    writer.write()
    assert ask(planted, tmp_path / "risks.parquet", tmp_path / "both") == 0
    assert "the device ring is not read: the model never saw one" in capsys.readouterr().out


def test_a_failure_midway_leaves_nothing(planted, tmp_path, monkeypatch, capsys):
    def broken(*args, **kwargs):
        yield from list(predict(*args, people=10, **kwargs))[:1]
        raise KeyboardInterrupt

    predict = predictions.predict_people
    monkeypatch.setattr(predictions, "predict_people", broken)
    assert ask(planted, tmp_path / "risks.parquet") == 130
    assert list(tmp_path.iterdir()) == []
    assert "nothing was left half-written" in capsys.readouterr().err


def test_nothing_is_overwritten_not_even_what_appears_meanwhile(
    planted, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "risks.parquet"
    out.write_text("mine")
    assert ask(planted, out) == 8
    assert "HF-711" in capsys.readouterr().err
    out.unlink()
    write_groups = predictions.write_groups

    def meanwhile(*args):
        write_groups(*args)
        out.write_text("another's")

    monkeypatch.setattr(predictions, "write_groups", meanwhile)
    assert ask(planted, out) == 8
    assert "HF-711" in capsys.readouterr().err
    assert out.read_text() == "another's"
    assert [path.name for path in tmp_path.iterdir()] == ["risks.parquet"]


def test_no_folder_that_is_handed_on_gets_predictions(planted, tmp_path, capsys):
    (tmp_path / ".git").touch()
    assert ask(planted, tmp_path / "risks.parquet") == 6
    assert "HF-502" in capsys.readouterr().err


def test_rows_are_written_a_group_at_a_time(planted, tmp_path, monkeypatch):
    some = pa.table(
        [pa.nulls(30, field.type) for field in predictions.PREDICTIONS],
        schema=pa.schema([field.with_nullable(True) for field in predictions.PREDICTIONS]),
    )
    some = some.set_column(0, predictions.PREDICTIONS.field(0), pa.array([1] * 30))
    monkeypatch.setattr(predictions, "ROWS_PER_GROUP", 50)
    predictions.write_groups([some] * 5, tmp_path / "groups.parquet", {"a": "b"})
    file = pq.ParquetFile(tmp_path / "groups.parquet")
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [60, 60, 30]
