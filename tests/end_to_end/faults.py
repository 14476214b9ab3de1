"""What can happen to a federation on one machine, done to it for real."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from healthfm_client.runtime.site_supervision import supervision as site_supervision
from healthfm_client.site.site_folder import SiteFolder
from healthfm_core.supervision import Supervision
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.study_supervision import supervision as study_supervision
from tests.end_to_end import surroundings as around
from tests.end_to_end.deployed import SITES, Shell
from tests.end_to_end.proxy import Proxy

PATIENCE_S = 900.0


class Federation:
    """The study and its sites, up and running."""

    def __init__(self, shell: Shell, tunnel: Proxy) -> None:
        self.shell = shell
        self.tunnel = tunnel
        self.study = StudyFolder.open(shell.folder / "study")
        self.coordinator = study_supervision(self.study)
        self.sites = {name: site_supervision(SiteFolder(shell.folder / name)) for name in SITES}

    def kill(self, supervised: Supervision, name: str) -> None:
        """Kill -9 one of a supervisor's processes, once it is there."""
        while not (state := supervised.states().get(name, "")).startswith("RUNNING"):
            time.sleep(0.2)
        os.kill(int(state.split()[2].rstrip(",")), signal.SIGKILL)

    def kill_supervisor(self, supervised: Supervision) -> None:
        """Kill -9 a supervisor, as its own unit would find it, and start it as the unit would."""
        os.kill(int((supervised.folder / "supervisord.pid").read_text()), signal.SIGKILL)
        time.sleep(3.0)
        supervised.start()

    def kill_serverapp(self, patience_s: float = PATIENCE_S) -> None:
        """Kill -9 the process of the round loop."""
        until = time.monotonic() + patience_s
        while not (found := list(self._processes("flwr-serverapp"))):
            if time.monotonic() > until:
                raise TimeoutError("no ServerApp runs")
            time.sleep(0.2)
        for process in found:
            os.kill(process, signal.SIGKILL)

    def _processes(self, name: str) -> Iterator[int]:
        """Yield the processes of this deployment whose command line names a program."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    here = Path(os.readlink(entry / "cwd"))
                except OSError:
                    continue  # it ended meanwhile, or is not ours
                named = any(Path(word.decode(errors="replace")).name == name for word in words)
                if named and here.is_relative_to(self.shell.folder.resolve()):
                    yield int(entry.name)

    def outage(self, seconds: float) -> None:
        """Take the whole coordinator down and up again."""
        self.coordinator.stop()
        time.sleep(seconds)
        self.coordinator.start()

    def proxy_outage(self, seconds: float) -> None:
        """Let the proxy cut its tunnels and refuse new ones for a while."""
        self.tunnel.cut(seconds)

    def site_outage(self, names: tuple[str, ...], seconds: float) -> None:
        """Switch sites off, and on again."""
        for name in names:
            self.sites[name].stop()
        time.sleep(seconds)
        for name in names:
            self.sites[name].start()


Deed = Callable[[Federation], object]


@dataclass(frozen=True)
class Fault:
    """Something that happens.

    Attributes:
        said: What, as docs/reliability.md says it.
        deed: Does it, and undoes it where it does not pass by itself.
        alone: Whether it wants a network and mounts of its own (`tests.end_to_end.alone`).
        longer: Rounds more than others that its run needs: it takes so long to happen.
    """

    said: str
    deed: Deed
    alone: bool = False
    longer: int = 0


KILLS = {
    "superlink": Fault("the SuperLink is killed", lambda f: f.kill(f.coordinator, "superlink")),
    "serverapp": Fault("the round loop (ServerApp) is killed", lambda f: f.kill_serverapp()),
    "executor": Fault("the executor is killed", lambda f: f.kill(f.coordinator, "executor")),
    "reconciler": Fault("the reconciler is killed", lambda f: f.kill(f.coordinator, "reconciler")),
    "gateway": Fault("the gateway is killed", lambda f: f.kill(f.coordinator, "gateway")),
    "supervisor": Fault(
        "the coordinator's supervisor is killed", lambda f: f.kill_supervisor(f.coordinator)
    ),
    "node": Fault("a site's node is killed", lambda f: f.kill(f.sites["north"], "node")),
    "worker": Fault("a site's worker is killed", lambda f: f.kill(f.sites["south"], "worker")),
    "site": Fault("a site's supervisor is killed", lambda f: f.kill_supervisor(f.sites["north"])),
}
"""Kill -9, one of each kind of process."""

FAULTS = KILLS | {
    "outage": Fault("the coordinator is down for 90 s", lambda f: f.outage(90.0)),
    "proxy": Fault("a site's proxy drops everything for 20 s", lambda f: f.proxy_outage(20.0)),
    "half": Fault(
        "two of three sites are off for 20 s",
        lambda f: f.site_outage(("north", "south"), 20.0),
    ),
    "loss": Fault(
        "a link of 200 ms that loses 1 % of the packets, for 60 s",
        lambda f: around.slow_link(f, 60.0),
        alone=True,
    ),
    "partition": Fault(
        "no packet passes between the coordinator and any site, for 30 s",
        lambda f: around.cut_link(f, 30.0),
        alone=True,
    ),
    "site-disk": Fault(
        "a site's disk is full for 30 s",
        lambda f: around.full_disk(f.shell.folder / "south", f.sites["south"], 30.0),
        alone=True,
    ),
    "disk": Fault(
        "the coordinator's disk is full for 30 s",
        lambda f: around.full_disk(f.study.path, f.coordinator, 30.0),
        alone=True,
    ),
    "clock": Fault(
        "a site's clock is an hour ahead for 30 s",
        lambda f: around.wrong_clock(f.sites["north"], 30.0, 3600),
    ),
    "two": Fault(
        "a second reconciler and a second ServerApp start on the same run",
        lambda f: around.second_coordinator(f, 120.0),
        longer=30,
    ),
    "interrupt": Fault(
        "Ctrl-C at the coordinator and at a site, and started again",
        lambda f: (around.interrupted(f.coordinator), around.interrupted(f.sites["west"])),
    ),
}
"""All that is injected one by one; each name is a row of docs/reliability.md."""


def of_any_site(name: str, chance: random.Random) -> Deed:
    """Return the deed of a kill that hits whichever site chance picks."""
    site = chance.choice(SITES)
    at = {
        "node": lambda f: f.kill(f.sites[site], "node"),
        "worker": lambda f: f.kill(f.sites[site], "worker"),
        "site": lambda f: f.kill_supervisor(f.sites[site]),
    }
    return at.get(name, KILLS[name].deed)
