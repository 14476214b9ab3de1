"""``audit``: what left this site, and whether the record of it is whole."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from healthfm_client.commands import site_of, takes_site
from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("--verify", action="store_true", help="only prove that the log is whole")
    parser.add_argument("--json", action="store_true", help="the lines as they are, as JSON")


def run(given: Namespace) -> int:
    """Show every line, each held against the one before; a changed log is an error (HF-822)."""
    home = site_of(given)
    last = ""
    count = 0
    for entry in home.log().entries():
        count, last = entry["n"], entry["hash"]
        if not given.verify:
            say(json.dumps(entry, ensure_ascii=False) if given.json else as_text(entry))
    if given.verify:
        whole = {"lines": count, "last": last, "whole": True}
        say(json.dumps(whole) if given.json else f"{count} lines, none changed; last {last}")
    elif not count and not given.json:
        say("Nothing has left this site.")
    return 0


def as_text(entry: dict[str, Any]) -> str:
    """Return one line for a person: when, what, in which round, how much of what."""
    head = f"{entry['n']:>6}  {entry['at'][:19]}  {entry['what']:<18}"
    if "refused" in entry:
        return f"{head}  refused, nothing left: {entry['reason']}"
    if "records" not in entry:
        return f"{head}  a line cut short was taken off, {entry.get('bytes_cut', 0)} bytes"
    parts = [_record(name, record) for name, record in sorted(entry["records"].items())]
    return f"{head}  round {entry['round']:<10} {entry['bytes']:>12,} bytes: {'; '.join(parts)}"


def _record(name: str, record: dict[str, Any]) -> str:
    if "arrays" in record:
        return f"{name}: {len(record['arrays'])} arrays"
    return f"{name}: {', '.join(sorted(record['values'])) or 'nothing'}"


COMMAND = Command("list what left this site, and check that the log is unchanged", run, arguments)
