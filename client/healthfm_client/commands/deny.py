"""``deny RUN``: refuse a run, also one that was approved."""

from __future__ import annotations

from argparse import Namespace

from healthfm_client.commands import Command
from healthfm_client.commands.approve import answer, configure


def run(arguments: Namespace) -> int:
    """Deny."""
    return answer(arguments, "denied")


COMMAND = Command("deny", "refuse a run, also one that was approved", configure, run)
