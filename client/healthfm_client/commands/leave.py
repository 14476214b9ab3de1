"""``leave``: stop taking part; keys, policy and the log of what left stay here."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import site_of, takes_site
from healthfm_client.runtime.site_control import leave
from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)


def run(given: Namespace) -> int:
    """Refuse from now on (HF-508), then stop this site's processes."""
    home = site_of(given)
    tokens = leave(home)
    say("This site has left the study: nothing of it runs, and nothing more leaves.")
    if tokens:
        say(f"Removed what was made of its stores for training: {tokens / 1e6:,.1f} MB of tokens.")
    say(f"Its keys and its log stay in {home.path}; tell the coordinator to revoke it.")
    say("To take part again: healthfm-client resume, then healthfm-client join.")
    return 0


COMMAND = Command("stop taking part, and stop this site's processes", run, arguments)
