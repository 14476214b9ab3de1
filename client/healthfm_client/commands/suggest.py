"""``suggest STORE --vocabulary FOLDER --out FILE``: standard codes for a site's own, to accept."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_client.ingest.codes.suggested_codes import as_map, suggest_codes
from healthfm_client.site.private_file import write_private
from healthfm_core.command_line import Command
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("store", type=Path, metavar="STORE", help="a store")
    parser.add_argument(
        "--vocabulary", type=Path, required=True, help="a folder with CONCEPT, as from Athena"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new CSV file")
    parser.add_argument("--most", type=int, default=3, help="suggestions for one code [3]")
    parser.add_argument("--least", type=float, default=0.5, help="least likeness, 0 to 1 [0.5]")


def run(given: Namespace) -> int:
    """Write the suggestions; nothing is applied."""
    store = SiteStore.open(given.store)
    found = suggest_codes(store.path, given.vocabulary, most=given.most, least=given.least)
    write_private(given.out, as_map(found))
    codes = len({one.source_code for one in found})
    say(f"{given.out}: {len(found):,} suggestions for {codes:,} codes; none is applied.")
    say(f"Write yes into the column accept of those that are right, then: ingest --map {given.out}")
    return 0


COMMAND = Command("suggest standard codes for the site's own", run, arguments)
