"""The page of licences is what the installed packages say."""

from __future__ import annotations

from pathlib import Path

from distribution import licences

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_made_from_the_environment_and_every_package_states_a_licence():
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    assert page == licences.page(), "python -m distribution.licences > docs/licences.md"
    assert "not stated" not in page


def test_no_licence_forbids_commercial_use():
    page = (ROOT / "docs" / "licences.md").read_text("utf-8").lower()
    assert "actipy" not in page
    assert not any(word in page for word in ("academic use", "no commercial", "noncommercial"))
