"""``stop``: give a run up."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from healthfm_core.command_line import Command
from healthfm_server.commands import change_run, takes_run

EFFECT: Final = "it is given up, the sites' computing stops; its rounds stay on disk"


def run(given: Namespace) -> int:
    """Order it; the reconciler does it within a second."""
    return change_run(given, "stop", EFFECT)


COMMAND = Command("give a run up; its rounds stay on disk", run, takes_run)
