"""Polygenic scores of plink2 and AoUPRS."""

from __future__ import annotations

import json

import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError


def scores_of(path, tmp_path) -> dict[str, list[float]]:
    (out,) = ingest("auto", path, tmp_path / "out")
    store = SiteStore.open(out)
    marker = json.loads((out / "metadata/dataset.json").read_text())
    assert marker["healthfm"]["scores"] == "site_z"
    found: dict[str, list[float]] = {}
    for row in store.events().to_pylist():
        found.setdefault(row["code"], []).append(row["numeric_value"])
    return found


def test_plink2s_sums_are_standardised_at_the_site(tmp_path):
    (tmp_path / "a.sscore").write_text(
        "#FID\tIID\tALLELE_CT\tNAMED_ALLELE_DOSAGE_SUM\tPGS000018_AVG\tPGS000018_SUM\tOWN_AVG\n"
        "0\t1\t10\t5\t.1\t1.0\t3\n0\t2\t10\t5\t.1\t3.0\t1\n"
    )
    found = scores_of(tmp_path / "a.sscore", tmp_path)
    assert found == {"PRS//OWN": [1.0, -1.0], "PRS//PGS000018": [-1.0, 1.0]}


def test_aouprs_has_a_file_per_score(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("PGS000004", "PGS000013"):
        text = "s,sum_weights,N_variants\n11,-5.0,300\n12,5.0,300\n"
        (tmp_path / "in" / f"{name}.csv").write_text(text)
    found = scores_of(tmp_path / "in", tmp_path)
    assert found == {"PRS//PGS000004": [-1.0, 1.0], "PRS//PGS000013": [-1.0, 1.0]}


def test_sums_that_are_texts_are_refused(tmp_path):
    (tmp_path / "a.sscore").write_text("#IID\tX_SUM\n1\ta\n2\tb\n")
    with pytest.raises(IngestError, match="HF-308"):
        ingest("sscore", tmp_path / "a.sscore", tmp_path / "out")
