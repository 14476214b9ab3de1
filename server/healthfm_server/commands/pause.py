"""``pause``: stop a run for now."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from healthfm_core.command_line import Command
from healthfm_server.commands import change_run, takes_run

EFFECT: Final = "it stops, the sites' computing too; resume continues from its last round"


def run(given: Namespace) -> int:
    """Order it; the reconciler does it within a second."""
    return change_run(given, "pause", EFFECT)


COMMAND = Command("stop a run for now; resume continues from its last round", run, takes_run)
