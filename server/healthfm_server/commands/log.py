"""``log``: what a run did."""

from __future__ import annotations

from argparse import Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import run_of, takes_run
from healthfm_server.run_folder.run_description import describe_run


def run(given: Namespace) -> int:
    """Print what a run did, round by round, and what was set aside with the reasons."""
    order = run_of(given)
    if order.begun():
        for line in describe_run(order.folder):
            say(line)
    else:
        status = order.status()
        say(f"run {order.name} has not begun: {status.state} {status.reason}".rstrip())
    return 0


COMMAND = Command("what a run did, round by round", run, takes_run)
