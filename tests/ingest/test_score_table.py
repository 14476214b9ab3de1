"""Polygenic scores as a wide table: written here, and those of the 1000 Genomes people."""

from __future__ import annotations

import csv
import json

import duckdb
import numpy as np
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.reader_registry import find
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError, HealthFMError


def table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def scores(store: SiteStore) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for row in store.events().to_pylist():
        found.setdefault(row["code"], {})[row["subject_id"]] = row["numeric_value"]
    return found


def how(path) -> str:
    return json.loads((path / "metadata/dataset.json").read_text())["healthfm"]["scores"]


def test_without_components_a_score_is_standardised_at_each_site(tmp_path):
    rows = [["IID", "Place", "PGS1", "age"], [1, "Ward B", 1, 70], [2, "Ward B", 3, 60]]
    rows += [[3, "Ward A", 10, 1], [4, "Ward A", 30, 2], [5, "Ward A", "", 3]]
    path = table(tmp_path / "scores.csv", rows)
    assert find("auto", path).name == "score_table"
    a, b = ingest("score_table", path, tmp_path / "out", site_column="Place")
    assert (a.name, b.name, how(a)) == ("ward-a", "ward-b", "site_z")
    assert scores(SiteStore.open(a)) == {"PRS//PGS1": {3: -1.0, 4: 1.0}}
    assert scores(SiteStore.open(b)) == {"PRS//PGS1": {1: -1.0, 2: 1.0}}


def test_what_components_explain_is_taken_out(tmp_path):
    """The score is 5 PC1 and a sign, which alone is left; one person has no component."""
    rng = np.random.default_rng(0)
    pc1 = rng.normal(size=8)
    sign = np.array([1.0, -1, 1, -1, 1, -1, 1, -1])
    sign -= np.polyval(np.polyfit(pc1, sign, 1), pc1)
    rows = [[n, 5 * pc1[n] + sign[n], pc1[n]] for n in range(8)] + [[8, 1.0, ""]]
    path = table(tmp_path / "scores.csv", [["IID", "PGS000018", "PC1"], *rows])
    (out,) = ingest("auto", path, tmp_path / "out")
    store = SiteStore.open(out)
    z = scores(store)["PRS//PGS000018"]
    assert z == pytest.approx(dict(enumerate(sign / sign.std())), rel=1e-5)
    assert (how(out), store.rejected) == ("components_z", {"no_components": 1})


@pytest.mark.parametrize(
    ("rows", "options", "error"),
    [
        ([["IID", "height"], [1, 170], [2, 180]], {}, "HF-307"),
        ([["IID", "PGS1", "PC1"], [1, 1, 1], [2, 2, 2], [3, 5, 1]], {}, "HF-211.*3 people"),
        ([["IID", "PGS1"], [1, "x"], [2, "y"]], {}, "HF-306"),
        ([["IID", "PGS1"], ["", 1], [2, 2]], {}, "HF-305"),
        ([["IID", "PGS1"], [1, 1], [1, 2]], {}, "HF-204"),
        ([["IID", "PGS1"], [1, 1], [2, 2]], {"site_column": "ward"}, "HF-307.*ward"),
    ],
)
def test_a_table_that_gives_no_scores_is_refused(tmp_path, rows, options, error):
    path = table(tmp_path / "scores.csv", rows)
    with pytest.raises(HealthFMError, match=error):
        ingest("score_table", path, tmp_path / "out", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def test_scores_of_several_sites_are_not_added_to_one_store(tmp_path):
    path = table(tmp_path / "scores.csv", [["IID", "PGS1"], [1, 1], [2, 2]])
    with pytest.raises(ConfigError, match="HF-102"):
        ingest("score_table", path, tmp_path / "out", site_column="x", base=tmp_path)


@pytest.mark.realdata
def test_the_1000_genomes_are_five_sites(tmp_path, shared_data):
    """Scores and people by ancestry from the table itself; means of what is left are none."""
    path = shared_data / "pgs_1000g" / "individuals.parquet"
    stores = [
        SiteStore.open(out)
        for out in ingest("auto", path, tmp_path / "out", site_column="SuperPop")
    ]
    columns = duckdb.sql(f"describe from '{path}'").fetchall()
    names = [name for name, *_ in columns if "PGS" in name]
    known = ", ".join(f"count({n}) filter (PC1 is not null)" for n in names)
    unknown = " + ".join(f"count({n}) filter (PC1 is null)" for n in names)
    someone = " or ".join(f"{n} is not null" for n in names)
    raw = duckdb.sql(
        f"select lower(SuperPop), {unknown}, count(*) filter (PC1 is not null and ({someone})), "
        f"{known} from '{path}' group by 1"
    ).fetchall()
    found = []
    for store in stores:
        of = scores(store)
        counts = (len(of.get(f"PRS//{name.upper()}", {})) for name in names)
        aside = store.rejected.get("no_components", 0)
        found.append((store.name, aside, len(store.subjects()), *counts))
        means = [np.mean(list(z.values())) for z in of.values()]
        assert np.abs(means).max() < 1e-2  # clipped at 6 SD
    assert sorted(found) == sorted(raw)
    assert (len(names), sum(row[2] for row in found)) == (15, 2575)


@pytest.mark.realdata
def test_the_human_diversity_panel_has_one_score(tmp_path, shared_data):
    path = shared_data / "pgs_1000g" / "hgdp.parquet"
    (out,) = ingest("auto", path, tmp_path / "out", key=tmp_path / "key")
    z = np.array(list(scores(SiteStore.open(out))["PRS//PGS001229"].values()))
    raw = duckdb.sql(
        f"from '{path}' select PGS001229, PC1, PC2, PC3, PC4, PC5, PC6, PC7, PC8, PC9, PC10"
    ).fetchnumpy()
    axes = np.column_stack([np.ones(929), *(raw[f"PC{n}"] for n in range(1, 11))])
    left = raw["PGS001229"] - axes @ np.linalg.pinv(axes) @ raw["PGS001229"]
    np.testing.assert_allclose(np.sort(z), np.sort(left / left.std()), atol=1e-5)
