"""One process of the study: ``python -m healthfm_server.deploy.study_process NAME --study DIR``.

The supervisor calls it. Each process imports only what it needs: four of them with PyTorch in each
would take two gigabytes.
"""

from __future__ import annotations

import argparse
import logging
from importlib import import_module
from pathlib import Path
from typing import Final

from healthfm_core.console import exit_code
from healthfm_core.owner_only import owner_only
from healthfm_core.supervision import die_with_supervisor
from healthfm_server.deploy.study_folder import StudyFolder

PROCESSES: Final = ("superlink", "executor", "reconciler", "gateway")
"""The programs, in the order they start; each a module of this package with a `serve`."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="healthfm_server.deploy.study_process")
    parser.add_argument("process", choices=PROCESSES)
    parser.add_argument("--study", type=Path, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("httpx", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    die_with_supervisor(StudyFolder.open(given.study).process)
    module = import_module(f"healthfm_server.deploy.{given.process}")
    with owner_only():
        raise SystemExit(exit_code(lambda: module.serve(StudyFolder.open(given.study)) or 1))


if __name__ == "__main__":
    main()
