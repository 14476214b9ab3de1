"""What goes wrong around the processes: link, disk, clock, a second coordinator, Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from healthfm_core.supervision import Supervision
from healthfm_server.deploy.flower_superlink import Control
from healthfm_server.deploy.run_orders import RunOrder
from tests.end_to_end.link import bad_link

CLOCK = Path(__file__).with_name("clock.c")
ROOM_BYTES = 256 * 1024
SECOND_RECONCILER = """
import sys; from pathlib import Path
from healthfm_server.deploy.reconciler import serve
from healthfm_server.deploy.study_folder import StudyFolder
serve(StudyFolder.open(Path(sys.argv[1])))
"""


def slow_link(federation, seconds: float) -> None:
    """Delay each packet by 100 ms each way, and lose one in a hundred."""
    with bad_link(100.0, 0.01):
        time.sleep(seconds)


def cut_link(federation, seconds: float) -> None:
    """Lose every packet."""
    with bad_link(0.0, 1.0):
        time.sleep(seconds)


def full_disk(path: Path, supervised: Supervision, seconds: float) -> None:
    """Move a folder to a small disk of its own, fill that, make room again, and move it back."""
    with small_disk(path, supervised):
        supervised.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:  # what is pruned or rotated makes room: fill it again
            fill(path / "full")
            time.sleep(0.5)
        (path / "full").unlink()
        time.sleep(1.0)
        supervised.stop()
    supervised.start()


def fill(path: Path) -> None:
    """Write until nothing more can be written."""
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@contextmanager
def small_disk(path: Path, supervised: Supervision) -> Iterator[None]:
    """Let a folder lie on a disk with little room, while its processes are stopped."""
    supervised.stop()
    aside = path.with_name(f"{path.name}-aside")
    path.rename(aside)
    path.mkdir()
    used = sum(file.stat().st_size + 4096 for file in aside.rglob("*") if file.is_file())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={2 * used + ROOM_BYTES}", "none", str(path)]
    subprocess.run(mount, check=True)
    shutil.copytree(aside, path, dirs_exist_ok=True, ignore=_sockets)
    try:
        yield
    finally:
        shutil.rmtree(aside)
        shutil.copytree(path, aside, ignore=_sockets)
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()
        aside.rename(path)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]


def wrong_clock(supervised: Supervision, seconds: float, ahead_s: int) -> None:
    """Let a site's processes run with a clock that is ahead, then with the right one."""
    library = supervised.folder / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(CLOCK), "-ldl"], check=True)
    supervised.stop()
    wrong = {"LD_PRELOAD": str(library), "CLOCK_AHEAD_S": str(ahead_s)}
    os.environ.update(wrong)
    try:
        supervised.start()
    finally:
        for name in wrong:
            del os.environ[name]
    time.sleep(seconds)
    supervised.stop()
    supervised.start()


def second_coordinator(federation, seconds: float) -> None:
    """Start a second reconciler for the study, and submit the run that goes on a second time."""
    running = [o for o in RunOrder.all(federation.study.runs) if o.status().state == "running"]
    if len(running) != 1:
        raise AssertionError("the run ended too soon for a second one: ask for more --rounds")
    order = running[0]
    command = [sys.executable, "-c", SECOND_RECONCILER, str(federation.study.path.resolve())]
    second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if second.returncode == 0 or "HF-724" not in second.stderr:
        raise AssertionError(f"a second reconciler was let in: {second.stderr}")
    settings = federation.study.settings
    control = Control(settings.superlink_port, federation.study.control_token())
    given = {
        "config": order.config().model_dump_json(),
        "folder": str(order.folder.resolve()),
        "resume": True,
        "nodes": order.nodes,
        "study": str(federation.study.path.resolve()),
    }
    number = control.start(given, "0")
    until = time.monotonic() + seconds
    while (found := control.run(number)) is None or found.status != "finished":
        if time.monotonic() > until:
            raise AssertionError("a second ServerApp works in the run's folder")
        time.sleep(0.5)
    if "HF-724" not in found.details:
        raise AssertionError(f"a second ServerApp ended with {found.details}")


def interrupted(supervised: Supervision) -> None:
    """Press Ctrl-C where a supervisor runs in the foreground, and start it again."""
    process = int((supervised.folder / "supervisord.pid").read_text())
    os.kill(process, signal.SIGINT)
    while Path(f"/proc/{process}").exists():
        time.sleep(0.2)
    supervised.start()
