"""The page of licences is what the installed packages say."""

from __future__ import annotations

from pathlib import Path

from distribution import licences

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_made_from_the_environment_and_every_package_states_a_licence():
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    assert page == licences.page(), "python -m distribution.licences > docs/licences.md"
    assert "not stated" not in page


def test_actipys_licence_is_told_where_it_is_offered():
    rows = (ROOT / "docs" / "licences.md").read_text("utf-8")
    assert "| actipy | – | Academic Use Licence" in rows
    for page in ("docs/install.md", "docs/readers.md", "pyproject.toml"):
        told = [line for line in (ROOT / page).read_text("utf-8").splitlines() if "cwa" in line]
        assert any("academic use" in line for line in told), page
