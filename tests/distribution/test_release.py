"""What a release refuses to be made of, and what a release says of itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from distribution import release

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository whose HEAD is tagged as its version."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.0\nlicense: MIT\n")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    git(tmp_path, "tag", "v1.2.0")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "one")


def test_a_checkout_that_is_its_tag_is_a_release(checkout):
    assert release.refuse_what_is_not_the_tag(checkout) == "1.2.0"


def changed(folder: Path) -> None:
    (folder / "new").touch()


def committed_since(folder: Path) -> None:
    changed(folder)
    commit(folder)


def cited_as_another(folder: Path) -> None:
    (folder / "CITATION.cff").write_text("version: 1.1.0\n")
    commit(folder)
    git(folder, "tag", "--force", "v1.2.0")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (changed, "has changes"),
        (committed_since, "is not tagged v1.2.0"),
        (cited_as_another, "CITATION.cff names another version"),
    ],
)
def test_what_is_not_the_tag_is_no_release(checkout, spoil, says):
    spoil(checkout)
    with pytest.raises(SystemExit, match=says):
        release.refuse_what_is_not_the_tag(checkout)


def test_the_notes_are_the_changelogs_section_of_the_version():
    text = "# Changelog\n\n## 1.2.0\n\nNew.\n\n- a\n\n## 1.1.0\n\nOld.\n"
    assert release.notes(text, "1.2.0") == "New.\n\n- a\n"
    assert release.notes(text, "1.1.0") == "Old.\n"
    with pytest.raises(SystemExit, match=r"no section ## 1\.3\.0"):
        release.notes(text, "1.3.0")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "upgrades has to do" in release.notes(changelog, "0.9.0")


def test_the_citation_is_whole_and_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == release.version()
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)


def test_the_issue_forms_ask_for_the_release_and_for_nothing_of_a_person():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[fw]*.yml"))
    assert [form.stem for form in forms] == ["fault", "wish"]
    for form in forms:
        read = yaml.safe_load(form.read_text("utf-8"))
        ids = [field["id"] for field in read["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids))
        assert all(field.get("attributes") for field in read["body"])
        assert "of people" in form.read_text("utf-8") or "of a person" in form.read_text("utf-8")
    fault = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "fault.yml").read_text("utf-8"))
    wanted = [f["id"] for f in fault["body"] if f.get("validations", {}).get("required")]
    assert wanted == ["who", "version", "typed", "wanted"]
