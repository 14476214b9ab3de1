"""``status``: what sites and runs are doing."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.study_overview import study_overview
from healthfm_server.deploy.study_status import status_lines


def arguments(parser: ArgumentParser) -> None:
    """Add ``--json``."""
    takes_study(parser)
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(given: Namespace) -> int:
    """Print the state of sites, runs and processes."""
    status = study_overview(study_of(given))
    if given.json:
        say(json.dumps(status, indent=1))
        return 0
    for line in status_lines(status):
        say(line)
    for name, state in status["processes"].items():
        say(f"process {name}: {state}")
    if not status["processes"]:
        say("the study is down; start it with: healthfm-server up")
    return 0


COMMAND = Command("what sites and runs are doing", run, arguments)
