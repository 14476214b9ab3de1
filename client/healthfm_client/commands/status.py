"""``status``: how this site stands with its study, without asking anyone."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Final

from healthfm_client.commands import site_of, takes_site
from healthfm_client.site_status import site_status
from healthfm_core.command_line import Command
from healthfm_core.stdout import say

FOR_PROGRAMS: Final = frozenset(
    {
        *("root_fingerprint", "own_fingerprint", "signing_key"),
        *("waiting", "processes", "stage", "connection_refused"),
    }
)
"""Facts of ``--json`` that a person reads in words."""


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(given: Namespace) -> int:
    """Say it."""
    facts = site_status(site_of(given))
    if given.json:
        say(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            if name in FOR_PROGRAMS or value == "":
                continue
            say(f"{name.replace('_', ' '):<20} {_shown(value)}")
    return 0


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        since = f" since {value['since'][:19]}Z" if value["state"] == "connected" else ""
        todo = f" {value['do']}." if value["do"] else ""
        return f"{value['state']}{since}. {value['sentence']}.{todo}"
    return "nothing" if value is None else str(value)


COMMAND = Command("show this site's state in its study", run, arguments)
