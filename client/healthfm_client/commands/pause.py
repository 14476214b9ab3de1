"""``pause``: answer nothing for a while; what is being computed is finished but nothing more."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import site_of, takes_site
from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)


def run(given: Namespace) -> int:
    """Pause; the coordinator gets HF-505 when it asks."""
    site_of(given).set_state("paused")
    say("Paused: every request is refused until healthfm-client resume.")
    return 0


COMMAND = Command("refuse every request until resume", run, arguments)
