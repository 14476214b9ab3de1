"""The commands of docs/deployment.md, run as a reader would run them, with what they printed."""

from __future__ import annotations

import os
import re
import shlex
import socket
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from healthfm_core.config.run import RunConfig
from healthfm_core.supervision import Supervision
from healthfm_core.trust.fingerprint import is_one
from healthfm_simulations.cohort import generate, write_sites
from tests.end_to_end.proxy import Proxy, proxy, proxy_file

REPOSITORY = Path(__file__).resolve().parents[2]
SITES = ("north", "south", "west")
HELD = {"north": "genomics", "south": "wearable", "west": ""}
"""What a site has beside its events."""


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


def documented(page: Path) -> list[list[str]]:
    """Return the commands of each console block of a page."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return [re.findall(r"^\$ (.+)$", block, re.MULTILINE) for block in blocks]


def make_stores(folder: Path, subjects: int = 600) -> dict[str, Path]:
    """Write a store for each site, which has its own modalities, and return their folders."""
    config = RunConfig.model_validate(
        {"data": {"cohort": {"subjects": subjects, "sites": 3, "size_skew": 100.0}}}
    )
    cohort = generate(config.data.cohort, seed=1)
    return dict(zip(SITES, write_sites(cohort, folder), strict=True))


def told(printed: str) -> str:
    """Return the ten words as a person reads them off the screen."""
    (found,) = [line.strip() for line in printed.splitlines() if is_one(line)]
    return found


def approve_all(site: Path) -> None:
    """Let a site's policy approve every run by itself."""
    policy = site / "site.yaml"
    rules = yaml.safe_load(policy.read_text("utf-8")) | {"require_approval": False}
    policy.write_text(yaml.safe_dump(rules), "utf-8")


@contextmanager
def deployment(folder: Path, host: str = "127.0.0.2") -> Iterator[tuple[Shell, Proxy]]:
    """Yield a shell with ports and stores of its own, and a proxy; what it started is stopped."""
    names = ("PORT", "SUPERLINK_PORT", "PROXY_PORT", *(f"{site.upper()}_PORT" for site in SITES))
    values = {"HOST": host}  # loopback by default, but none that NO_PROXY names
    values |= dict(zip(names, map(str, free_ports(len(names))), strict=True))
    values["PROXY_FILE"] = proxy_file(folder, values)
    for site, path in make_stores(folder / "stores").items():
        values[f"{site.upper()}_STORE"] = str(path)
    with proxy(int(values["PROXY_PORT"]), "user", "secret") as tunnel:
        try:
            yield Shell(folder, values), tunnel
        finally:
            for config in folder.glob("*/process/supervisord.conf"):
                Supervision(config.parent, [], {}).stop()


class Shell:
    """Runs documented commands in a folder, with the values of a page's variables."""

    def __init__(self, folder: Path, values: dict[str, str]) -> None:
        self.folder = folder
        self.values = values
        self.printed: list[str] = []

    def run(self, line: str, *, fails: bool = False) -> str:
        """Run one line and return what it printed; fail where it fails, unless it is to."""
        words = shlex.split(string.Template(line).substitute(self.values))
        module = {"healthfm-server": "healthfm_server", "healthfm-client": "healthfm_client"}
        command = [sys.executable, "-m", module[words[0]], *words[1:]]
        environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        environment["PATH"] = os.defpath  # as under systemd: nobody activated the environment
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=540,
        )
        self.printed.append(done.stdout + done.stderr)
        assert (done.returncode != 0) == fails, f"$ {line}\n{done.stdout}{done.stderr}"
        return done.stdout if not fails else done.stderr
