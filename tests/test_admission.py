"""From a site's request to its place on the coordinator's list: what was said, is held to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.__main__ import main as client
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
