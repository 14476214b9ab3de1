"""``init``: make a study folder."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pydantic import ValidationError

from healthfm_core.command_line import Command
from healthfm_core.config.study_statement import MOST_CHARACTERS, StudyStatement
from healthfm_core.errors import ConfigError
from healthfm_core.service_units import say_of_root
from healthfm_core.stdout import say
from healthfm_server.deploy.study_folder import SETTINGS, StudyFolder, StudySettings
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
    for name, field in StudyStatement.model_fields.items():
        said = f"{field.description}; people at the sites read it before they approve a run"
        parser.add_argument(f"--{name}", default="", help=said)


def run(given: Namespace) -> int:
    """Make a study folder."""
    settings = StudySettings(
        study=given.name,
        hosts=tuple(given.hosts),
        bind=given.bind,
        port=given.port,
        superlink_port=given.superlink_port,
        statement=_statement(given),
    )
    study = StudyFolder.create(given.folder, settings)
    say(f"study {settings.study} is in {given.folder}; its address is {settings.url}")
    say("to be read by telephone to each site that joins (the root's fingerprint in words):")
    say(f"  {study.authority().words}")
    for path in write_units(study):
        say(f"written for the administrator: {path}")
    if warning := say_of_root(given.folder):
        say(warning)
    if missing := settings.statement.unstated():
        say(f"people at the sites will read that no {', no '.join(missing)} is stated: fill in")
        say(f"  statement in {given.folder / SETTINGS}")
    say(f"next: healthfm-server up --study {given.folder}")
    return 0


def _statement(given: Namespace) -> StudyStatement:
    """Return what was given of the statement.

    Raises:
        ConfigError: It is too long, or cannot be printed (HF-102).
    """
    try:
        return StudyStatement(**{name: vars(given)[name] for name in StudyStatement.model_fields})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ConfigError(
            102,
            where=f"--{first['loc'][0]}",
            seen=str(first["msg"]),
            wanted=f"a sentence of {MOST_CHARACTERS} characters at most",
        ) from error


COMMAND = Command("make a study: authority, certificates, settings", run, arguments)
