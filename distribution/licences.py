"""Which licence every dependency has, as its metadata say: ``> docs/licences.md``.

    python -m distribution.licences > docs/licences.md

Rows are what `pip install healthfm`, with each of its extras, installs by `constraints.txt`; read
from the environment that `make install` made. An extra that it leaves out is stated by hand below,
with where it was read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parents[1]
STATED: Final = {"supervisor": "BSD-derived (Repoze Public License)"}
"""Whose metadata name none that is short; from the same metadata."""
_HEAD: Final = """# Licences

HealthFM is Apache-2.0. What it installs with it, and under which licence, as each package's own
metadata says; "needed by" is nothing for what every installation has, else the extra.
This page is made by `python -m distribution.licences`; a test holds it against the environment.

PyTorch as PyPI has it for Linux brings NVIDIA's libraries, under NVIDIA's own licences, and Triton
(MIT); PyTorch for processors alone brings neither.

| package | version | licence | needed by |
|---|---|---|---|
"""


def page() -> str:
    """Return docs/licences.md."""
    rows = dict.fromkeys(_closure("healthfm", ()), "")
    for extra in extras():
        for name in _closure("healthfm", (extra,)):
            rows.setdefault(name, f"`{extra}`")
    lines = [
        f"| {name} | {_version(name)} | {licence(name)} | {rows[name]} |" for name in sorted(rows)
    ]
    return _HEAD + "\n".join(lines) + "\n"


def extras() -> list[str]:
    """Return the extras that users install, in the order of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [name for name in project["optional-dependencies"] if name not in {"dev", "docs"}]


def licence(name: str) -> str:
    """Return a package's licence: SPDX where its metadata have that, else in their words."""
    message = distribution(name).metadata.json
    if "license_expression" in message:
        return str(message["license_expression"])
    classifiers = [
        line.split(" :: ")[-1]
        for line in message.get("classifier", ())
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    words = " ".join(str(message.get("license", "")).split())
    short = words if 0 < len(words) <= 40 and words.upper() != "UNKNOWN" else ""
    return STATED.get(name) or short or ", ".join(classifiers) or "**not stated**"


def _closure(root: str, wanted: Sequence[str]) -> set[str]:
    """Return the names of what a package with extras needs, and what that needs."""
    found, open_ = set[str](), [(root, frozenset(wanted))]
    seen = set(open_)
    while open_:
        name, asked = open_.pop()
        for requirement in _requirements(name, asked):
            below = _canonical(requirement.name)
            found.add(below)
            step = (below, frozenset(requirement.extras))
            if step not in seen:
                seen.add(step)
                open_.append(step)
    return found - {root}


def _requirements(name: str, asked: frozenset[str]) -> Iterator[Requirement]:
    for text in _needs(name):
        requirement = Requirement(text)
        marker = requirement.marker
        environments = [{"extra": extra} for extra in (asked or {""})]
        if marker is None or any(marker.evaluate(one) for one in environments):
            yield requirement


def _needs(name: str) -> Sequence[str]:
    try:
        return distribution(name).requires or ()
    except PackageNotFoundError as error:
        raise SystemExit(f"{name} is not installed: make install, then again") from error


def _version(name: str) -> str:
    found: Distribution = distribution(name)
    return found.version.partition("+")[0]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    print(page(), end="")
