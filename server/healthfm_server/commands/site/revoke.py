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
    from healthfm_server.deploy.flower_superlink import forget_node

    study = study_of(given)
    site = study.sites.revoke(given.site)
    authority = study.authority()
    authority.revoke(given.site)
    study.publish(authority)
    forget_node(study.database, site.node_id)
    study.audit("command").note("site revoked", {"site": site.name})
    say(f"site {site.name} is shut out: its next call is refused")
    return 0


COMMAND = Command("shut a site out", run, arguments)
