"""``doctor``: whether this machine, this site and the way to the study will do."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from healthfm_client.commands import takes_site
from healthfm_client.doctor import connectivity, site_files
from healthfm_client.doctor.findings import DoctorFinding, findings_of
from healthfm_client.site.site_home import SiteHome
from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")


def run(given: Namespace) -> int:
    """Say what was found; the exit code is the first failure's, 0 where there is none."""
    findings = []
    for finding in examine(SiteHome(given.site)):
        findings.append(finding)
        if not given.json:
            say(f"{finding.level}  {finding.name:<11} {finding.seen}")
            if finding.do:
                say(f"{'':<18}do: {finding.do}")
    if given.json:
        say(json.dumps([_plain(finding) for finding in findings], indent=2))
    errors = [finding.error for finding in findings if finding.error is not None]
    return errors[0].exit_code if errors else 0


def examine(home: SiteHome) -> Iterator[DoctorFinding]:
    """Yield all findings; a machine where nobody enrolled is looked at without a site."""
    from healthfm_client.doctor import this_machine  # here: it loads PyTorch

    yield from findings_of("machine", lambda: this_machine.look(home.path))
    if home.enrolment() is None and not home.keys.exists():
        do = "healthfm-client enroll --study URL --name NAME, then look again"
        yield DoctorFinding("enrolment", "warn", f"no site in {home.path}", do)
        return
    yield from findings_of("enrolment", lambda: site_files.enrolment(home))
    yield from findings_of("log", lambda: site_files.log(home))
    yield from findings_of("policy", lambda: site_files.policy(home))
    yield from findings_of("modes", lambda: site_files.modes(home))
    yield from findings_of("data", lambda: site_files.data(home))
    yield from findings_of("connection", lambda: connectivity.look(home))


def _plain(finding: DoctorFinding) -> dict[str, str | None]:
    code = None if finding.error is None else finding.error.code
    return {
        "name": finding.name,
        "level": finding.level,
        "seen": finding.seen,
        "do": finding.do,
        "code": code,
    }


COMMAND = Command(
    "check this machine, this site's files and the connection to the study", run, arguments
)
