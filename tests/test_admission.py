"""From a site's request to its place on the coordinator's list: what was said, is held to."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.__main__ import main as client
from healthfm_core.trust import archive, fingerprint
from healthfm_core.trust.request import read_request
from healthfm_server.__main__ import main as server
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    settings = StudySettings(study="heart", hosts=("127.0.0.1",), port=8443)
    return StudyFolder.create(tmp_path / "study", settings)


def asks(study: StudyFolder, site: Path, *more: str) -> Path:
    """Have a site make its request anew, with keys anew."""
    shutil.rmtree(site, ignore_errors=True)
    words = ["--study", study.settings.url, "--name", "north", *more]
    assert client(["enroll", "--site", str(site), *words]) == 0
    return site / "request.zip"


def admitted(study: StudyFolder, request: Path, *more: str) -> int:
    """Sign a request; return the size that is on record for the site."""
    compared = read_request(request.read_bytes()).fingerprints()["tls"]
    kit = request.with_name("kit.zip")
    kit.unlink(missing_ok=True)
    words = ["--study", str(study.path), "--compared", compared, "--out", str(kit), *more]
    assert server(["site", "sign", str(request), *words]) == 0
    return study.sites.site("north").most_subjects


def test_a_site_is_held_to_the_size_in_its_request(
    study: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = asks(study, tmp_path / "north", "--most-subjects", "500")
    assert read_request(request.read_bytes()).most_subjects == 500
    assert server(["site", "sign", str(request), "--study", str(study.path)]) == 0
    assert "at most 500 training subjects" in capsys.readouterr().out
    assert admitted(study, request) == 500
    assert "no size is on record" not in capsys.readouterr().out


def test_a_site_is_admitted_by_the_ten_words_that_it_reads(
    study: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = asks(study, tmp_path / "north")
    words = read_request(request.read_bytes()).words
    assert f"\n  {words}\n" in capsys.readouterr().out
    sign = ["site", "sign", str(request), "--study", str(study.path)]
    assert server(sign) == 0
    assert f"\n  {words}\n" in capsys.readouterr().out
    out = ["--out", str(tmp_path / "kit.zip")]
    others = read_request(asks(study, tmp_path / "south").read_bytes()).words
    capsys.readouterr()
    for told, says in ((others, words), (f"{words.replace(' ', '-')}x", "the nearest is")):
        assert server([*sign, *out, "--compared", *told.split()]) == 9
        assert says in capsys.readouterr().err
    assert not study.sites.sites()
    assert not (tmp_path / "kit.zip").exists()
    assert server([*sign, *out, "--compared", *words.upper().split()]) == 0
    said = capsys.readouterr().out
    assert f"\n  {study.authority().words}\n" in said, "for the site to compare"
    assert fingerprint.in_words(study.root_fingerprint()) == study.authority().words


def test_a_request_whose_other_keys_the_compared_one_did_not_sign_is_not_admitted(
    study: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = asks(study, tmp_path / "north")
    with zipfile.ZipFile(request) as file:
        inside = {name: file.read(name) for name in file.namelist()}
    proofs = json.loads(inside["proofs.json"])
    del proofs["tls"]
    request.write_bytes(archive.pack({**inside, "proofs.json": json.dumps(proofs).encode()}))
    words = read_request(request.read_bytes()).words.split()
    sign = ["site", "sign", str(request), "--study", str(study.path), "--compared", *words]
    assert server([*sign, "--out", str(tmp_path / "kit.zip")]) == 9
    assert "HF-807" in capsys.readouterr().err
    assert not study.sites.sites()


def test_a_site_that_renews_does_not_raise_what_was_agreed(
    study: StudyFolder, tmp_path: Path
) -> None:
    assert admitted(study, asks(study, tmp_path / "north", "--most-subjects", "500")) == 500
    larger = asks(study, tmp_path / "north", "--most-subjects", "9000")
    assert admitted(study, larger, "--renew") == 500
    assert admitted(study, larger, "--renew", "--most-subjects", "800") == 800


def test_a_request_names_no_size_unless_it_is_told_to(
    study: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = asks(study, tmp_path / "north")
    assert b"most_subjects" not in request.read_bytes()
    assert admitted(study, request) == 0
    assert "no size is on record for it" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["-1", str(2**40)])
def test_an_impossible_size_is_refused_where_it_is_typed(
    study: StudyFolder, tmp_path: Path, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--study", study.settings.url, "--name", "north", "--most-subjects", number]
    assert client(["enroll", "--site", str(tmp_path / "north"), *words]) != 0
    assert "HF-810" in capsys.readouterr().err
    assert not (tmp_path / "north" / "request.zip").exists()
