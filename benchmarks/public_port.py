"""What sites notice of an attack on the public port: their calls' times, and how many fail.

    python benchmarks/public_port.py [--sites 200] [--silent 2000] [--hostile 200] [--seconds 60]

The gateway runs as its own process; behind it a stand-in for the SuperLink answers at once, so that
the port's own share is what is timed (``--superlink``: the real one). Each site is Flower's own
node client over real TLS: it activates its node, asks for messages every 3 s, shows life every
30 s, and connects anew after ten polls. Three times so long: in quiet; with strangers at an address
of their own; with strangers at the sites' own address. The strangers hold silent connections, each
made again a second after it is ended, and make so many calls a second to ever other paths, each
over a connection of its own. All on one machine, so the attack also takes its processors. Goal: no
call of a site's fails.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import NodeAuthHttpInterceptor
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from healthfm_core.federation.environment import keep_quiet
from healthfm_core.trust.kit import make_kit, read_kit, write_for_tls
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import TLS_KEY, SiteKeys
from healthfm_server.deploy.flower_superlink import register_node
from healthfm_server.deploy.public_port import raise_descriptors
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings

RESULTS = Path(__file__).parent / "results"
HOME, AWAY = "127.0.0.1", "127.0.0.2"
POLL_S, LIFE_S, PATIENCE_S = 3.0, 30.0, 30.0
CALLS_A_CONNECTION = 10
SPREAD_S = POLL_S * CALLS_A_CONNECTION
"""Within which sites begin: 200 hospitals do not connect anew in the same second."""
START_S = 90.0


@dataclass
class Calls:
    """What the sites' calls took, and why some failed."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Site(threading.Thread):
    """One site's node."""

    def __init__(
        self, study: StudyFolder, folder: Path, name: str, registered: bool, spread_s: float
    ) -> None:
        super().__init__(daemon=True)
        self._spread_s = spread_s
        keys = SiteKeys.create(folder / "keys")
        request = read_request(make_request(keys, name, study.settings.url, ["ehr"]))
        node_id = abs(hash(name))
        if registered:
            node_id = register_node(study.database, keys.node.public_key())
        study.sites.admit(request, node_id=node_id)
        kit = make_kit(study.authority(), request, url=study.settings.url, node_id=node_id)
        roots, certificate = write_for_tls(read_kit(kit), folder)
        self._url, self._key, self._node = study.settings.url, keys.node, Node(node_id=node_id)
        self._tls = ssl.create_default_context(cafile=str(roots))
        self._tls.load_cert_chain(certificate, folder / "keys" / TLS_KEY)
        self.calls = Calls()
        self.ends = threading.Event()

    def run(self) -> None:
        """Call until told to end."""
        self.ends.wait(random.uniform(0.0, self._spread_s))
        alive = 0.0
        while not self.ends.is_set():
            with self._client() as client:
                self._timed(client.ActivateNode, self._activation())
                for _ in range(CALLS_A_CONNECTION):
                    if self.ends.wait(POLL_S):
                        break
                    if time.monotonic() - alive > LIFE_S:
                        alive = time.monotonic()
                        life = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=30)
                        self._timed(client.SendNodeHeartbeat, life)
                    self._timed(client.PullMessages, PullMessagesRequest(node=self._node))
                leaving = DeactivateNodeRequest(node_id=self._node.node_id)
                self._timed(client.DeactivateNode, leaving)

    def _client(self) -> FleetHttpClient:
        sign = NodeAuthHttpInterceptor(self._key, self._key.public_key())
        return FleetHttpClient(self._url, interceptors=[sign], verify=self._tls)

    def _activation(self) -> ActivateNodeRequest:
        key = public_key_to_bytes(self._key.public_key())
        return ActivateNodeRequest(public_key=key, heartbeat_interval=30)

    def _timed(self, call, request) -> None:
        calls, begun = self.calls, time.monotonic()
        try:
            call(request)
            calls.seconds.append(time.monotonic() - begun)
        except Exception as error:
            calls.failures.append(f"{type(error).__name__}: {error}"[:200])


async def silent(address: tuple[str, int], source: str, done: Counter[str]) -> None:
    """Hold a connection and say nothing; make it again when it is ended."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0))
            done["silent"] += 1
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()
        await asyncio.sleep(1.0)


async def hostile(address: tuple[str, int], source: str, per_s: float, done: Counter[str]) -> None:
    """Call ever other paths, so often a second."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    calls: set[asyncio.Task[None]] = set()

    async def call() -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await asyncio.open_connection(
                    *address, ssl=tls, local_addr=(source, 0)
                )
                path = f"/{random.randbytes(32).hex()}"
                writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                answered = await reader.read(1000)
                done["answered" if answered else "unanswered"] += 1
                writer.close()

    began = time.monotonic()
    for number in range(sys.maxsize):
        await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
        done["calls"] += 1
        task = asyncio.create_task(call())
        calls.add(task)
        task.add_done_callback(calls.discard)


async def answer(request: Request) -> Response:
    """Stand in for the SuperLink: nothing is to be done."""
    with contextlib.suppress(ClientDisconnect):
        await request.body()
    return Response(b"", media_type=PROTOBUF_MEDIA_TYPE)


def stand_in(port: int) -> None:
    """Answer every call of a node's until killed."""
    app = Starlette(routes=[Route("/v1/fleet/{call}", answer, methods=["POST"])])
    uvicorn.run(app, host=HOME, port=port, access_log=False, log_level="warning")


async def attack(port: int, source: str, silents: int, per_s: float) -> None:
    """Be the strangers until killed."""
    raise_descriptors()
    os.nice(10)  # strangers have processors of their own; calls per s says what they managed
    done: Counter[str] = Counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(silents):
            group.create_task(silent((HOME, port), source, done))
        group.create_task(hostile((HOME, port), source, per_s, done))
        while True:
            await asyncio.sleep(1.0)
            print(f"attack {json.dumps(done)}", flush=True)


@contextlib.contextmanager
def running(*words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python process of ours."""
    with log.open("ab") as out:
        process = subprocess.Popen([sys.executable, *words], stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_until_they_listen(*ports: int) -> None:
    """Return when somebody accepts connections at each port; no supervisor started them."""
    for port in ports:
        until = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection((HOME, port), timeout=1.0).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


def processor_s(process: int) -> float:
    """Return the processor time that a process has taken, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(process: int) -> float:
    """Return a process's memory, in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(sites: list[Site], gateway: int, log: Path, seconds: float) -> dict[str, float]:
    """Let the sites call for so long, and until each has an answer; return what they noticed."""
    for site in sites:
        site.calls = Calls()
    used, size, begun = processor_s(gateway), audit_bytes(log), time.monotonic()
    time.sleep(seconds)
    while time.monotonic() - begun < seconds + START_S and any(
        not site.calls.seconds and not site.calls.failures for site in sites
    ):
        time.sleep(0.1)
    took = [second for site in sites for second in site.calls.seconds]
    failures = [why for site in sites for why in site.calls.failures]
    for why in sorted(set(failures))[:5]:
        print("  failed:", why)
    wall = time.monotonic() - begun
    cuts = statistics.quantiles(took, n=100) if len(took) > 1 else [0.0] * 99
    return {
        "seconds": wall,
        "calls": len(took),
        "failed": len(failures),
        "p50_ms": 1e3 * statistics.median(took or [0.0]),
        "p99_ms": 1e3 * cuts[98],
        "most_ms": 1e3 * max(took, default=0.0),
        "gateway_processors": (processor_s(gateway) - used) / wall,
        "gateway_mb": resident_mb(gateway),
        "audit_mb_a_day": (audit_bytes(log) - size) / wall * 86400 / 1e6,
    }


def audit_bytes(log: Path) -> int:
    """Return the size of the audit log's files."""
    return sum(path.stat().st_size for path in log.glob("audit*.log"))


def attacked(log: Path) -> Counter[str]:
    """Return what the strangers have done so far, as they say."""
    said = [line for line in log.read_text(errors="replace").splitlines() if "attack {" in line]
    return Counter(json.loads(said[-1].removeprefix("attack "))) if said else Counter()


def main() -> None:
    """Measure, print, and write results/public_port.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=200)
    parser.add_argument("--silent", type=int, default=2000)
    parser.add_argument("--hostile", type=float, default=200.0, help="calls a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--port", type=int, default=18443)
    parser.add_argument("--superlink", action="store_true", help="the real one behind the port")
    parser.add_argument("--attack-from", help=argparse.SUPPRESS)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    keep_quiet()
    os.environ["NO_PROXY"] = HOME
    if given.attack_from is not None:
        asyncio.run(attack(given.port, given.attack_from, given.silent, given.hostile))
    if given.answer:
        stand_in(given.port)
        return
    raise_descriptors()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(given, Path(folder))
    for name in figures["same_address"]:
        row = "".join(f"{phase.get(name, 0.0):>14.2f}" for phase in figures.values())
        print(f"{name.replace('_', ' '):<20}{row}")
    given.out.mkdir(exist_ok=True)
    asked = {
        name: value
        for name, value in vars(given).items()
        if name in ("sites", "silent", "hostile", "seconds", "superlink")
    }
    text = json.dumps({**asked, **figures}, indent=1) + "\n"
    (given.out / "public_port.json").write_text(text)
    raise SystemExit(1 if any(phase["failed"] for phase in figures.values()) else 0)


def run(given: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Set all up and return the figures of the three phases."""
    settings = StudySettings(
        study="attacked", hosts=(HOME,), port=given.port, superlink_port=given.port + 1, bind=HOME
    )
    study = StudyFolder.create(folder / "study", settings)
    spread_s = min(SPREAD_S, given.seconds)
    sites = [
        Site(study, folder / f"site{n}", f"site{n}", given.superlink, spread_s)
        for n in range(given.sites)
    ]
    serve = ["-m", "healthfm_server.deploy.study_process"]
    where = ["--study", str(study.path)]
    again = [str(Path(__file__)), "--port", str(given.port)]
    again += ["--silent", str(given.silent), "--hostile", str(given.hostile)]
    behind = [*serve, "superlink", *where]
    if not given.superlink:
        behind = [str(Path(__file__)), "--answer", "--port", str(settings.superlink_port)]
    log = folder / "processes.log"
    figures: dict[str, dict[str, float]] = {}
    with (
        running(*behind, log=log),
        running(*serve, "gateway", *where, log=log) as gateway,
    ):
        wait_until_they_listen(settings.superlink_port, settings.port)
        for site in sites:
            site.start()
        time.sleep(spread_s + POLL_S)
        print(f"{'':<20}{'quiet':>14}{'other address':>14}{'same address':>14}")
        figures["quiet"] = measure(sites, gateway.pid, study.path, given.seconds)
        for phase, source in (("other_address", AWAY), ("same_address", HOME)):
            with running(*again, "--attack-from", source, log=log):
                before = attacked(log)
                while attacked(log) == before:
                    time.sleep(0.1)
                time.sleep(min(10.0, given.seconds))
                before = attacked(log)
                figures[phase] = measure(sites, gateway.pid, study.path, given.seconds)
                for name, count in (attacked(log) - before).items():
                    figures[phase][f"{name}_per_s"] = count / figures[phase]["seconds"]
        for site in sites:
            site.ends.set()
        for site in sites:
            site.join()
    for line in log.read_text(errors="replace").splitlines():
        if "rror" in line or "xception" in line:
            print("log:", line)
    return figures


if __name__ == "__main__":
    main()
