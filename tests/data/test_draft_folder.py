"""A finished draft takes its place at once, and where that cannot be, in two steps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from healthfm_core.data.store import draft_folder
from healthfm_core.data.store.draft_folder import draft_beside, names_swapped, publish


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").touch()
    return tmp_path / "store"


def put(place: Path) -> None:
    with draft_beside(place) as draft:
        (draft / "new").touch()
        publish(draft, place)


def test_what_stood_there_is_replaced_without_a_moment_of_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with draft_beside(place) as one, draft_beside(place) as other:
        if not names_swapped(one, other):
            pytest.skip("this file system cannot swap two names in one step (renameat2)")

    def rename(self: Path, target: Path) -> Path:
        raise AssertionError("it was moved away")

    monkeypatch.setattr(Path, "rename", rename)
    put(place)
    assert os.listdir(place.parent) == ["store"]
    assert os.listdir(place) == ["new"]


@pytest.mark.parametrize("there", [True, False])
def test_where_names_cannot_be_swapped_it_is_renamed(
    place: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(draft_folder, "names_swapped", lambda *_: False)
    if not there:
        (place / "old").unlink()
        place.rmdir()
    put(place)
    assert os.listdir(place.parent) == ["store"]
    assert os.listdir(place) == ["new"]


def test_names_of_which_one_is_missing_are_not_swapped(place: Path) -> None:
    assert not names_swapped(place, place.with_name("nobody"))
    assert os.listdir(place.parent) == ["store"]
