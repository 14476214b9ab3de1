"""``check STORE``: every row of a store held against what MEDS and HealthFM want."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("store", type=Path, metavar="STORE", help="a store, or a folder of stores")


def run(given: Namespace) -> int:
    """Check; the first fault found is the error."""
    for path in stores_below(given.store):
        store = SiteStore.open(path)
        store.check()
        aside = store.set_aside
        say(f"{path}: sound" + (f", but {aside.sentence()}" if aside.is_much() else ""))
    return 0


COMMAND = Command("check every row of a store", run, arguments)
