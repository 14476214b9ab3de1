"""The executor's process: Flower's own, which starts a process for each ServerApp."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from healthfm_server.deploy.study import LOOPBACK, StudyFolder


def serve(study: StudyFolder) -> None:
    """Become Flower's executor; it ends with the supervisor."""
    command = [
        str(Path(sys.executable).with_name("flower-superexec")),
        "--insecure",
        "--runtime-api-address",
        f"{LOOPBACK}:{study.settings.superlink_port}",
        "--superexec-auth-secret-file",
        str(study.superexec_secret.resolve()),
        "--parent-pid",
        str(os.getppid()),
    ]
    os.execv(command[0], command)
