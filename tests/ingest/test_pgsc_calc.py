from __future__ import annotations

import gzip
import json

import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError, StoreError


def scores(tmp_path, lines: list[str], name: str = "aggregated_scores.txt") -> object:
    path = tmp_path / name
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def read(path, tmp_path, **options):
    (store,) = ingest("pgsc_calc", path, tmp_path / "out", **options)
    return SiteStore.open(store)


def mark(store: SiteStore) -> str:
    return json.loads((store.path / "metadata/dataset.json").read_text())["healthfm"]["scores"]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("s_pgs.txt.gz", "\t"), ("s.csv", ","), ("s.txt", " ")]
)
def test_z_norm2_is_preferred_whatever_the_delimiter(tmp_path, name, delimiter):
    rows = [
        "sampleset FID IID PGS SUM Z_MostSimilarPop Z_norm1 Z_norm2",
        "ukb 0 7 PGS000018_hmPOS_GRCh38 -1234.5 0.1 0.2 0.3",
        "ukb 0 5 PGS000018_hmPOS_GRCh38 -999.5 0.1 0.2 -7.5",
        "ukb 0 9 PGS000018_hmPOS_GRCh38 -999.5 0.1 0.2 NA",
        "reference 0 1 PGS000018_hmPOS_GRCh38 -999.5 0.1 0.2 1",
    ]
    store = read(scores(tmp_path, [r.replace(" ", delimiter) for r in rows], name), tmp_path)
    events = store.events()
    assert events["subject_id"].to_pylist() == [5, 7]
    assert events["numeric_value"].to_pylist() == [-6.0, np.float32(0.3)]
    assert events["code"].unique().to_pylist() == ["PRS//PGS000018"]
    assert store.modalities == {"genomics"}
    assert mark(store) == "Z_norm2"


def test_raw_sums_are_standardised_at_the_site_and_marked_so(tmp_path):
    lines = ["sampleset,IID,PGS,SUM", "a,1,PGS000001,-1000", "a,2,PGS000001,-2000"]
    store = read(scores(tmp_path, lines, "s.csv"), tmp_path)
    assert store.events()["numeric_value"].to_pylist() == [1.0, -1.0]
    assert mark(store) == "site_z"
    codes = pq.read_table(store.path / "metadata" / "codes.parquet")
    assert "not normalised for ancestry" in codes["description"][0].as_py()


def test_a_column_of_sums_under_the_name_of_z_is_refused(tmp_path):
    sums = np.random.default_rng(0).normal(-1000, 20, 100)
    lines = [f"a,{i},PGS000001,{x},{x}" for i, x in enumerate(sums)]
    path = scores(tmp_path, ["sampleset,IID,PGS,SUM,Z_norm2", *lines], "s.csv")
    with pytest.raises(StoreError, match="HF-211"):
        read(path, tmp_path)
    assert not (tmp_path / "out").exists()


def test_several_sample_sets_need_a_choice(tmp_path):
    lines = ["sampleset,IID,PGS,SUM"] + [f"{s},{i},P,{i}" for s in "ab" for i in (1, 2)]
    path = scores(tmp_path, lines, "s.csv")
    with pytest.raises(IngestError, match="2 sample sets: a, b"):
        read(path, tmp_path)
    assert read(path, tmp_path, sampleset="b").subjects().tolist() == [1, 2]


def test_two_genome_builds_of_one_score_are_refused(tmp_path):
    builds = [f"PGS1_hmPOS_GRCh{build}" for build in (37, 38)]
    lines = ["sampleset,IID,PGS,SUM"] + [f"a,{i},{b},{i}" for b in builds for i in (1, 2)]
    with pytest.raises(StoreError, match="HF-204"):
        read(scores(tmp_path, lines, "s.csv"), tmp_path)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["sampleset,IID,SUM", "a,1,2"], "HF-307"),
        (["sampleset,IID,PGS,SUM", "a,1,P,two"], "HF-308"),
        (["sampleset,IID,PGS,SUM", "a,,P,2"], "HF-305"),
        (["sampleset,IID,PGS,SUM", "a,1,P"], "HF-303"),
        (["sampleset,IID,PGS,SUM"], "HF-306"),
        (["sampleset,IID,PGS,SUM", "reference,1,P,2"], "HF-306"),
    ],
)
def test_a_bad_file_is_one_code(tmp_path, lines, code):
    with pytest.raises(IngestError, match=code):
        read(scores(tmp_path, lines, "s.csv"), tmp_path)
    assert not (tmp_path / "out").exists()


def test_scores_join_a_store_through_a_table_of_ids(tmp_path, source):
    (base,) = ingest("event_table", source, tmp_path / "base", site_column="")
    lines = ["sampleset,IID,PGS,SUM,Z_norm2", "a,X1,PGS1,0,0.5", "a,X9,PGS1,0,1.5"]
    path = scores(tmp_path, lines, "s.csv")
    (tmp_path / "ids.csv").write_text("IID,subject_id\nX1,1\nX9,9\n")
    store = read(path, tmp_path, base=base, subjects=tmp_path / "ids.csv")
    assert store.name == "base"
    assert store.modalities == {"ehr", "genomics"}
    assert store.subjects().tolist() == [1, 3]
    prs = store.events().filter(pc.equal(store.events()["code"], "PRS//PGS1"))
    assert prs["subject_id"].to_pylist() == [1]
    assert store.rejected == {"unknown_subject": 1}
    assert store.subjects("train").tolist() == SiteStore.open(base).subjects("train").tolist()


def test_ids_that_are_not_the_stores_need_a_table(tmp_path, source):
    (base,) = ingest("event_table", source, tmp_path / "base", site_column="")
    path = scores(tmp_path, ["sampleset,IID,PGS,SUM", "a,X1,P,1", "a,X2,P,2"], "s.csv")
    with pytest.raises(IngestError, match=r"HF-305.*subjects"):
        read(path, tmp_path, base=base)
    (tmp_path / "ids.csv").write_text("IID,subject_id\nX1,1\n")
    with pytest.raises(IngestError, match=r"HF-305.*ids\.csv"):
        read(path, tmp_path, base=base, subjects=tmp_path / "ids.csv")


def z_of(file, sampleset) -> dict[str, np.ndarray]:
    """Return each score's sums standardised by DuckDB, ascending."""
    over = "over (partition by PGS)"
    rows = duckdb.sql(
        "select regexp_replace(PGS, '_hmPOS.*', '') as pgs, "
        f"(SUM - avg(SUM) {over}) / stddev_pop(SUM) {over} as z from read_csv('{file}') "
        f"where sampleset = '{sampleset}' order by z"
    ).fetchnumpy()
    return {f"PRS//{name}": rows["z"][rows["pgs"] == name] for name in set(rows["pgs"])}


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "sampleset", "people", "scores"),
    [("PGS_SUM_alpha5", "1kg", 2504, 7), ("aggregated_scores", "hgdp", 929, 1)],
)
def test_the_catalogues_own_output(ingested, shared_data, name, sampleset, people, scores):
    """Every person's score, standardised over them; the reference panel stays out."""
    (store,) = ingested("pgsc_calc", f"formats/pgs/{name}.txt.gz", sampleset=sampleset)
    wanted = z_of(shared_data / "formats" / "pgs" / f"{name}.txt.gz", sampleset)
    assert len(wanted) == scores
    assert len(store.subjects()) == people
    assert store.summary()["scores"] == people * scores
    events = store.events()
    for code, z in wanted.items():
        found = events.filter(pc.equal(events["code"], code))["numeric_value"].to_numpy()
        np.testing.assert_allclose(np.sort(found), np.clip(z, -6, 6), atol=1e-5)
