"""``privacy FILE``: what this site's people have been promised, and what is left of it."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("policy", type=Path, metavar="SITE_YAML", help="the site's policy")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with a plot")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(given: Namespace) -> int:
    """Verify the ledger and say what each study cost, all together, and what is left."""
    from healthfm_client.privacy_accounting.ledger_report import LedgerReport, report_page
    from healthfm_client.site.site_policy import (
        SitePolicy,  # here: the accountants take seconds to load
    )

    report = LedgerReport.of(SitePolicy.read(given.policy).privacy)
    if given.html is not None:
        given.html.write_text(report_page(report), encoding="utf-8")
        say(f"{given.html}: what the site's people have been promised")
    elif given.json:
        say(json.dumps(report.to_json(), indent=1))
    else:
        for line in report.lines():
            say(line)
    return 0


COMMAND = Command(
    "show the privacy budget that studies have spent, and what is left", run, arguments
)
