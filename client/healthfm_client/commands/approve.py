"""``approve RUN``: let a run compute here."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import Command, say, site_of, takes_site
from healthfm_client.site.run_approvals import Answer


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("run", metavar="RUN", help="its number, from healthfm-client requests")


def answer(arguments: Namespace, verdict: Answer) -> int:
    """Put the answer on disk; a running client obeys it from its next message on."""
    asked = site_of(arguments).approvals().answer(arguments.run, verdict)
    say(f"Run {asked.run} of the study {asked.study} is {verdict}.")
    return 0


def run(arguments: Namespace) -> int:
    """Approve."""
    return answer(arguments, "approved")


COMMAND = Command("approve", "let a run compute here", configure, run)
