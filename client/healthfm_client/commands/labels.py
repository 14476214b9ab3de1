"""``labels STORE TASK.yaml``: an ACES task definition in, MEDS labels in the store out."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from healthfm_client.site_store.aces_labels import Definition, Extracted
from healthfm_client.site_store.description.facts import label_counts
from healthfm_core.command_line import Command
from healthfm_core.config.evaluation import NEXT_VISIT_TASK
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.data.store.store_writer import add_labels
from healthfm_core.errors import ConfigError
from healthfm_core.stdout import say

THRESHOLD: Final = 20
"""Counts under it are not printed."""
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]*"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("store", type=Path, metavar="STORE", help="a store, or a folder of stores")
    parser.add_argument("definition", type=Path, metavar="TASK.yaml", help="ACES task definition")
    parser.add_argument("--predicates", type=Path, metavar="FILE", help="its predicates, if apart")
    parser.add_argument("--name", metavar="TASK", help="the task's name [the file's]")
    parser.add_argument("--overwrite", action="store_true", help="replace labels of that name")


def run(given: Namespace) -> int:
    """Make the labels of every store, then write them all."""
    task = _task(given.name or given.definition.stem)
    definition = Definition(given.definition, given.predicates)
    stores = [SiteStore.open(path) for path in stores_below(given.store)]
    extracted_by_store = [definition.labels(store) for store in stores]
    for store, one in zip(stores, extracted_by_store, strict=True):
        add_labels(store.path, task, one.labels, overwrite=given.overwrite)
        for line in _said(one):
            say(f"{store.name}, {task}: {line}")
    say(f"To use them: evaluation.task={task}, and train.objectives.label=1 to train on them.")
    return 0


def _task(name: str) -> str:
    if re.fullmatch(_NAME, name) and name != NEXT_VISIT_TASK:
        return name
    raise ConfigError(
        102,
        where="labels --name",
        seen="the name cannot be a task's",
        wanted=f"letters, digits, _, . and - are wanted, and not {NEXT_VISIT_TASK}",
        do="Name the task with --name",
    )


def _said(extracted: Extracted) -> list[str]:
    counts = label_counts(extracted.labels, THRESHOLD)
    shown = {key: "withheld" if n is None else f"{n:,}" for key, n in counts.items()}
    lines = [f"labels {shown['labels']}, positive {shown['positive']}"]
    if extracted.waived:
        lines.append(
            f"{_few(extracted.waived)} are of people who died before anything could come after the "
            "window; the definition's wish for it was waived for them"
        )
    if extracted.after_death:
        lines.append(f"{_few(extracted.after_death)} predictions at or after a death were left out")
    if extracted.unfollowed:
        lines.append(
            f'{_few(extracted.unfollowed)} answers "no" are of people whose record ends inside the '
            "window; a window after it that wants an event leaves them out"
        )
    nowhere = sorted(name for name, times in extracted.occurrences.items() if not times)
    return lines + [f'predicate "{name}" fits no event here' for name in nowhere]


def _few(count: int) -> str:
    return f"fewer than {THRESHOLD}" if count < THRESHOLD else f"{count:,}"


COMMAND = Command("make a task's labels from an ACES definition", run, arguments)
