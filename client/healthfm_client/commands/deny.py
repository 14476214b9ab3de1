"""``deny RUN``: refuse a run, also one that was approved."""

from __future__ import annotations

from argparse import Namespace

from healthfm_client.commands.approve import answer, takes_run
from healthfm_core.command_line import Command


def run(given: Namespace) -> int:
    """Deny."""
    return answer(given, "denied")


COMMAND = Command("refuse a run, even one approved before", run, takes_run)
