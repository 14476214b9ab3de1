"""A store opens in DuckDB and Polars as the page says."""

import doctest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_client.ingest import ingest
from healthfm_core.data.store.store_files import write_shards
from healthfm_core.data.store.wearables import stretches

PAGE = Path(__file__).resolve().parents[1] / "docs" / "a-store.md"
CDM = Path(__file__).parent / "ingest" / "omop_cdm"


def test_every_line_of_the_page_runs(tmp_path, monkeypatch):
    ingest("omop", CDM, tmp_path / "store")
    day = stretches(np.array([1]), np.array([0]), "HR", 1 / 60, np.ones((1, 1440), np.float32))
    write_shards(day, tmp_path / "store" / "wearable" / "watch", 1)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text().replace("```\n", "\n")
    test = doctest.DocTestParser().get_doctest(text, {}, "a-store", str(PAGE), 0)
    assert len(test.examples) >= 7
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_every_file_has_the_column_of_texts_where_one_event_has_a_text(tmp_path):
    import polars  # here: most runs of the tests have no use for it

    people = 40
    day = pa.scalar(0, pa.timestamp("us"))
    table = pa.table(
        {
            "subject_id": pa.array(range(people), pa.int64()),
            "time": pa.array([day] * people, pa.timestamp("us")),
            "code": ["A"] * people,
            "numeric_value": pa.nulls(people, pa.float32()),
            "text_value": pa.array(["well", *[None] * (people - 1)], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "events.parquet")
    ingest("event_table", tmp_path / "events.parquet", tmp_path / "store", site_column="")
    events = polars.read_parquet(tmp_path / "store" / "data" / "**" / "*.parquet")
    assert events.shape == (people, 5)
    assert events["text_value"].drop_nulls().to_list() == ["well"]
