"""``resume``: go on after pause or leave."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import Command, say, site_of, takes_site


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)


def run(arguments: Namespace) -> int:
    """Go on."""
    site_of(arguments).set_state("open")
    say("Open: requests are answered as site.yaml permits. If it does not run: join.")
    return 0


COMMAND = Command("resume", "answer requests again, after pause or leave", configure, run)
