"""``metrics``: this site's figures for Prometheus, printed or written to a file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from healthfm_client.commands import site_of, takes_site
from healthfm_core.command_line import Command
from healthfm_core.stdout import say

if TYPE_CHECKING:
    from healthfm_client.privacy_accounting.site_privacy import SitePrivacy


def arguments(parser: ArgumentParser) -> None:
    """Add the file."""
    takes_site(parser)
    parser.add_argument(
        "--file",
        type=Path,
        metavar="NAME.prom",
        help="write them to this file, for the textfile collector of node_exporter",
    )


def run(given: Namespace) -> int:
    """Say or write them."""
    from healthfm_client.site.site_metrics import site_metrics
    from healthfm_client.site.site_policy import SitePolicy
    from healthfm_client.site_status import site_status
    from healthfm_core.trust import files
    from healthfm_core.trust.certificates import now_utc

    home = site_of(given)
    figures = site_metrics(
        site_status(home),
        home.kit().certificate.not_valid_after_utc,
        home.log().entries(),
        _budget(SitePolicy.read(home.policy).privacy),
        now_utc(),
    )
    if given.file is None:
        say(figures.decode().rstrip("\n"))
    else:
        files.replace(given.file, figures)
        given.file.chmod(files.PUBLIC)  # its reader is another account, whatever the umask
    return 0


def _budget(rules: SitePrivacy) -> dict[str, float | None]:
    """Return what the ledger says; nothing is spent where there is none."""
    if rules.open_ledger() is None:
        return {"spent": None, "limit": rules.epsilon_max}
    from healthfm_client.privacy_accounting.ledger_report import LedgerReport

    report = LedgerReport.of(rules)
    return {"spent": report.epsilon, "limit": report.epsilon_max}


COMMAND = Command("this site's figures, as Prometheus reads them", run, arguments)
