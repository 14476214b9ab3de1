"""``init``: make a study folder."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.deploy.study_supervision import write_units


def arguments(parser: ArgumentParser) -> None:
    """Name the folder and what its ``study.yaml`` says."""
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


def run(given: Namespace) -> int:
    """Make a study folder."""
    settings = StudySettings(
        study=given.name,
        hosts=tuple(given.hosts),
        bind=given.bind,
        port=given.port,
        superlink_port=given.superlink_port,
    )
    study = StudyFolder.create(given.folder, settings)
    say(f"study {settings.study} is in {given.folder}; its address is {settings.url}")
    say(f"root fingerprint, to be read to each site: {study.authority().fingerprint}")
    for path in write_units(study):
        say(f"written for the administrator: {path}")
    say(f"next: healthfm-server up --study {given.folder}")
    return 0


COMMAND = Command("make a study: authority, certificates, settings", run, arguments)
