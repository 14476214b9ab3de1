"""Changes one line of the product at a time and shows which changes no test notices.

    make mutants                                          # training/curriculum.py, under a minute
    make mutants ARGS=healthfm_core/training/passes.py
    make mutants ARGS="healthfm_core/objectives tests/objectives tests/models"

A module or folder of `healthfm_core`, then the tests that are to notice; without any those of its
mirror folder. mutmut makes the mutants in a copy of the checkout and runs of the tests those that
call the changed function. Not mutated: functions with a decorator, and sentences of errors. A
mutant that lives either does nothing wrong, or shows a promise that no test holds.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
COPIED: Final = ("healthfm_core", "tests", "configs", "README.md", "pyproject.toml")
SENTENCES: Final = r"^\s*(where|seen|wanted|do)="
"""Lines that are part of an error's sentence."""

SETTINGS: Final = """
[tool.mutmut]
source_paths = ["healthfm_core"]
only_mutate = {only_mutate}
do_not_mutate_patterns = ['{sentences}']
also_copy = ["configs", "README.md"]
pytest_add_cli_args = ["-n0", "-m", "not slow and not realdata and not deployment and not gpu"]
pytest_add_cli_args_test_selection = {tests}
"""


def main() -> int:
    """Run one module's or folder's mutants; 1 where some live."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="module or folder of healthfm_core")
    parser.add_argument("tests", nargs="*", help="tests that are to notice")
    parser.add_argument("--jobs", type=int, default=1, help="mutants tried at once")
    given = parser.parse_args()
    tests = given.tests or [mirror_of(given.target)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = copied(Path(folder), given.target, tests)
        run(copy, "run", "--max-children", str(given.jobs))
        found = outcomes(run(copy, "results", "--all", "true", quiet=True))
        living = sorted(name for name, outcome in found.items() if outcome == "survived")
        for name in living:
            sys.stdout.write(run(copy, "show", name, quiet=True))
        sys.stdout.write(summary(given.target, found) + "\n")
    return 1 if living else 0


def mirror_of(target: str) -> str:
    """Return the folder of tests that mirrors a module's or folder's place."""
    area = Path(target).relative_to("healthfm_core").parts[0].removesuffix(".py")
    return f"tests/{area}"


def copied(folder: Path, target: str, tests: Sequence[str]) -> Path:
    """Copy what the tests need to `folder`, with mutmut's settings; return it."""
    without = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=without)
        else:
            shutil.copy2(ROOT / name, folder / name)
    pattern = target if target.endswith(".py") else f"{target.rstrip('/')}/*.py"
    settings = SETTINGS.format(only_mutate=[pattern], sentences=SENTENCES, tests=list(tests))
    project = folder / "pyproject.toml"
    project.write_text(project.read_text("utf-8") + settings, "utf-8")
    return folder


def run(folder: Path, *command: str, quiet: bool = False) -> str:
    """Run mutmut in `folder`; return what it prints where `quiet`."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *command],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        check=True,
    )
    return done.stdout or ""


def outcomes(text: str) -> dict[str, str]:
    """Return mutant → killed, survived, no tests, timeout, …"""
    return dict(re.findall(r"^\s+(\S+): (.+)$", text, re.MULTILINE))


def summary(target: str, found: dict[str, str]) -> str:
    """Return how many mutants there were, and the share that lives of those that were tried."""
    count = Counter(found.values())
    tried = sum(count.values()) - count["no tests"] - count["not checked"]
    kinds = ", ".join(f"{number} {kind}" for kind, number in count.most_common())
    share = count["survived"] / max(1, tried)
    return f"{target}: {len(found)} mutants: {kinds}; {share:.1%} of those tried live"


if __name__ == "__main__":
    sys.exit(main())
