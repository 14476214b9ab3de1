"""``labels STORE FILE``: an ACES task definition, or a table of labels, in; MEDS labels out.

They stand in the store, beside the events of the people whom they are of.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

import pyarrow as pa

from healthfm_client.ingest.reader_interface import ReaderOptions
from healthfm_client.site_store.aces_labels import Extracted
from healthfm_client.site_store.description.facts import label_counts
from healthfm_client.site_store.table_labels import (
    SUBJECTS,
    TIMES,
    VALUES,
    LabelColumns,
    TableLabels,
)
from healthfm_core.command_line import Command
from healthfm_core.config.evaluation import NEXT_VISIT_TASK
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.data.store.store_writer import add_labels
from healthfm_core.errors import ConfigError, IngestError
from healthfm_core.stdout import say

THRESHOLD: Final = 20
"""Counts under it are not printed."""
_MEANING: Final = {"subject": "person's id", "time": "time asked about", "value": "outcome"}
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]*"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("store", type=Path, metavar="STORE", help="a store, or a folder of stores")
    parser.add_argument(
        "definition",
        type=Path,
        metavar="FILE",
        help="ACES task definition (.yaml), or a table of labels (CSV or Parquet): a person, a "
        "time and yes or no in each row",
    )
    parser.add_argument("--name", metavar="TASK", help="the task's name [the file's]")
    parser.add_argument("--overwrite", action="store_true", help="replace labels of that name")
    of_aces = parser.add_argument_group("of a task definition")
    of_aces.add_argument("--predicates", type=Path, metavar="FILE", help="its predicates, if apart")
    of_table = parser.add_argument_group("of a table")
    named = {"subject": SUBJECTS, "time": TIMES, "value": VALUES}
    for what, names in named.items():
        text = f"column of the {_MEANING[what]} [{', '.join(names[:3])}, ...]"
        of_table.add_argument(f"--{what}-column", default="", metavar="NAME", help=text)
    of_table.add_argument(
        "--time-format", default="", metavar="FORMAT", help="how times are written [2020-01-31]"
    )
    of_table.add_argument(
        "--time-zone", metavar="ZONE", help="the site's, for times with an offset"
    )
    of_table.add_argument(
        "--subjects", type=Path, metavar="FILE", help="the linking table that ingest was given"
    )
    of_table.add_argument("--key", type=Path, metavar="FILE", help="the key that ingest was given")


def run(given: Namespace) -> int:
    """Make the labels of every store, then write them all."""
    task = _task(given.name or given.definition.name.partition(".")[0])
    stores = [SiteStore.open(path) for path in stores_below(given.store)]
    made = _of_aces if given.definition.suffix.lower() in (".yaml", ".yml") else _of_table
    for store, (labels, said) in made(given, stores).items():
        add_labels(store.path, task, labels, overwrite=given.overwrite)
        for line in [_counted(labels), *said]:
            say(f"{store.name}, {task}: {line}")
    say(f"To learn them: train=label_tabular evaluation.task={task}")
    return 0


Made = dict[SiteStore, tuple[pa.Table, list[str]]]
"""Store → its labels, and what is said of them."""


def _of_aces(given: Namespace, stores: list[SiteStore]) -> Made:
    from healthfm_client.site_store.aces_labels import Definition  # here: it is an extra

    definition = Definition(given.definition, given.predicates)
    extracted = [definition.labels(store) for store in stores]
    return {store: (one.labels, _said(one)) for store, one in zip(stores, extracted, strict=True)}


def _of_table(given: Namespace, stores: list[SiteStore]) -> Made:
    """Return the labels of the stores that have some of the table's people.

    Raises:
        IngestError: None has any (HF-316).
    """
    columns = LabelColumns(
        given.subject_column, given.time_column, given.value_column, given.time_format
    )
    options = ReaderOptions(key=given.key, subjects=given.subjects, time_zone=given.time_zone)
    table = TableLabels.read(given.definition, columns, options)
    if table.unknown:
        say(f"{_few(table.unknown)} rows without a person, a time or an outcome are no labels")
    each = {store: table.of(store) for store in stores}
    placed = sum(labels.num_rows for labels in each.values())
    if not placed:
        raise IngestError(
            316,
            where=given.definition.name,
            seen=f"none of its people is in {', '.join(store.name for store in stores)}",
            wanted="the ids that the store's own source had are wanted",
            do="Give --key or --subjects as they were given to ingest, or --subject-column",
        )
    if placed < table.labels.num_rows:
        say(f"{_few(table.labels.num_rows - placed)} labels are of people whom no store has")
    return {store: (labels, []) for store, labels in each.items() if labels.num_rows}


def _counted(labels: pa.Table) -> str:
    counts = label_counts(labels, THRESHOLD)
    shown = {key: "withheld" if n is None else f"{n:,}" for key, n in counts.items()}
    return f"labels {shown['labels']}, positive {shown['positive']}"


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
    lines = []
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


COMMAND = Command(
    "put a task's labels into a store, from an ACES definition or a table", run, arguments
)
