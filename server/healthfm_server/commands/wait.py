"""``wait``: follow a run to its end."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Final

from healthfm_core.command_line import Command
from healthfm_core.errors import RunError
from healthfm_core.stdout import say
from healthfm_server.commands import run_of, study_of, takes_run
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.study_status import run_status

WAIT_S: Final = 0.5
"""Between two looks at the run."""


def wait_for(order: RunOrder, study: StudyFolder) -> None:
    """Print each change of a run until it has ended.

    Raises:
        RunError: It failed or was stopped (HF-723).
    """
    printed = ""
    while True:
        status = run_status(order, study.sites.sites())
        line = f"run {order.name}: {status['state']}"
        if not order.is_dry_run:
            line += f", {status['rounds_done']} of {status['rounds']}"
        if status["waits_for"]:
            line += f": {status['waits_for']['sentence']}"
        if status["reason"]:
            line += f": {status['reason']}"
        if line != printed:
            say(line)
            printed = line
        if status["state"] == "finished":
            return
        if status["state"] in ("failed", "stopped"):
            raise RunError(
                723,
                where=f"run {order.name}",
                seen=f"it {status['state']}",
                wanted=status["reason"] or "it was to run to its last round",
                do=f"Put it right, then: healthfm-server resume {order.name}",
            )
        time.sleep(WAIT_S)


def run(given: Namespace) -> int:
    """Print what happens to a run until it has ended."""
    wait_for(run_of(given), study_of(given))
    return 0


COMMAND = Command("say what happens to a run until it ends", run, takes_run)
