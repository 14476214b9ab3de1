"""The coordinator's command line: ``server.py inspect RUN``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from healthfm_core.errors import HealthFMError
from healthfm_server.inspection import describe_run


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="healthfm-server", description="HealthFM at the coordinator."
    )
    chosen = parser.add_subparsers(metavar="COMMAND", required=True)
    inspect = chosen.add_parser(
        "inspect", help="print a run's sites, rounds and what was set aside, with the reasons"
    )
    inspect.add_argument("run", type=Path, help="the run folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        for line in describe_run(arguments.run):
            print(line)
    except HealthFMError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
