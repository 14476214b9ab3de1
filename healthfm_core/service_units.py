"""What an operating system starts a supervisor from: a systemd unit, and a Quadlet for Podman.

Both run under the account that owns the folder, write nowhere else, and keep nothing that the
processes do not need: `systemd-analyze security` puts the unit at 1.5, where 10 is open to all.
"""

from __future__ import annotations

import pwd
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

IMAGE: Final = "localhost/healthfm:latest"
"""What docs/install.md calls the image that is built at the site."""

_UNIT: Final = """# Copy to /etc/systemd/system/{name}.service, then: systemctl enable --now {name}
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target

[Service]
# The account that owns {folder} and the keys in it.
User={user}
WorkingDirectory={working}
ExecStart={command}
Restart=always
RestartSec=2
KillMode=control-group
UMask=0077
LimitNOFILE=65536
# It writes in its own folder alone.
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={folder}
PrivateTmp={private_tmp}
# Where there is a GPU: PrivateDevices=no
PrivateDevices=yes
PrivateUsers=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
# The supervisor's own socket.
SystemCallFilter=@chown
SystemCallErrorNumber=EPERM
# No MemoryDenyWriteExecute: PyTorch writes machine code for the processor it finds.

[Install]
WantedBy=multi-user.target
"""

_QUADLET: Final = """# Copy to ~/.config/containers/systemd/{name}.container of the account that
# owns {folder}, then, as that account:
#   loginctl enable-linger && systemctl --user daemon-reload && systemctl --user start {name}
[Unit]
Description={description}

[Container]
ContainerName={name}
Image={image}
Exec={command}
{mounts}
{port}
# Inside, as outside, the account that owns the folder.
UserNS=keep-id
User=%U
Group=%G
ReadOnly=true
Tmpfs=/tmp
NoNewPrivileges=true
DropCapability=all
PodmanArgs=--ulimit nofile=65536:65536
HealthCmd={health}
HealthInterval=30s
HealthStartPeriod=3m
HealthRetries=3

[Service]
Restart=always
RestartSec=2
TimeoutStartSec=300

[Install]
WantedBy=default.target
"""


@dataclass(frozen=True)
class Service:
    """A supervisor as the operating system is to run it.

    Attributes:
        name: Of the unit, as ``healthfm-site``.
        description: One line for an administrator.
        folder: The study's or site's: the only one that is written to.
        command: What stays in the foreground: it stops the supervisor that runs in the background,
            if one does, and becomes another. In a unit its first word is the whole path.
        health: A command that ends with 0 when every process runs.
        socket: Of the supervisor; where it lies in /tmp, /tmp has to be everybody's.
        reads: Folders of the host that a container has to see, at the same place.
        port: Published by a container, None where nobody calls.
    """

    name: str
    description: str
    folder: Path
    command: Sequence[str]
    health: Sequence[str]
    socket: Path
    reads: Sequence[Path] = ()
    port: int | None = None


def owner_of(folder: Path) -> str:
    """Return the name of the account that owns `folder`, its number where it has no name."""
    number = folder.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def say_of_root(folder: Path) -> str | None:
    """Return a sentence where the processes would be root's, as `folder` is; None elsewhere."""
    if owner_of(folder) != "root":
        return None
    return (
        f"{folder} belongs to root, so its processes run as root: better give it to an account "
        "that does nothing else (docs/install.md)"
    )


def systemd_unit(service: Service) -> str:
    """Return a systemd unit that starts the supervisor, and again whenever it ends."""
    own = service.socket.resolve().is_relative_to(service.folder.resolve())
    return _UNIT.format(
        name=service.name,
        description=service.description,
        folder=in_unit(str(service.folder.resolve())),
        working=str(service.folder.resolve()).replace("%", "%%"),
        user=owner_of(service.folder),
        command=" ".join(map(in_unit, service.command)),
        private_tmp="yes" if own else "no",
    )


def quadlet(service: Service) -> str:
    """Return a Quadlet: Podman runs the supervisor in a container, without root, read-only.

    Folders have the same path inside as outside, so that one ``join.yaml`` serves both.
    """
    folder = service.folder.resolve()
    mounts = [f"Volume={folder}:{folder}:Z"]
    mounts += [f"Volume={path}:{path}:ro,z" for path in service.reads]
    return _QUADLET.format(
        name=service.name,
        description=service.description,
        folder=folder,
        image=IMAGE,
        command=shlex.join((Path(service.command[0]).name, *service.command[1:])),
        mounts="\n".join(mounts),
        port=f"PublishPort={service.port}:{service.port}" if service.port else "# Nobody calls it.",
        health=shlex.join(service.health),
    )


def in_unit(word: str) -> str:
    """Write a word as systemd reads it: its percent signs are specifiers, spaces end it."""
    text = word.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
    return f'"{text}"' if " " in text else text
