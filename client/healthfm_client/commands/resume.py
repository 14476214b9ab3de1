"""``resume``: go on after pause or leave."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import site_of, takes_site
from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)


def run(given: Namespace) -> int:
    """Go on."""
    site_of(given).set_state("open")
    say("Open: requests are answered as site.yaml permits. If it does not run: join.")
    return 0


COMMAND = Command("answer requests again after pause or leave", run, arguments)
