"""``resume``: continue a run."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from healthfm_core.command_line import Command
from healthfm_server.commands import change_run, takes_run

EFFECT: Final = "it continues from its last round"


def run(given: Namespace) -> int:
    """Order it; the reconciler does it within a second."""
    return change_run(given, "resume", EFFECT)


COMMAND = Command("continue a paused, failed or stopped run from its last round", run, takes_run)
