"""``approve RUN``: let a run compute here."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import site_of, takes_site
from healthfm_client.site.run_approvals import Answer
from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("run", metavar="RUN", help="its number, from healthfm-client requests")


def answer(given: Namespace, verdict: Answer) -> int:
    """Put the answer on disk; a running client obeys it from its next message on."""
    asked = site_of(given).approvals().answer(given.run, verdict)
    say(f"Run {asked.run} of the study {asked.study} is {verdict}.")
    return 0


def run(given: Namespace) -> int:
    """Approve."""
    return answer(given, "approved")


COMMAND = Command("allow a run to compute here", run, arguments)
