"""The supervisor of a study's processes, and its files for systemd and for containers."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from healthfm_core.errors import RunError
from healthfm_core.federation.environment import supervised
from healthfm_core.supervision import Program, Supervision
from healthfm_server.deploy.study_folder import LOOPBACK, StudyFolder
from healthfm_server.deploy.study_process import PROCESSES

START_TIMEOUT_S: Final = 90.0

_CONTAINER: Final = """# podman build -f Containerfile -t healthfm-server .   (beside the wheel)
# podman run --ulimit nofile=65536 -v ./study:/study:Z -p {port}:{port} healthfm-server
FROM docker.io/library/python:3.11-slim
COPY *.whl constraints.txt /wheels/
RUN pip install --no-cache-dir -c /wheels/constraints.txt /wheels/*.whl && useradd healthfm
USER healthfm
ENV HEALTHFM_STUDY=/study
EXPOSE {port}
CMD ["healthfm-server", "up", "--foreground"]
"""


def supervision(study: StudyFolder) -> Supervision:
    """Return the supervisor of `study`."""
    base = [sys.executable, "-m", "healthfm_server.deploy.study_process"]
    folder = str(study.path.resolve())
    programs = [Program(name, [*base, name, "--study", folder]) for name in PROCESSES]
    return Supervision(study.process, programs, supervised(study.process))


def write_units(study: StudyFolder) -> Iterator[Path]:
    """Write a systemd unit and a container file, and yield where they are."""
    container = _CONTAINER.format(port=study.settings.port)
    title = f"HealthFM study {study.settings.study}"
    yield from supervision(study).write_units("healthfm-server", title, container)


def wait_until_up(study: StudyFolder, timeout_s: float = START_TIMEOUT_S) -> None:
    """Return when SuperLink and gateway both take connections.

    Raises:
        RunError: One did not in time (HF-721).
    """
    settings = study.settings
    gateway = LOOPBACK if settings.bind in ("0.0.0.0", "::") else settings.bind
    until = time.monotonic() + timeout_s
    for name, address in (
        ("superlink", (LOOPBACK, settings.superlink_port)),
        ("gateway", (gateway, settings.port)),
    ):
        while not _answers(address):
            if time.monotonic() > until:
                raise RunError(
                    721,
                    where=f"process {name}",
                    seen=f"nothing answers at {address[0]}:{address[1]}",
                    wanted=f"it is up within {timeout_s:.0f} s",
                    do=f"Read {study.process / name}.log; another program may have the port",
                )
            time.sleep(0.2)


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True
