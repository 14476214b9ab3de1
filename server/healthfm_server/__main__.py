"""The coordinator's command line: ``server.py COMMAND``, each in a module of ``commands``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from healthfm_core.console import exit_code
from healthfm_server.commands import commands


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command there is."""
    parser = argparse.ArgumentParser(
        prog="healthfm-server", description="HealthFM at the coordinator."
    )
    chosen = parser.add_subparsers(metavar="COMMAND", required=True)
    groups: dict[str, Any] = {}
    for command in commands():
        group, _, name = command.name.rpartition(" ")
        if group and group not in groups:
            above = chosen.add_parser(group, help=f"see: healthfm-server {group} --help")
            groups[group] = above.add_subparsers(metavar="COMMAND", required=True)
        place = groups[group] if group else chosen
        its = place.add_parser(name, help=command.summary, description=command.summary)
        command.configure(its)
        its.set_defaults(lines=command.lines)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = build_parser().parse_args(argv)
    return exit_code(lambda: _answer(arguments))


def _answer(arguments: argparse.Namespace) -> int:
    for line in arguments.lines(arguments):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
