"""``init``, ``rotate`` and ``token``: a study's certificates and who may ask it what."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from healthfm_server.commands import Command, study_of, takes_study
from healthfm_server.deploy.access_tokens import ROLES
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.deploy.study_supervision import write_units


def _configure_init(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--name", required=True, help="the study's name")
    parser.add_argument(
        "--host",
        dest="hosts",
        action="append",
        required=True,
        help="name or address by which sites reach this server; may be given again",
    )
    fields = StudySettings.model_fields
    for name in ("port", "superlink_port"):
        field = fields[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=field.default,
            help=f"{field.description} (default: {field.default})",
        )
    parser.add_argument("--bind", default=fields["bind"].default, help=fields["bind"].description)


def init(arguments: Namespace) -> Iterator[str]:
    """Make a study folder."""
    settings = StudySettings(
        study=arguments.name,
        hosts=tuple(arguments.hosts),
        bind=arguments.bind,
        port=arguments.port,
        superlink_port=arguments.superlink_port,
    )
    study = StudyFolder.create(arguments.folder, settings)
    yield f"study {settings.study} is in {arguments.folder}; its address is {settings.url}"
    yield f"root fingerprint, to be read to each site: {study.authority().fingerprint}"
    for path in write_units(study):
        yield f"written for the administrator: {path}"
    yield f"next: healthfm-server up --study {arguments.folder}"


def _configure_rotate(parser: ArgumentParser) -> None:
    takes_study(parser)
    parser.add_argument(
        "what",
        choices=("server", "root", "retire"),
        help="server: a new server certificate; root: a new root that signs from now on; "
        "retire: trust no older root any more",
    )


def rotate(arguments: Namespace) -> Iterator[str]:
    """Change a certificate of a running study; what runs takes it up within a second."""
    study = study_of(arguments)
    authority = study.authority()
    if arguments.what == "root":
        authority.rotate()
        yield f"new root fingerprint: {authority.fingerprint}"
        yield "next: sign each site's kit again (site sign --renew), then: rotate retire"
    if arguments.what == "retire":
        for row in authority.retire():
            yield f"cut off: {row.role} {row.who}, certificate of the old root"
    study.issue_server(authority, study.settings.hosts)
    study.publish(authority)
    study.audit("command").note(f"rotate {arguments.what}", {"root": authority.fingerprint})
    yield f"new server certificate for {', '.join(study.settings.hosts)}"


def _configure_token(parser: ArgumentParser) -> None:
    takes_study(parser)
    parser.add_argument("name", help="whose token it is")


def _configure_new_token(parser: ArgumentParser) -> None:
    _configure_token(parser)
    parser.add_argument("--role", choices=ROLES, default="viewer", help="what it permits")


def add_token(arguments: Namespace) -> Iterator[str]:
    """Give a token; it is shown this once."""
    study = study_of(arguments)
    token = study.tokens.add(arguments.name, arguments.role)
    study.audit("command").note("token added", {"name": arguments.name, "role": arguments.role})
    yield token


def revoke_token(arguments: Namespace) -> Iterator[str]:
    """Take a token back."""
    study = study_of(arguments)
    study.tokens.revoke(arguments.name)
    study.audit("command").note("token revoked", {"name": arguments.name})
    yield f"the token of {arguments.name} is refused from now on"


def list_tokens(arguments: Namespace) -> Iterator[str]:
    """Name the tokens."""
    for token in study_of(arguments).tokens.all().values():
        yield f"{token.name}: {token.role}, since {token.made}"


COMMANDS = (
    Command("init", "make a study: authority, certificates, settings", _configure_init, init),
    Command("rotate", "change a certificate of a running study", _configure_rotate, rotate),
    Command("token add", "give somebody a token", _configure_new_token, add_token),
    Command("token revoke", "take a token back", _configure_token, revoke_token),
    Command("token list", "name the tokens", takes_study, list_tokens),
)
