"""A supervisor that keeps a set of processes alive: its files, and calls of its commands.

The supervisor is `supervisor <https://supervisord.org>`_; with systemd, one unit starts it
and restarts it. Why not our own, and why this one: docs/decisions/0015-who-restarts-what.md.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from healthfm_core.errors import RunError
from healthfm_core.service_units import Service, quadlet, systemd_unit
from healthfm_core.supervised_start import LOOPING, last_words, recent_ends

CONFIG: Final = "supervisord.conf"
_SOCKET_LENGTH: Final = 100
"""Longest path of a socket that every system accepts."""

_HEAD: Final = """; Written by HealthFM; the next start writes it anew.
[supervisord]
logfile = {folder}/supervisord.log
logfile_maxbytes = 10MB
logfile_backups = 3
pidfile = {folder}/supervisord.pid
childlogdir = {folder}
directory = {here}
umask = 077
environment = {environment}

[unix_http_server]
file = {socket}
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://{socket}
"""

_PROGRAM: Final = """
[program:{name}]
command = {command}
priority = {priority}
autostart = true
autorestart = true
startsecs = 1
startretries = 1000000
stopasgroup = true
killasgroup = true
stopwaitsecs = 15
redirect_stderr = true
stdout_logfile = {folder}/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""


@dataclass(frozen=True)
class Program:
    """A process to be kept alive.

    Attributes:
        name: A word.
        command: What to start, and its arguments.
    """

    name: str
    command: Sequence[str]


@dataclass(frozen=True)
class Supervision:
    """The supervisor of one folder.

    Attributes:
        folder: Takes its files and the processes' logs.
        programs: What it keeps alive, in the order they start.
        environment: Set for all of them, beside what the supervisor was started with.
    """

    folder: Path
    programs: Sequence[Program]
    environment: Mapping[str, str]

    @property
    def config(self) -> Path:
        """Where the supervisor's configuration is."""
        return self.folder / CONFIG

    def write(self) -> None:
        """Write the supervisor's configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = _escaped(str(self.folder.resolve()))
        environment = ",".join(
            f'{key}="{_escaped(_escaped(value))}"'  # it expands these, and logs' names, twice
            for key, value in sorted(self.environment.items())
        )
        text = _HEAD.format(
            folder=folder,
            here=folder,
            environment=environment,
            socket=_escaped(str(socket_of(self.folder))),
        )
        for priority, program in enumerate(self.programs, start=1):
            command = _escaped(shlex.join(program.command))
            text += _PROGRAM.format(
                name=program.name, command=command, priority=priority, folder=_escaped(folder)
            )
        self.config.write_text(text, encoding="utf-8")

    def service(self, name: str, description: str, command: Sequence[str]) -> Service:
        """Return what an operating system needs to run the supervisor in the foreground.

        The folder that it owns, the study's or site's, is the one above the supervisor's.

        Args:
            name: Of the unit.
            description: One line for an administrator.
            command: One of this installation's that ends in `become`, and its arguments.
        """
        config = str(self.config.resolve())
        return Service(
            name=name,
            description=description,
            folder=self.folder.resolve().parent,
            command=(_tool(command[0]), *command[1:]),
            health=("supervisorctl", "-c", config, "status"),
            socket=socket_of(self.folder),
        )

    def write_units(self, service: Service) -> Iterator[Path]:
        """Write the supervisor's files, a systemd unit and a Quadlet; yield the last two."""
        self.write()
        for suffix, text in (("service", systemd_unit(service)), ("container", quadlet(service))):
            path = self.folder / f"{service.name}.{suffix}"
            path.write_text(text, "utf-8")
            yield path

    def start(self) -> None:
        """Start the supervisor in the background, unless it runs; it starts the programs.

        Raises:
            RunError: It did not start (HF-721).
        """
        self.write()
        if self.runs():
            return
        done = self._call("supervisord", "-c", str(self.config))
        if done.returncode != 0:
            raise _not_started(self.folder, done.stdout + done.stderr)

    def become(self) -> None:
        """Become the supervisor, in the foreground, as a container or systemd wants it.

        One that runs in the background already is stopped: two would want the same ports.

        Raises:
            RunError: It does not stop (HF-721).
        """
        self.stop()
        self.write()
        command = _tool("supervisord")
        os.execv(command, [command, "-n", "-c", str(self.config)])

    def runs(self) -> bool:
        """Whether the supervisor answers."""
        return self._call("supervisorctl", "-c", str(self.config), "pid").returncode == 0

    def stop(self, timeout_s: float = 60.0) -> None:
        """Stop every process and the supervisor; return when they have ended.

        Raises:
            RunError: It still runs (HF-721).
        """
        done = self._call("supervisorctl", "-c", str(self.config), "pid")
        if done.returncode != 0:
            return
        self._call("supervisorctl", "-c", str(self.config), "shutdown")
        until = time.monotonic() + timeout_s
        while _is_alive(int(done.stdout)):
            if time.monotonic() > until:
                raise _not_started(self.folder, "the supervisor does not stop")
            time.sleep(0.1)

    def states(self) -> dict[str, str]:
        """Return the state of each program, in the supervisor's words; empty where it is down.

        One that ends again and again is said to: the supervisor calls it running in between.
        """
        done = self._call("supervisorctl", "-c", str(self.config), "status")
        rows = [line.split(None, 2) for line in done.stdout.splitlines()]
        names = {program.name for program in self.programs}
        states = {row[0]: " ".join(row[1:]) for row in rows if len(row) > 1 and row[0] in names}
        ends = recent_ends(self.folder / "supervisord.log", names)
        for name in states.keys() & ends.keys():
            if ends[name] >= LOOPING:
                why = last_words(self.folder / f"{name}.log")
                states[name] = f"ENDS AGAIN AND AGAIN ({ends[name]} times in two minutes): {why}"
        return states

    def wait_until_running(self, timeout_s: float = 300.0) -> None:
        """Return when every program runs.

        Raises:
            RunError: One does not, or ends again and again (HF-721).
        """
        until = time.monotonic() + timeout_s
        while True:
            states = self.states()
            idle = [p.name for p in self.programs if not states.get(p.name, "").startswith("RUN")]
            if not idle:
                return
            loops = any(states.get(name, "").startswith("ENDS") for name in idle)
            if loops or time.monotonic() > until:
                raise RunError(
                    721,
                    where=f"process {idle[0]}",
                    seen=states.get(idle[0], "the supervisor does not answer"),
                    wanted="it starts and stays",
                    do=f"Read {self.folder / idle[0]}.log",
                )
            time.sleep(0.2)

    def _is_of_this_folder(self) -> bool:
        """Whether the configuration was written here: a copy's would speak to the original."""
        if not self.config.is_file():
            return False
        line = f"file = {_escaped(str(socket_of(self.folder)))}"
        return line in self.config.read_text("utf-8").splitlines()

    def _call(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        if not self._is_of_this_folder():
            return subprocess.CompletedProcess([tool], 1, "", "it was never started")
        command = [_tool(tool), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def die_with_supervisor(folder: Path) -> None:
    """End this process when its supervisor has ended, so that a new one finds the ports free.

    A process that started slowly may find that its supervisor has ended and another has started: so
    the parent has to be the one whose process id is in the folder.

    Args:
        folder: The supervisor's; where it never ran, any parent will do.
    """
    parent = os.getppid()
    if not is_supervisor(parent, folder):
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_supervisor(process: int, folder: Path) -> bool:
    """Return whether a process is the supervisor of `folder`, by the process id in its pid file."""
    try:
        return int((folder / "supervisord.pid").read_text()) == process
    except (OSError, ValueError):  # it never ran, or is writing it just now
        return True


def socket_of(folder: Path) -> Path:
    """Return the supervisor's socket: in its folder, or elsewhere where that path is too long."""
    plain = folder.resolve() / "supervisor.sock"
    if len(str(plain)) <= _SOCKET_LENGTH:
        return plain
    short = hashlib.sha256(str(plain).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"healthfm-{short}.sock"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _not_started(folder: Path, seen: str) -> RunError:
    return RunError(
        721,
        where=str(folder),
        seen=" ".join(seen.split())[:300] or "it says nothing",
        wanted="the supervisor starts and stops when told to",
        do=f"Read {folder}/supervisord.log",
    )
