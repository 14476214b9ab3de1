"""The coordinator's command line: ``server.py COMMAND``, each in a module of ``commands``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from healthfm_core.errors import HealthFMError
from healthfm_server.commands import commands

INTERRUPTED = 130
PIPE_CLOSED = 141


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
    """Run one command and return the exit code.

    An error that a person can put right is one sentence on stderr and its class's exit code
    (docs/exit-codes.md).
    """
    arguments = build_parser().parse_args(argv)
    try:
        for line in arguments.lines(arguments):
            print(line, flush=True)
    except HealthFMError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted; nothing was left half-written.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
