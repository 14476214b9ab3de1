"""The site's command line: ``client.py COMMAND``, each command a module of ``commands``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from healthfm_client.commands import Command, commands
from healthfm_core.console import exit_code

TERMINATED = 143


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with every command there is, or with the module `only` where there is one.

    Args:
        only: The first word of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="healthfm-client",
        description="HealthFM at a site: data goes in, only what the policy permits goes out.",
    )
    chosen = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in commands(only):
        its = chosen.add_parser(command.name, help=command.summary, description=command.summary)
        command.configure(its)
        its.set_defaults(command=command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; a termination leaves nothing half-written."""
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = build_parser(words[0] if words else None).parse_args(words)
    command: Command = arguments.command
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return exit_code(lambda: command.run(arguments))
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    raise SystemExit(main())
