"""``token list``: who has a token."""

from __future__ import annotations

from argparse import Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study


def run(given: Namespace) -> int:
    """Print the tokens' owners and roles."""
    for token in study_of(given).tokens.all().values():
        say(f"{token.name}: {token.role}, since {token.made}")
    return 0


COMMAND = Command("name the tokens", run, takes_study)
