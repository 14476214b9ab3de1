"""``pause``: answer nothing for a while; what is being computed is finished but nothing more."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import Command, say, site_of, takes_site


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)


def run(arguments: Namespace) -> int:
    """Pause; the coordinator is told so when it asks (HF-505)."""
    site_of(arguments).set_state("paused")
    say("Paused: every request is refused until healthfm-client resume.")
    return 0


COMMAND = Command("pause", "refuse every request until resume", configure, run)
