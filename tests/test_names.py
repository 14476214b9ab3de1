"""One name for one thing: classes, modules, and the words of docs/glossary.md."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("healthfm_core", "server", "client", "simulations")
GLOSSARY = ROOT / "docs" / "glossary.md"
MAY_REPEAT = {
    "__init__.py",
    "__main__.py",
    "app.py",  # Flower's ServerApp and ClientApp
    *("ehr.py", "genomics.py", "wearable.py"),  # a modality's spec, and its encoder
}
COMMANDS = "/commands/"
"""A file there is called what a person types."""
RENAMED_AWAY = {
    *("Fold", "RobustFold", "can_tell", "hostile", "keyed_sums", "KeyedSums", "Agreement"),
    *("Admission", "Patience", "downhill", "leads", "learns", "hold_half_lives", "evidence"),
    *("lr_evidence", "eps_evidence", "evident", "added_up", "Sums", "Door", "Aside", "lab_of"),
    *("untold", "unseen", "unheard", "leaving", "steward", "front", "OneByOne", "let_go"),
    *("further_of", "with_further", "Further", "_beside_them", "Knowing", "spoil", "at_home"),
    *("letters_s", "LETTER"),
}
"""Words of our own that gave way to the field's; none is an identifier of the product again."""


@cache
def modules() -> Mapping[str, ast.Module]:
    """Every module of the product, parsed: path from the root → tree."""
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text("utf-8")) for file in files}


def repeated(named: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names that stand for more than one thing, and where."""
    places = defaultdict(list)
    for name, place in named:
        places[name].append(place)
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def test_no_two_classes_share_a_name():
    classes = (
        (node.name, path)
        for path, tree in modules().items()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    )
    assert repeated(classes) == {}


def test_no_two_modules_share_a_file_name():
    files = ((path.rpartition("/")[2], path) for path in modules() if COMMANDS not in path)
    assert {name: at for name, at in repeated(files).items() if name not in MAY_REPEAT} == {}


def defined() -> set[str]:
    """Every name that the product defines: modules, classes, functions, fields, constants."""
    names = {part.removesuffix(".py") for path in modules() for part in path.split("/")}
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


def identifiers() -> dict[str, set[str]]:
    """Every identifier of the product, used or defined, and the files that have it."""
    found = defaultdict(set)
    for path, tree in modules().items():
        for node in ast.walk(tree):
            for field in ("name", "id", "attr", "arg", "asname"):
                value = getattr(node, field, None)
                if isinstance(value, str):
                    found[value.rpartition(".")[2]].add(path)
        found[path.rpartition("/")[2].removesuffix(".py")].add(path)
    return found


def rows() -> list[list[str]]:
    """The glossary's rows: concept, name in code, what others call it, one line."""
    lines = GLOSSARY.read_text("utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return [row for row in cells if row[0] != "Concept" and not set(row[0]) <= {"-", ":"}]


def test_every_row_of_the_glossary_is_whole_and_no_concept_is_there_twice():
    assert {tuple(row) for row in rows() if len(row) != 4 or not all(row)} == set()
    assert repeated((row[0], row[1]) for row in rows()) == {}


def test_every_name_of_the_glossary_is_in_the_code():
    known = defined()
    missing = {
        name
        for row in rows()
        for name in re.findall(r"`([^`]+)`", row[1])
        if not {part for part in re.split(r"[./=]", name) if part != "py"} <= known
    }
    assert missing == set()
    assert [row[0] for row in rows() if "`" not in row[1]] == []


def test_no_word_that_was_renamed_is_an_identifier_again():
    used = identifiers()
    assert {word: sorted(used[word]) for word in sorted(RENAMED_AWAY) if used.get(word)} == {}


NAMES_A_MODALITY = {
    "healthfm_core/modalities/ehr.py",
    "healthfm_core/modalities/wearable.py",
    "healthfm_core/modalities/genomics.py",
    "healthfm_core/data/store/store_files.py",  # the folder a store keeps samples in
    "healthfm_core/data/batch/collate.py",  # a field of the batch
    "healthfm_core/data/batch/sequences.py",  # a column of the rows
    "healthfm_core/tokens/vocabulary.py",  # a key of vocabularies on disk
}
"""A modality's name stands in its spec; elsewhere only where data on disk or in memory has it."""


def test_a_modality_is_named_by_its_spec_alone():
    naming = {
        path
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in ("ehr", "wearable", "genomics")
    }
    assert naming == NAMES_A_MODALITY
