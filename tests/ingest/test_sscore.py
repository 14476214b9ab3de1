"""Polygenic scores of plink2 and AoUPRS."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError, IngestError


def scores_of(path, tmp_path, **options) -> dict[str, list[float]]:
    (out,) = ingest("auto" if not options else "sscore", path, tmp_path / "out", **options)
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


def by_chromosome(folder, score="PGS000018", chromosomes=range(1, 23), kind="SUM"):
    """Write a file per chromosome: person 1 has 1 on each, person 2 has 2, person 3 has 6."""
    folder.mkdir()
    for number in chromosomes:
        rows = "".join(
            f"0\t{who}\t{10 * number}\t{each}\n" for who, each in ((1, 1), (2, 2), (3, 6))
        )
        head = f"#FID\tIID\tALLELE_CT\t{score}_{kind}\n"
        (folder / f"ukb_chr{number}.sscore").write_text(head + rows)
    return folder


def z_of(*totals: float) -> list[float]:
    return pytest.approx(list((np.array(totals) - np.mean(totals)) / np.std(totals)), rel=1e-5)


def test_a_score_by_chromosome_is_summed_before_it_is_standardised(tmp_path):
    """Chromosome 22 says the opposite of the others, and is outweighed."""
    folder = by_chromosome(tmp_path / "in")
    (folder / "ukb_chr22.sscore").write_text("#IID\tPGS000018_SUM\n1\t50\n2\t0\n3\t0\n")
    found = scores_of(folder, tmp_path)
    assert found == {"PRS//PGS000018": z_of(71, 42, 126)}


def test_averages_by_chromosome_are_weighed_by_their_alleles(tmp_path):
    """Sums are 10 n × the average: over the chromosomes 1, 2 and 3, 60 × 1, 2 and 6."""
    folder = by_chromosome(tmp_path / "in", chromosomes=(1, 2, 3), kind="AVG")
    (folder / "ukb_chr3.sscore").write_text(
        "#IID\tALLELE_CT\tPGS000018_AVG\n1\t30\t9\n2\t30\t2\n3\t30\t6\n"
    )
    found = scores_of(folder, tmp_path, some_chromosomes=True)
    assert found == {"PRS//PGS000018": z_of(300, 120, 360)}


def test_averages_by_chromosome_without_alleles_are_refused(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(1, 23):
        text = "#IID\tPGS000018_AVG\n1\t1\n2\t2\n"
        (folder / f"c{number}.sscore").write_text(text)
    with pytest.raises(IngestError, match=r"HF-307.*cols=\+scoresums"):
        ingest("sscore", folder, tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["ukb22828_c{}_b0_v3.sscore", "PGS000018.chr{}.sscore", "{}.sscore", "Chr_0{}.sscore"]
)
def test_a_file_name_says_its_chromosome(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, (one, two) in {1: (1, 5), 2: (2, 9), 3: (9, 2)}.items():
        text = f"#IID\tA_SUM\n1\t{one}\n2\t{two}\n3\t0\n"
        (folder / name.format(number)).write_text(text)
    found = scores_of(folder, tmp_path, some_chromosomes=True)
    assert found == {"PRS//A": z_of(12, 16, 0)}


def test_a_chromosome_that_is_not_there_is_named(tmp_path):
    folder = by_chromosome(tmp_path / "in", chromosomes=[n for n in range(1, 23) if n != 7])
    with pytest.raises(IngestError, match=r"HF-306.*chromosomes 7 .*--some-chromosomes"):
        ingest("sscore", folder, tmp_path / "out")


def test_who_lacks_a_chromosome_has_no_score_and_is_counted(tmp_path):
    folder = by_chromosome(tmp_path / "in")
    (folder / "ukb_chr9.sscore").write_text("#IID\tPGS000018_SUM\n1\t1\n3\t6\n")
    (folder / "ukb_chr8.sscore").write_text("#IID\tPGS000018_SUM\n1\t1\n2\tnan\n3\t6\n")
    (out,) = ingest("sscore", folder, tmp_path / "out")
    store = SiteStore.open(out)
    assert store.events()["subject_id"].to_pylist() == [1, 3]
    assert store.rejected == {"no_score": 1}


def test_one_score_of_one_person_twice_is_refused_unless_chromosomes_tell_them_apart(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("first", "second"):
        (folder / f"{name}.sscore").write_text("#IID\tA_SUM\n1\t1\n2\t2\n")
    with pytest.raises(IngestError, match=r"HF-306.*chr1"):
        ingest("sscore", folder, tmp_path / "out")
    (folder / "second.sscore").rename(folder / "chr1.sscore")
    with pytest.raises(IngestError, match=r"HF-306.*chr1"):
        ingest("sscore", folder, tmp_path / "out2", some_chromosomes=True)


def test_people_in_batches_are_put_together(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "batch_1.sscore").write_text("#IID\tA_SUM\n1\t1\n2\t2\n")
    (folder / "batch_2.sscore").write_text("#IID\tA_SUM\n3\t6\n")
    assert scores_of(folder, tmp_path) == {"PRS//A": z_of(1, 2, 6)}


def compressed(path, text: bytes):
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(text)
    return path


def test_a_file_of_plink2s_zs_is_read(tmp_path):
    rows = b"".join(b"%d\t%d\n" % (who, who) for who in range(200_000))
    path = compressed(tmp_path / "a.sscore.zst", b"#IID\tPGS000018_SUM\n" + rows)
    assert len(scores_of(path, tmp_path)["PRS//PGS000018"]) == 200_000
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(IngestError, match="HF-303"):
        ingest("sscore", path, tmp_path / "out2")


def test_what_expands_beyond_reason_is_not_read(tmp_path):
    path = compressed(tmp_path / "a.sscore.zst", b"#IID\tA_SUM\n" + b"1\t1\n" * 20_000_000)
    with pytest.raises(IngestError, match="HF-310"):
        ingest("sscore", path, tmp_path / "out")


def test_a_score_without_a_name_is_asked_for(tmp_path):
    """plink2 calls every score SCORE1 whose file has no header: two sites' would be one code."""
    path = tmp_path / "ldl.sscore"
    path.write_text("#IID\tSCORE1_AVG\n1\t1\n2\t2\n")
    with pytest.raises(IngestError, match=r"HF-307.*SCORE1.*--names SCORE1=PGS"):
        ingest("sscore", path, tmp_path / "out")
    found = scores_of(path, tmp_path, names=("SCORE1=PGS000065",))
    assert found == {"PRS//PGS000065": [-1.0, 1.0]}


def test_a_files_own_name_says_what_its_score_is(tmp_path):
    path = tmp_path / "run2_PGS000065_hmPOS_GRCh38.sscore"
    path.write_text("#IID\tSCORE1_AVG\n1\t1\n2\t2\n")
    assert scores_of(path, tmp_path) == {"PRS//PGS000065": [-1.0, 1.0]}


def test_a_builds_name_is_no_part_of_a_scores(tmp_path):
    path = tmp_path / "a.sscore"
    path.write_text("#IID\tPGS000065_hmPOS_GRCh38_AVG\n1\t1\n2\t2\n")
    assert scores_of(path, tmp_path) == {"PRS//PGS000065": [-1.0, 1.0]}


@pytest.mark.parametrize("names", [("SCORE1",), ("SCORE1=",), ("SCORE1=A B",), ("SCORE1=PC1",)])
def test_a_name_for_a_score_is_a_score_s_name(tmp_path, names):
    (tmp_path / "a.sscore").write_text("#IID\tSCORE1_AVG\n1\t1\n2\t2\n")
    with pytest.raises(ConfigError, match="HF-102"):
        ingest("sscore", tmp_path / "a.sscore", tmp_path / "out", names=names)


def test_projected_components_are_no_scores(tmp_path):
    path = tmp_path / "projection.sscore"
    path.write_text("#IID\tALLELE_CT\tPC1_AVG\tPC2_AVG\n1\t10\t.1\t.2\n2\t10\t.2\t.1\n")
    with pytest.raises(IngestError, match=r"HF-307.*principal components"):
        ingest("sscore", path, tmp_path / "out")
    with pytest.raises(IngestError, match="HF-302"):
        ingest("auto", path, tmp_path / "out")


def test_projected_components_beside_scores_take_ancestry_out(tmp_path):
    """The score is 5 PC1 and a sign, which alone is left; person 9 was not projected."""
    rng = np.random.default_rng(0)
    pc1 = rng.normal(size=8)
    sign = np.array([1.0, -1, 1, -1, 1, -1, 1, -1])
    sign -= np.polyval(np.polyfit(pc1, sign, 1), pc1)
    folder = tmp_path / "in"
    folder.mkdir()
    rows = "".join(f"{n}\t{5 * pc1[n] + sign[n]}\n" for n in range(8)) + "9\t1\n"
    (folder / "scores.sscore").write_text("#IID\tPGS000018_SUM\n" + rows)
    rows = "".join(f"{n}\t{pc1[n]}\n" for n in range(8))
    (folder / "projection.sscore").write_text("#IID\tPC1_AVG\n" + rows)
    (out,) = ingest("auto", folder, tmp_path / "out")
    store = SiteStore.open(out)
    assert store.events()["numeric_value"].to_pylist() == pytest.approx(sign / sign.std(), rel=1e-5)
    assert store.rejected == {"no_components": 1}
    marker = json.loads((out / "metadata/dataset.json").read_text())
    assert marker["healthfm"]["scores"] == "components_z"


def test_who_withdrew_is_set_aside_and_the_others_keep_their_numbers(tmp_path):
    """UK Biobank's files give people who withdrew an IID below 0."""
    path = tmp_path / "a.sscore"
    path.write_text(
        "#FID\tIID\tPGS000018_SUM\n-1\t-1\t9\n1000012\t1000012\t1\n1000027\t1000027\t2\n"
    )
    (out,) = ingest("auto", path, tmp_path / "out")
    store = SiteStore.open(out)
    assert store.events()["subject_id"].to_pylist() == [1000012, 1000027]
    assert store.rejected == {"withdrawn": 1}
