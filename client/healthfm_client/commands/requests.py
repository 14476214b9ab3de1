"""``requests``: the runs that asked for approval, in words."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final

from healthfm_client.commands import site_of, takes_site
from healthfm_client.consent.run_comparison import as_json, compared
from healthfm_client.site.run_approvals import ApprovalRequest
from healthfm_core.command_line import Command
from healthfm_core.stdout import say

_INDENT: Final = "    "


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="its name or number [all; in full those that wait]"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")


def run(given: Namespace) -> int:
    """Show every run that asked, the newest last."""
    approvals = site_of(given).approvals()
    chosen = list(approvals) if given.run is None else [approvals.find(given.run)]
    if given.json:
        say(json.dumps([as_json(approvals, a) for a in chosen], indent=2, ensure_ascii=False))
        return 0
    for asked in chosen:
        say(_headline(asked))
        if asked.answer == "waiting" or given.run is not None:
            _say_wrapped([*asked.words, *compared(approvals, asked)])
            approvals.note_read(asked)
    if waiting := [asked.called for asked in chosen if asked.answer == "waiting"]:
        say(f"Answer with: healthfm-client approve {waiting[-1]} (--further: also for further runs")
        say(f"of the same terms), or: healthfm-client deny {waiting[-1]}")
    elif not chosen:
        say("No run has asked.")
    return 0


def _headline(asked: ApprovalRequest) -> str:
    number = f" ({asked.run})" if asked.name else ""
    said = f"{asked.called}{number}  {asked.answer}"
    if asked.answer == "waiting":
        return f"{said} since {asked.since}"
    by = f" by the approval of {asked.approved_by}" if asked.approved_by else ""
    stands = ", further runs of the same terms too" if asked.further else ""
    return f"{said} on {asked.answered}{by}{stands}"


def _say_wrapped(lines: Sequence[str]) -> None:
    """Print lines, at a terminal within its width; elsewhere each stays one line."""
    width = min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else 0
    for line in lines:
        hanging = _INDENT + ("  " if line.startswith("- ") else "")
        if width:
            say(textwrap.fill(line, width, initial_indent=_INDENT, subsequent_indent=hanging))
        else:
            say(_INDENT + line)


COMMAND = Command("list the runs that ask for approval, in plain words", run, arguments)
