"""The supervisor of a study's processes, and its files for systemd and Podman."""

from __future__ import annotations

import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from healthfm_core.errors import RunError
from healthfm_core.federation.environment import supervised
from healthfm_core.supervised_start import refuse_copy, refuse_taken_port
from healthfm_core.supervision import Program, Supervision
from healthfm_server.deploy.study_folder import LOOPBACK, SETTINGS, StudyFolder
from healthfm_server.deploy.study_process import PROCESSES

START_TIMEOUT_S: Final = 300.0
"""A busy machine takes minutes to start them; what ends again and again is said sooner."""


def supervision(study: StudyFolder) -> Supervision:
    """Return the supervisor of `study`."""
    base = [sys.executable, "-m", "healthfm_server.deploy.study_process"]
    folder = str(study.path.resolve())
    programs = [Program(name, [*base, name, "--study", folder]) for name in PROCESSES]
    return Supervision(study.process, programs, supervised(study.process))


def write_units(study: StudyFolder) -> Iterator[Path]:
    """Write a systemd unit and a Quadlet, and yield where they are."""
    command = ("healthfm-server", "up", "--study", str(study.path.resolve()), "--foreground")
    title = f"HealthFM study {study.settings.study}"
    service = supervision(study).service("healthfm-server", title, command)
    yield from supervision(study).write_units(replace(service, port=study.settings.port))


def wait_until_up(study: StudyFolder, timeout_s: float = START_TIMEOUT_S) -> None:
    """Return when the study's own SuperLink and gateway answer, and all its processes run.

    Raises:
        RunError: One did not in time, or ends again and again (HF-721).
    """
    settings = study.settings
    gateway = LOOPBACK if settings.bind in ("0.0.0.0", "::") else settings.bind
    until = time.monotonic() + timeout_s
    for name, address, answers in (
        ("superlink", (LOOPBACK, settings.superlink_port), _is_our_superlink),
        ("gateway", (gateway, settings.port), _is_our_gateway),
    ):
        while not answers(study, address):
            if "ENDS" in supervision(study).states().get(name, ""):
                break
            if time.monotonic() > until:
                raise RunError(
                    721,
                    where=f"process {name}",
                    seen=f"nothing answers at {address[0]}:{address[1]}",
                    wanted=f"it is up within {timeout_s:.0f} s",
                    do=f"Read {study.process / name}.log; another program may have the port",
                )
            time.sleep(0.2)
    supervision(study).wait_until_running()


def refuse_to_start_beside(study: StudyFolder) -> None:
    """Refuse a start that cannot last, before anything runs.

    Raises:
        RunError: Another program has a port (HF-721), or the folder is a copy of one that is
            there still (HF-724).
    """
    settings, supervised = study.settings, supervision(study)
    refuse_copy(supervised.folder, "secret/control")
    if supervised.runs():
        return
    do = f"End that program, or write another {{}} into {study.path / SETTINGS}"
    refuse_taken_port(LOOPBACK, settings.superlink_port, do.format("superlink_port"))
    refuse_taken_port(settings.bind, settings.port, do.format("port; sites have it in their kits"))


def _is_our_superlink(study: StudyFolder, address: tuple[str, int]) -> bool:
    """Whether what answers there takes this study's own token."""
    from healthfm_server.deploy.flower_superlink import Control  # here: it loads Flower

    control = Control(address[1], study.control_token())
    try:
        control.live("")
    except httpx.HTTPError:
        return False
    finally:
        control.close()
    return True


def _is_our_gateway(study: StudyFolder, address: tuple[str, int]) -> bool:
    """Whether what answers there shows this study's server certificate, and has its key."""
    context = ssl.create_default_context(cafile=study.server / "trust.pem")
    context.check_hostname = False  # it is the certificate itself that is compared
    identity = (study.server / "identity.pem").read_bytes()
    ours = x509.load_pem_x509_certificates(identity)[0].public_bytes(Encoding.DER)
    try:
        with (
            socket.create_connection(address, timeout=5.0) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return secure.getpeercert(binary_form=True) == ours
    except OSError:
        return False
