"""The coordinator's command line: ``server.py COMMAND``, each command a module of ``commands``."""

from __future__ import annotations

from collections.abc import Sequence

from healthfm_core import command_line
from healthfm_server import commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    description = "HealthFM at the coordinator."
    return command_line.main(
        commands, program="healthfm-server", description=description, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
