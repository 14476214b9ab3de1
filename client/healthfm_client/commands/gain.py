"""``gain``: does my hospital gain by joining? Measured here, told to nobody unless ``--tell``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_client.commands import site_of, takes_site
from healthfm_core.command_line import Command


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="a run that has ended [the one that ended last]"
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="MODEL_FOLDER",
        help="an exported model in place of RUN, as for a run with secure sums",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="MODEL_FOLDER",
        help="the exported model that the run started from, where it started from one",
    )
    parser.add_argument(
        "--tell",
        action="store_true",
        help="tell the coordinator the numbers that site.yaml lets out, after they were shown",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before telling")


def run(given: Namespace) -> int:
    """Measure, or tell what was measured; PyTorch is loaded here."""
    from healthfm_client import gain_at_site

    gain_at_site.run(site_of(given), given)
    return 0


COMMAND = Command(
    "does this site gain by joining? its own model beside the shared one", run, arguments
)
