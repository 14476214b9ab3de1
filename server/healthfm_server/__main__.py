"""The coordinator's command line: ``server.py inspect RUN``, ``server.py export RUN FOLDER``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from healthfm_core.errors import HealthFMError
from healthfm_server.export import export_model
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
    inspect.set_defaults(lines=lambda given: describe_run(given.run))
    export = chosen.add_parser("export", help="write a run's model to a folder, with a model card")
    export.add_argument("run", type=Path, help="the run folder")
    export.add_argument("folder", type=Path, help="a folder that does not exist yet")
    export.add_argument("--round", type=int, help="the model after this round (default: the last)")
    export.set_defaults(lines=lambda given: export_model(given.run, given.folder, given.round))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        for line in arguments.lines(arguments):
            print(line)
    except HealthFMError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
