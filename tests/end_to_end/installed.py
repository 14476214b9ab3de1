"""An installation proves itself: a simulation, then a round of a deployment.


    python tests/end_to_end/installed.py /opt/healthfm/bin       # the folder of its commands

Only the commands that pip wrote there are used, from an empty folder and with this checkout out of
reach, so that what is tried is what a site gets. It imports nothing but Python's own library: the
Python that runs it need not have HealthFM.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.2"
"""Loopback, but no address that NO_PROXY usually names."""
SITES: Final = ("north", "south")
TINY: Final = (
    "model=tiny",
    "model.width=16",
    "model.ffn=32",
    "tokens.k_min=5",
    "tokens.max_len=160",
    "train.max_steps=2",
)
SIMULATION: Final = (
    *TINY,
    "data.cohort.subjects=160",
    "data.cohort.sites=4",
    "data.cohort.years=2",
    "rounds=1",
    "evaluation.bootstraps=20",
    "simulation.workers=1",
)
STORES: Final = """
import sys
from pathlib import Path
from healthfm_core.config.run import RunConfig
from healthfm_simulations.cohort import generate, write_sites
cohort = {"subjects": 400, "sites": 2, "size_skew": 100.0}
config = RunConfig.model_validate({"data": {"cohort": cohort}})
for path in write_sites(generate(config.data.cohort, seed=1), Path("stores")):
    print(path)
"""


class Installation:
    """An environment's commands, run in a folder of its own.

    Args:
        commands: Folder of the commands, as ``/opt/healthfm/bin``.
        folder: Empty; takes all that is made.
    """

    def __init__(self, commands: Path, folder: Path) -> None:
        self._commands = commands
        self._folder = folder

    def run(self, name: str, *arguments: str | Path, within_s: float = 3600) -> str:
        """Run one command; return what it printed on its output.

        Raises:
            SystemExit: It failed; its last words are in the message.
        """
        kept = {k: v for k, v in os.environ.items() if k.isupper() and "PROXY" not in k}
        environment = {k: v for k, v in kept.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment["PATH"] = os.defpath  # nobody activated the environment
        command = [str(self._commands / name), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=within_s,
        )
        if done.returncode != 0:
            raise SystemExit(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def simulate(self) -> None:
        """Run a small simulation; its report and its checkpoint are there afterwards."""
        self.run("healthfm-simulate", *SIMULATION, "out=simulated")
        simulated = self._folder / "simulated"
        assert (simulated / "report.html").is_file()
        assert list(simulated.glob("**/round-0001.safetensors"))

    def deploy(self) -> None:
        """Found a study with two sites and run one round of it; everything is stopped after."""
        stores = self.run("python", "-c", STORES).split()
        ports = free_ports(2 + len(SITES))
        self.run(
            *("healthfm-server", "init", "study", "--name", "proof", "--host", HOST),
            *("--port", str(ports[0]), "--superlink-port", str(ports[1])),
        )
        try:
            printed = self.run("healthfm-server", "up", "--study", "study")
            assert printed
            for site, store, port in zip(SITES, stores, ports[2:], strict=True):
                self._join(site, store, f"https://{HOST}:{ports[0]}", str(port))
            self._one_round()
        finally:
            for site in SITES:
                if (self._folder / site / "process").is_dir():
                    self.run("healthfm-client", "leave", "--site", site)
            self.run("healthfm-server", "down", "--study", "study")

    def _join(self, site: str, store: str, url: str, port: str) -> None:
        kit = f"{site}-kit.zip"
        asked = self.run(
            "healthfm-client", "enroll", "--site", site, "--study", url, "--name", site
        )
        status = json.loads(self.run("healthfm-server", "status", "--study", "study", "--json"))
        self.run(
            *("healthfm-server", "site", "sign", f"{site}/request.zip", "--study", "study"),
            *("--compared", ten_words(asked), "--out", kit),
        )
        self.run(
            *("healthfm-client", "enroll", "--site", site, "--kit", kit),
            *("--root", status["root_words"]),
        )
        policy = self._folder / site / "site.yaml"
        text = policy.read_text("utf-8")
        assert "require_approval: true" in text
        policy.write_text(
            text.replace("require_approval: true", "require_approval: false"), "utf-8"
        )
        self.run("healthfm-client", "join", "--site", site, "--store", store, "--port", port)

    def _one_round(self) -> None:
        self.run(
            *("healthfm-server", "run", "--study", "study", "--name", "first"),
            *(*TINY, "federation.rounds=1", "federation.min_shared_codes=0"),
        )
        self.run("healthfm-server", "wait", "--study", "study", "first")
        history = (self._folder / "study" / "runs" / "first" / "history.jsonl").read_text("utf-8")
        (row,) = map(json.loads, history.splitlines())
        assert row["answered"] == sorted(SITES), row


def ten_words(printed: str) -> str:
    """Return the line of ten words that `enroll` prints to be read by telephone."""
    return next(line.strip() for line in printed.splitlines() if len(line.split()) == 10)


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def main(given: Sequence[str]) -> None:
    """Try an installation and say how long each part took."""
    commands = Path(given[0]).absolute()
    with tempfile.TemporaryDirectory(prefix="healthfm-") as folder:
        installation = Installation(commands, Path(folder))
        version = installation.run("python", "--version").strip()
        for part in (installation.simulate, installation.deploy):
            begun = time.monotonic()
            part()
            sys.stdout.write(f"{version}: {part.__name__} {time.monotonic() - begun:.0f} s\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
