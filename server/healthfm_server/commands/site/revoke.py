"""``site revoke``: shut a site out of a running study."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study


def arguments(parser: ArgumentParser) -> None:
    """Name the site."""
    takes_study(parser)
    parser.add_argument("site", help="the site's name")


def run(given: Namespace) -> int:
    """Shut a site out, at once."""
    from healthfm_server.deploy.admission import revoke_site  # here: it loads Flower

    study = study_of(given)
    site = revoke_site(study, given.site)
    study.audit("command").note("site revoked", {"site": site.name})
    say(f"site {site.name} is shut out: its next call is refused")
    return 0


COMMAND = Command("shut a site out", run, arguments)
