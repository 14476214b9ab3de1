"""``requests``: the runs that asked for approval, in words."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from healthfm_client.commands import site_of, takes_site
from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")


def run(given: Namespace) -> int:
    """Show every run that asked, the newest last."""
    asked = list(site_of(given).approvals())
    if given.json:
        say(json.dumps([asdict(one) for one in asked], indent=2, ensure_ascii=False))
        return 0
    for one in asked:
        say(f"{one.run}  {one.answer}  since {one.since}")
        for sentence in one.words:
            say(f"    {sentence}")
    if any(one.answer == "waiting" for one in asked):
        say("Answer with: healthfm-client approve RUN, or healthfm-client deny RUN")
    elif not asked:
        say("No run has asked.")
    return 0


COMMAND = Command("list the runs that ask for approval, in plain words", run, arguments)
