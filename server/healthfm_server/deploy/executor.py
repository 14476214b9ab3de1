"""The executor's process: Flower's own, which starts a process for each ServerApp."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from healthfm_server.deploy.study_folder import LOOPBACK, StudyFolder


def serve(study: StudyFolder) -> None:
    """Become Flower's executor; it ends with the supervisor.

    It looks for the ServerApp's command on the PATH. Under systemd, or where nobody has activated
    the environment, our folder is not on it, so it is put first.
    """
    here = Path(sys.executable).parent
    command = [
        str(here / "flower-superexec"),
        "--insecure",
        "--runtime-api-address",
        f"{LOOPBACK}:{study.settings.superlink_port}",
        "--superexec-auth-secret-file",
        str(study.superexec_secret.resolve()),
        "--parent-pid",
        str(os.getppid()),
    ]
    path = os.pathsep.join((str(here), os.environ.get("PATH", os.defpath)))
    os.execve(command[0], command, {**os.environ, "PATH": path})
