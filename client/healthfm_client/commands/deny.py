"""``deny RUN``: refuse a run, also one that was approved."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import Command, say, takes_site
from healthfm_client.home import SiteHome


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("run", metavar="RUN", help="its number, from healthfm-client requests")


def run(arguments: Namespace) -> int:
    """Put the answer on disk; a running client obeys it from its next message on."""
    asked = SiteHome(arguments.site).approvals().answer(arguments.run, "denied")
    say(f"Run {asked.run} of the study {asked.study} is denied.")
    return 0


COMMAND = Command("deny", "refuse a run, also one that was approved", configure, run)
