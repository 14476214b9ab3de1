"""`make matrix` tries what `requires-python` allows, and names what is not here."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from distribution import matrix

ROOT = Path(__file__).resolve().parents[2]


def test_the_pythons_are_those_that_the_package_allows_and_the_pages_name():
    assert matrix.supported() == ["3.11", "3.12", "3.13", "3.14"]
    row = next(
        line
        for line in (ROOT / "docs" / "install.md").read_text("utf-8").splitlines()
        if line.startswith("| Python |")
    )
    assert all(version in row for version in matrix.supported())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {line.rpartition(" ")[2] for line in project["classifiers"] if ":: 3." in line}
    assert named == set(matrix.supported())


def test_a_python_that_is_not_here_is_passed_over_by_name(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(matrix, "own_wheel", lambda folder: folder / "no.whl")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert matrix.main(["3.12"]) == 1
    assert "3.12: skipped, this machine has no python3.12" in capsys.readouterr().out


def test_a_command_that_is_another_python_or_does_not_start_is_none(monkeypatch, tmp_path):
    """As the shims of a version manager, which are there for Pythons that are not chosen."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / f"python{here}").symlink_to(sys.executable)
    (tmp_path / "python3.99").symlink_to(sys.executable)
    (tmp_path / "python3.98").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.98").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert matrix.interpreter(here) == f"python{here}"
    assert matrix.interpreter("3.99") is None
    assert matrix.interpreter("3.98") is None
