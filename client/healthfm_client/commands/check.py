"""``check STORE``: every row held against what MEDS and HealthFM want; ``--quality``: its sense."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_client.site.private_file import check_stays, write_private
from healthfm_client.site_store.quality.checks import QualityCheck
from healthfm_client.site_store.quality.limits import QualityLimits, packaged
from healthfm_client.site_store.quality.quality_file import QualityReport, check_and_keep
from healthfm_client.site_store.quality.quality_page import quality_page
from healthfm_core.command_line import Command
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.errors import ConfigError
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "store", type=Path, nargs="?", metavar="STORE", help="a store, or a folder of stores"
    )
    parser.add_argument(
        "--quality",
        action="store_true",
        help="plausible values, times and sexes, completeness, codes not mapped, and what has "
        "drifted since the store was last checked and read in anew",
    )
    parser.add_argument("--limits", type=Path, metavar="FILE", help="limits of your own, YAML")
    parser.add_argument(
        "--show-limits", action="store_true", help="print the limits used, to be changed, and end"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page of it, too; a new file")


def run(given: Namespace) -> int:
    """Check; the first fault found is the error."""
    if given.show_limits:
        say(packaged().rstrip("\n"))
        return 0
    if given.store is None or (not given.quality and (given.limits or given.json or given.html)):
        raise ConfigError(
            103,
            where="check",
            seen="no store" if given.store is None else "an option of --quality without it",
            wanted="a store, and --quality for --limits, --json and --html",
            do="Give both",
        )
    if given.html is not None:
        check_stays(given.html)
    limits = QualityLimits.read(given.limits) if given.quality else None
    reports = []
    for path in stores_below(given.store):
        store = SiteStore.open(path)
        store.check()
        aside = store.set_aside
        if not given.json:
            say(f"{path}: sound" + (f", but {aside.sentence()}" if aside.is_much() else ""))
        if limits is not None:
            reports.append(check_and_keep(path, limits))
    _show(reports, given)
    return 0


def _show(reports: list[QualityReport], given: Namespace) -> None:
    if given.html is not None:
        write_private(given.html, quality_page(reports))
    if given.json:
        say(json.dumps([report.as_json() for report in reports], indent=2, ensure_ascii=False))
        return
    for report in reports:
        say(f"{report.store}: {report.sentence()}")
        for check in report.failed:
            say(f"  {_line(check)}")


def _line(check: QualityCheck) -> str:
    found = f"{check.share:.1%} ({check.found:,} of {check.rows:,})"
    if check.name.startswith("drift"):
        found = f"{check.share:.0%}"
    what = f"{check.category:12}  {check.name}  {check.field}: {check.description}"
    return f"{what}: {found}, at most {check.threshold:.1%}"


COMMAND = Command("check every row of a store, and the quality of its data", run, arguments)
