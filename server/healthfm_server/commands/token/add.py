"""``token add``: give somebody access to the public port."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.access_tokens import ROLES


def arguments(parser: ArgumentParser) -> None:
    """Name its owner and role."""
    takes_study(parser)
    parser.add_argument("name", help="whose token it is")
    parser.add_argument("--role", choices=ROLES, default="viewer", help="what it permits")


def run(given: Namespace) -> int:
    """Make a token and print it, this once."""
    study = study_of(given)
    token = study.tokens.add(given.name, given.role)
    study.audit("command").note("token added", {"name": given.name, "role": given.role})
    say(token)
    return 0


COMMAND = Command("give somebody a token", run, arguments)
