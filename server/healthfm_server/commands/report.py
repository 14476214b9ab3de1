"""``report``: what a run of real sites has shown so far, as a page and as data."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import run_of, study_of, takes_run


def arguments(parser: ArgumentParser) -> None:
    """Add the run and where the report goes."""
    takes_run(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to (default: report, in the run's folder)"
    )


def run(given: Namespace) -> int:
    """Write the report; matplotlib is imported here, so that ``--help`` need not wait for it."""
    from healthfm_server.run_report.run_report import FOLDER, RunReport

    study, order = study_of(given), run_of(given)
    report = RunReport.of(study, order)
    page = report.write(given.out or order.folder / FOLDER)
    say(f"{report.title}: {report.context.lead}")
    for name, value in report.latest.items():
        say(f"  {name:40} {value:.4g}, mean of the sites in the newest round")
    say(f"report: {page}")
    return 0


COMMAND = Command(
    "write what a run has shown so far, as a page; also while it goes on", run, arguments
)
