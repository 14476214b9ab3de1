"""``forget SUBJECT``: take a person who withdrew out of the site's stores."""

from __future__ import annotations

import shutil
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from healthfm_client.commands import site_of, takes_site
from healthfm_client.ingest.interrupted import output_lock, remove_leftovers, work_folders
from healthfm_client.ingest.reader_interface import ReaderOptions
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.site.site_folder import SiteFolder
from healthfm_core.arrays import Int64
from healthfm_core.command_line import Command
from healthfm_core.data.store.beside_store import bytes_beside
from healthfm_core.data.store.forgotten_people import Removal, forget, what_goes
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.errors import ConfigError, StoreError
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("subject", nargs="+", help="the person's subject_id in the stores")
    parser.add_argument(
        "--store",
        type=Path,
        action="append",
        help="a store, or a folder of stores; may be given again (default: those the site joined "
        "with)",
    )
    parser.add_argument(
        "--key", type=Path, help="the key that ingest was given: SUBJECT is the source's own id"
    )
    parser.add_argument(
        "--subjects", type=Path, help="the linking table that ingest was given: likewise"
    )
    parser.add_argument("--yes", action="store_true", help="do it; without it only say what goes")


def run(given: Namespace) -> int:
    """Say what goes of a person; with ``--yes`` take it out of every store."""
    subjects = _subject_ids(given)
    with ExitStack() as locks:
        folders = [_put_right(folder, locks) for folder in _folders(given)]
        paths = [path for folder in folders for path in stores_below(folder)]
        for path in paths:
            if path not in folders:
                _put_right(path, locks)
        removals = [what_goes(path, subjects) for path in paths]
        found = [removal for removal in removals if removal.people or removal.rows]
        if not found:
            raise _nobody(paths)
        for removal in found:
            _say(removal)
        if not given.yes:
            say("Nothing was changed. With --yes they go, and this cannot be taken back.")
            return 0
        for removal in found:
            _drop_what_was_read(removal.store, locks)
            tokens = bytes_beside(removal.store)
            forget(removal.store, subjects)
            say(
                f"{removal.store}: they are out of it; a source read again does not bring them back"
            )
            if tokens:
                say(
                    f"{removal.store}: its tokens for training ({tokens / 1e6:,.1f} MB beside it) "
                    "went too; the next round makes them again"
                )
    say("A site that takes part reads its stores again before the next round.")
    say("Not reached from here: backups and snapshots, the source, copies made by hand, and what")
    say("models that were trained before have learned.")
    return 0


def _folders(given: Namespace) -> list[Path]:
    if given.store:
        return list(given.store)
    home = site_of(given)
    return [choice.path for choice in SiteFolder(home.path).settings().stores]


def _put_right(folder: Path, locks: ExitStack) -> Path:
    """Keep others from a folder meanwhile, and put right what a killed command left beside it."""
    if locks.enter_context(output_lock(folder)):
        for notice in remove_leftovers(folder):
            say(notice)
    return folder


def _drop_what_was_read(store: Path, locks: ExitStack) -> None:
    """Remove what an interrupted ingest had read for ``--resume``: the person is in it.

    It lies beside the store, or beside the folder of stores that the store is in.
    """
    for out in (store, store.parent):
        left = work_folders(out)
        if left and out == store.parent:
            locks.enter_context(output_lock(out))
        for folder in left:
            shutil.rmtree(folder)
            say(f"{folder}: removed; an interrupted ingest had kept what it read there")


def _subject_ids(given: Namespace) -> Int64:
    """Return the stores' numbers of the people named."""
    named = list(dict.fromkeys(given.subject))
    if given.key is not None or given.subjects is not None:
        if given.key is not None and not given.key.is_file():
            raise _no_id("--key", f"there is no file {given.key}", "the key that ingest was given")
        options = ReaderOptions(key=given.key, subjects=given.subjects)
        return np.unique(numbers(named, options, "forget"))
    if not all(one.isascii() and one.isdigit() and len(one) <= 18 for one in named):
        wanted = "a subject_id, or the source's own id with --key or --subjects as at ingest"
        raise _no_id("forget", "an id that is no number", wanted)
    return np.unique(np.array([int(one) for one in named], np.int64))


def _no_id(where: str, seen: str, wanted: str) -> ConfigError:
    return ConfigError(102, where=where, seen=seen, wanted=wanted, do="Nothing was changed")


def _nobody(paths: list[Path]) -> StoreError:
    return StoreError(
        210,
        where=", ".join(path.name for path in paths),
        seen="no store has one of these people",
        wanted="a subject_id of the store, or the source's own id with --key or --subjects",
        do="Give them as at ingest; nothing was changed",
    )


def _say(removal: Removal) -> None:
    say(removal.sentence())
    tokens = bytes_beside(removal.store)
    if tokens:
        say(f"  and everyone's tokens for training, {tokens / 1e6:,.1f} MB, which are made again")
    for file in removal.without_ids:
        say(f"  {file} names nobody by a subject_id: look through it yourself")


COMMAND = Command("take a person who withdrew out of the stores", run, arguments)
