"""``rotate``: change the certificates of a running study."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.root_rotation import refuse_retirement


def arguments(parser: ArgumentParser) -> None:
    """Name what is changed."""
    takes_study(parser)
    parser.add_argument(
        "what",
        choices=("server", "root", "retire"),
        help="server: a new server certificate; root: a new root that signs from now on; "
        "retire: trust no older root any more, once every site has the new one",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="retire even where sites still stand on an older root: they need new kits by hand",
    )


def run(given: Namespace) -> int:
    """Change a certificate; the running processes use the new one within a second.

    Raises:
        TrustError: A site would be cut off (HF-839).
    """
    study = study_of(given)
    authority = study.authority()
    if given.what == "retire" and not given.force:
        refuse_retirement(study)
    if given.what == "root":
        authority.rotate()
        say(f"the new root, in words: {authority.words}")
        say("connected sites take it by themselves within minutes; status says how many have.")
        say("next, when all have it: healthfm-server rotate retire")
    if given.what == "retire":
        for row in authority.retire():
            say(f"cut off: {row.role} {row.who}, certificate of the old root")
    study.issue_server(authority, study.settings.hosts)
    study.publish(authority)
    study.audit("command").note(f"rotate {given.what}", {"root": authority.fingerprint})
    say(f"new server certificate for {', '.join(study.settings.hosts)}")
    return 0


COMMAND = Command("change a certificate of a running study", run, arguments)
