"""What a study states is in its ``study.yaml``, bounded, and what is missing is said."""

from __future__ import annotations

from pathlib import Path

from healthfm_server.__main__ import main
from healthfm_server.deploy.study_folder import StudyFolder

NEW = ("--name", "heart", "--host", "h.example.org")


def test_init_writes_what_is_stated_and_says_what_is_not(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "study"
    assert main(["init", str(folder), *NEW, "--purpose", "To  foresee\nadmissions"]) == 0
    statement = StudyFolder.open(folder).settings.statement
    assert statement.stated() == {"purpose": "To foresee admissions"}
    said = capsys.readouterr().out
    assert "no protocol, no contact, no task is stated" in said
    assert str(folder / "study.yaml") in said


def test_a_statement_too_long_makes_no_study(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "study"
    assert main(["init", str(folder), *NEW, "--contact", "x" * 1001]) == 2
    assert "ConfigError[HF-102]: --contact: " in capsys.readouterr().err
    assert not folder.exists()
