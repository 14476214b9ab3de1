"""``rotate``: change the certificates of a running study."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study


def arguments(parser: ArgumentParser) -> None:
    """Name what is changed."""
    takes_study(parser)
    parser.add_argument(
        "what",
        choices=("server", "root", "retire"),
        help="server: a new server certificate; root: a new root that signs from now on; "
        "retire: trust no older root any more",
    )


def run(given: Namespace) -> int:
    """Change a certificate; the running processes use the new one within a second."""
    study = study_of(given)
    authority = study.authority()
    if given.what == "root":
        authority.rotate()
        say(f"new root fingerprint: {authority.fingerprint}")
        say("next: sign each site's kit again (site sign --renew), then: rotate retire")
    if given.what == "retire":
        for row in authority.retire():
            say(f"cut off: {row.role} {row.who}, certificate of the old root")
    study.issue_server(authority, study.settings.hosts)
    study.publish(authority)
    study.audit("command").note(f"rotate {given.what}", {"root": authority.fingerprint})
    say(f"new server certificate for {', '.join(study.settings.hosts)}")
    return 0


COMMAND = Command("change a certificate of a running study", run, arguments)
