"""The site's command line: ``client.py COMMAND``, each command a module of ``commands``."""

from __future__ import annotations

from collections.abc import Sequence

from healthfm_client import commands
from healthfm_core import command_line

DESCRIPTION = "HealthFM at a site: prepare its data, take part in a study, and see what leaves."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    return command_line.main(
        commands, program="healthfm-client", description=DESCRIPTION, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
