"""The executor's process: Flower's own, which starts a process for each ServerApp."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from healthfm_server.deploy.study_folder import LOOPBACK, StudyFolder


def serve(study: StudyFolder) -> None:
    """Become Flower's executor; it ends with the supervisor.

    It starts ServerApps by a name, so ours comes first on the path: under systemd, or where nobody
    has activated the environment, there is none.
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
