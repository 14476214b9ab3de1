"""``status``: what sites and runs are doing."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.study_process import PROCESSES
from healthfm_server.deploy.study_status import status_lines, study_status
from healthfm_server.deploy.study_supervision import supervision


def arguments(parser: ArgumentParser) -> None:
    """Add ``--json``."""
    takes_study(parser)
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(given: Namespace) -> int:
    """Print the state of sites, runs and processes."""
    study = study_of(given)
    status = {**study_status(study), "processes": supervision(study).states()}
    idle = sorted(p for p in PROCESSES if not status["processes"].get(p, "").startswith("RUNNING"))
    if idle:
        _interrupt(status["runs"], idle)
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


def _interrupt(runs: list[dict[str, Any]], idle: Sequence[str]) -> None:
    """Let no run be told as running while processes that it needs do not run."""
    down = f"the study's {', '.join(idle)} does not run; it goes on when it does"
    for run in runs:
        if run["state"] in ("running", "waiting"):
            run |= {"state": "interrupted", "waits_for": None, "reason": down}


COMMAND = Command("what sites and runs are doing", run, arguments)
