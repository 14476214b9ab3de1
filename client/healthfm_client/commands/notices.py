"""``notices``: how the site's people are told of what happens, and what they were told."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import site_of, takes_site
from healthfm_client.runtime.site_notices import settings_of, told_by
from healthfm_core.command_line import Command
from healthfm_core.notices.try_channels import told_lines, try_channels
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add ``--test``."""
    takes_site(parser)
    parser.add_argument("--test", action="store_true", help="send a notice through every channel")


def run(given: Namespace) -> int:
    """Say it, or try it."""
    home = site_of(given)
    settings = settings_of(home)
    if given.test:
        lines = try_channels(settings, told_by(home), home.policy.name)
    else:
        lines = told_lines(settings, home.path)
    for line in lines:
        say(line)
    return 0


COMMAND = Command("how you are told of what happens, and what you were told", run, arguments)
