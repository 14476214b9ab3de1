"""``healthfm-client explain``: for the one who asked, and nowhere that is handed on."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path

import pytest

from healthfm_client.__main__ import main
from tests.explain.conftest import OUTCOME, Planted


def ask(planted: Planted, out: Path, **changes: str) -> int:
    options = {
        "subject": str(planted.with_signal[1]),
        "target": OUTCOME,
        "horizon": "90",
        "out": str(out),
    }
    given = [f"--{name}={value}" for name, value in (options | changes).items()]
    return main(["explain", str(planted.folder / "model"), str(planted.folder / "store"), *given])


def test_the_page_is_its_owner_s_alone_whatever_the_umask(planted, tmp_path):
    before = os.umask(0)
    try:
        assert ask(planted, tmp_path / "page.html") == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600


def test_nothing_of_the_person_is_said_but_where_the_page_is(planted, tmp_path, capfd, caplog):
    out = tmp_path / "page.html"
    with caplog.at_level(logging.DEBUG):
        assert ask(planted, out) == 0
    said, errors = capfd.readouterr()
    assert said == f"{out}: about one person; only you can read it, and it stays at this site\n"
    assert errors == ""
    assert str(planted.with_signal[1]) not in caplog.text
    assert OUTCOME not in caplog.text


@pytest.mark.parametrize(
    ("changes", "number", "code"),
    [
        ({"subject": "12345"}, 3, "HF-210"),
        ({"target": "DX//OUTCOMES"}, 8, f"HF-709.*{OUTCOME}"),
        ({"horizon": "10000"}, 8, "HF-708"),
        ({"at": "1970-01-01"}, 8, "HF-710"),
    ],
)
def test_a_refusal_is_one_sentence_with_its_code(planted, tmp_path, capsys, changes, number, code):
    assert ask(planted, tmp_path / "page.html", **changes) == number
    said, errors = capsys.readouterr()
    assert said == ""
    assert re.search(code, errors)
    assert errors.count("\n") == 1
    assert "12345" not in errors
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_not_even_by_way_of_a_link(planted, tmp_path, capsys):
    there, link = tmp_path / "there.html", tmp_path / "link.html"
    there.write_text("mine")
    link.symlink_to(tmp_path / "elsewhere.html")
    for out in (there, link):
        assert ask(planted, out) == 8
        assert "HF-711" in capsys.readouterr().err
    assert there.read_text() == "mine"
    assert not (tmp_path / "elsewhere.html").exists()


def test_a_folder_that_is_not_there_is_refused(planted, tmp_path, capsys):
    assert ask(planted, tmp_path / "no" / "page.html") == 8
    assert "HF-711" in capsys.readouterr().err


@pytest.mark.parametrize("mark", ["study.json", "history.jsonl", "metrics.json", ".git"])
def test_a_folder_that_is_handed_on_is_refused_and_what_is_in_it(planted, tmp_path, capsys, mark):
    (tmp_path / mark).touch()
    (tmp_path / "deep" / "down").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "deep" / "down"):
        assert ask(planted, folder / "page.html") == 6
        assert "HF-502" in capsys.readouterr().err
        assert not (folder / "page.html").exists()


def test_the_model_s_own_folder_is_refused(planted, capsys):
    assert ask(planted, planted.folder / "model" / "page.html") == 6
    assert "HF-502" in capsys.readouterr().err


def test_a_day_is_taken_whole(planted, tmp_path):
    assert ask(planted, tmp_path / "page.html", at="2020-01-01") == 0
    assert "asked after the one of 2020-01-01" in (tmp_path / "page.html").read_text()
