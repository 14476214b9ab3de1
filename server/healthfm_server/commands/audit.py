"""``audit``: who was admitted or refused, what was done to runs, and whether the log is whole."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import Any, Final

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study

_CHAIN: Final = ("n", "at", "event", "process", "previous", "hash")


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_study(parser)
    parser.add_argument("--verify", action="store_true", help="only prove that the log is whole")
    parser.add_argument("--json", action="store_true", help="the lines as they are, as JSON")


def run(given: Namespace) -> int:
    """Show every line of all files, each held against the one before; a change is HF-822."""
    first = count = 0
    last = ""
    for entry in study_of(given).audit("command").entries():
        first, count, last = first or entry["n"], count + 1, entry["hash"]
        if not given.verify:
            say(json.dumps(entry, ensure_ascii=False) if given.json else as_text(entry))
    if given.verify:
        whole = {"lines": count, "first": first, "last": last, "whole": True}
        archived = f", from line {first} on" if first > 1 else ""
        said = f"{count} lines{archived}, none changed; last {last}"
        say(json.dumps(whole) if given.json else said)
    return 0


def as_text(entry: dict[str, Any]) -> str:
    """Return one line for a person: when, what, and the details."""
    details = ", ".join(f"{key} {entry[key]}" for key in sorted(entry) if key not in _CHAIN)
    return f"{entry['n']:>6}  {entry['at'][:19]}  {entry['event']:<24}  {details}".rstrip()


COMMAND = Command(
    "list who was admitted or refused, and check that the log is whole", run, arguments
)
