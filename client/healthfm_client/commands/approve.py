"""``approve RUN``: let a run compute here."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import site_of, takes_site
from healthfm_client.site.run_approvals import Answer
from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def takes_run(parser: ArgumentParser) -> None:
    """Name the run."""
    takes_site(parser)
    parser.add_argument(
        "run", metavar="RUN", help="its name or number, from healthfm-client requests"
    )


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_run(parser)
    parser.add_argument(
        "--further",
        action="store_true",
        help="also for further runs of the same terms: the same study, statement and settings, "
        "but for the seed and the configuration's name; deny takes it back",
    )


def answer(given: Namespace, verdict: Answer, *, further: bool = False) -> int:
    """Put the answer on disk; a running client obeys it from its next message on."""
    asked = site_of(given).approvals().answer(given.run, verdict, further=further)
    say(f"Run {asked.called} of the study {asked.study} is {verdict}.")
    if asked.further:
        say("Further runs of the same terms need no answer, until:")
        say(f"  healthfm-client deny {asked.called}")
    return 0


def run(given: Namespace) -> int:
    """Approve."""
    return answer(given, "approved", further=given.further)


COMMAND = Command("allow a run to compute here", run, arguments)
