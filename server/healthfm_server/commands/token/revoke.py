"""``token revoke``: take a token back."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study


def arguments(parser: ArgumentParser) -> None:
    """Name its owner."""
    takes_study(parser)
    parser.add_argument("name", help="whose token it is")


def run(given: Namespace) -> int:
    """Take a token back."""
    study = study_of(given)
    study.tokens.revoke(given.name)
    study.audit("command").note("token revoked", {"name": given.name})
    say(f"the token of {given.name} is refused from now on")
    return 0


COMMAND = Command("take a token back", run, arguments)
