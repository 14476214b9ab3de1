"""docs/threat-model.md: every attack has its test, and so has what privacy.md promises."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "threat-model.md"
PRIVACY: Final = ROOT / "docs" / "privacy.md"
TEST: Final = re.compile(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)( \*deployment\*)?")
KINDS: Final = {"S", "T", "R", "I", "D", "E", "L", "DD"}
"""STRIDE's six; I and D are LINDDUN's identifying and detecting, too, L and DD its linking and
data disclosure."""


def tables() -> dict[str, list[list[str]]]:
    """Return the rows of every table by the heading above it, without the table's own head."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not set(line) <= set("|- "):
            found.setdefault(heading, []).append([c.strip() for c in line.strip("|").split(" | ")])
    return {heading: rows[1:] for heading, rows in found.items()}


TABLES: Final = tables()
PROMISES: Final = "What privacy.md promises"
ATTACKS: Final = [
    row for heading, rows in TABLES.items() for row in rows if len(row) == 5 and heading != PROMISES
]
NAMED: Final = sorted({(m[2], m[1], bool(m[3])) for m in TEST.finditer(PAGE.read_text("utf-8"))})


@pytest.mark.parametrize("row", ATTACKS, ids=[row[1][:60] for row in ATTACKS])
def test_an_attack_has_a_kind_and_a_test(row: list[str]) -> None:
    who, attack, kinds, holds, tests = row
    assert all((who, attack, holds))
    assert set(kinds.split(", ")) <= KINDS
    assert TEST.search(tests), "no test is named"


@pytest.mark.parametrize(("file", "name", "deployed"), NAMED, ids=[name for _, name, _ in NAMED])
def test_a_named_test_is_there_and_runs(file: str, name: str, deployed: bool) -> None:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    defined = {
        node.name: node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in defined, f"{file} has no {name}"
    decorators = " ".join(ast.unparse(d) for d in defined[name].decorator_list)
    assert not re.search("skip|xfail", decorators)
    of_all = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    marks = " ".join([decorators, *(text for text in of_all if text.startswith("pytestmark"))])
    assert deployed == ("pytest.mark.deployment" in marks)


def test_every_promise_is_quoted_from_privacy_md() -> None:
    said = " ".join(PRIVACY.read_text("utf-8").replace("**", "").split())
    missing = [row[0] for row in TABLES[PROMISES] if row[0].strip("“”") not in said]
    assert missing == []


def test_every_section_of_privacy_md_that_promises_has_its_row() -> None:
    parts = re.split(r"^#+ (.+)$", PRIVACY.read_text("utf-8"), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    quoted = [row[0].strip("“”") for row in TABLES[PROMISES]]
    bare = [
        heading
        for heading, text in sections.items()
        if not any(quote in " ".join(text.replace("**", "").split()) for quote in quoted)
    ]
    assert bare == [], "a section without a tested promise"
