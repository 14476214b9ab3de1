"""What the coordinator's page takes of a study with many sites and rounds.

    python benchmarks/coordinator_page.py [--sites 200] [--rounds 1000] [--updates 20] [--more 360]

A study is written as the coordinator writes one, then `healthfm-server page` serves it in a process
of its own. Told are: `start_s`, until it prints its link; `first_paint_ms` of a run's page in
Chromium (null without one), from the request to the first contents on the screen; `update_ms`, the
processor's time that the page's process takes for a round that has ended while somebody looks, and
`idle_ms` for a look in which nothing is new; `memory_mib` before and after `more` rounds have ended
while somebody looked, an hour's where a round takes ten seconds.

Goal: first paint within 1,000 ms, an update within 100 ms, memory that grows by less than 5 %.
Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx

from healthfm_server.deploy.run_orders import RunOrder
from tests.page.browser import CHROMIUM, DESK, DRIVER, browser
from tests.page.made_study import make_study, order_run, wait_for

METRICS: Final = 25
"""Figures that a site tells in a round."""
PAINT_MS: Final = 1000.0
UPDATE_MS: Final = 100.0
GROWTH: Final = 0.05
IDLE_S: Final = 3.0
MIB: Final = 2**20


class WatchedPage:
    """A page in a process of its own, looked at by one person.

    Args:
        process: The page's.
        link: What it printed.
        order: The run that is looked at.
        sites: Of the study.
    """

    def __init__(
        self, process: subprocess.Popen[str], link: str, order: RunOrder, sites: int
    ) -> None:
        self.link = link
        self._pid = process.pid
        self._order = order
        self._sites = [f"site-{number:03d}" for number in range(sites)]

    def memory(self) -> float:
        """Return its resident memory, in MiB."""
        status = Path(f"/proc/{self._pid}/status").read_text("utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024 / MIB

    def processor_s(self) -> float:
        """Return the processor's time that it has taken."""
        return time.clock_gettime((~self._pid << 3) | 2)  # the clock of that process: clock(3)

    def end_round(self, number: int) -> None:
        """Write what the coordinator writes when a round has ended."""
        write_round(self._order, number, self._sites)
        place = self._order.folder / "checkpoints" / f"round-{number:04d}.json"
        place.write_text("{}", "utf-8")

    @contextmanager
    def looked_at(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Yield the parts that are sent to who looks at the run."""
        base, _, secret = self.link.partition("/sign-in#")
        with httpx.Client(base_url=base, trust_env=False, timeout=600.0) as client:
            answer = client.post("/sign-in", data={"token": secret})
            root = answer.headers["location"]
            with client.stream("GET", f"{root}runs/first/live") as stream:
                lines = (line for line in stream.iter_lines() if line.startswith("data: "))
                yield (json.loads(line[6:]) for line in lines)

    def update_ms(self, parts: Iterator[dict[str, Any]], number: int) -> float:
        """End a round, and return the processor's time until all that it changes was sent."""
        before = self.processor_s()
        self.end_round(number)
        until_parts(parts, {"run-state": f"{number} of", "run-sites": ""})
        return 1000.0 * (self.processor_s() - before)

    def idle_ms(self, seconds: float) -> float:
        """Return the processor's time of a second in which nothing is new."""
        before = self.processor_s()
        time.sleep(seconds)
        return 1000.0 * (self.processor_s() - before) / seconds


def until_parts(parts: Iterator[dict[str, Any]], wanted: dict[str, str]) -> None:
    """Read parts until one of each name that has its text was sent, in whatever order.

    A look between the two files of a round sends the second part a second before the first.
    """
    missing = dict(wanted)
    while missing:
        part = next(parts)
        if part["id"] in missing and missing[part["id"]] in part["html"]:
            del missing[part["id"]]


def write_round(order: RunOrder, number: int, sites: list[str]) -> None:
    """Append a round's row, in which a site in twenty is late."""
    late = dict.fromkeys(sites[number % 20 :: 20], "it did not answer in time")
    answered = [site for site in sites if site not in late]
    names = ["tuning_auroc", "loss_codes", *(f"grad_norm/{n}" for n in range(METRICS - 2))]
    figures = {name: 0.5 + number / 1e6 + at / 7 for at, name in enumerate(names)}
    row = {
        "round": number,
        "seconds": 10.0,
        "asked": sites,
        "answered": answered,
        "set_aside": late,
        "metrics": figures,
        "site_metrics": dict.fromkeys(answered, figures),
        "site_seconds": {site: 3.0 + at / 100 for at, site in enumerate(answered)},
        "bytes": {"down": 10**8, "up": 10**8},
        "alarms": [],
    }
    with (order.folder / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


@contextmanager
def served(folder: Path, sites: int, rounds: int) -> Iterator[tuple[WatchedPage, float]]:
    """Serve the page of a made study; yield it and the seconds until it printed its link."""
    nodes = {f"site-{number:03d}": 1000 + number for number in range(sites)}
    study = make_study(folder / "study", nodes)
    order = order_run(study, rounds=100_000)
    for number in range(1, rounds + 1):
        write_round(order, number, list(nodes))
        (order.folder / "checkpoints" / f"round-{number:04d}.json").write_text("{}", "utf-8")
    wait_for(order, "answers", str(rounds + 1), list(nodes.values()), list(nodes.values()))
    begun = time.perf_counter()
    words = [sys.executable, "-m", "healthfm_server", "page", "--port", "0"]
    with subprocess.Popen(
        [*words, "--study", str(study.path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            link = next(line.strip() for line in process.stdout if "/sign-in#" in line)
            yield WatchedPage(process, link, order, sites), time.perf_counter() - begun
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def first_paint_ms(link: str) -> float | None:
    """Return when Chromium showed the first contents of the run's page; None without one."""
    if CHROMIUM is None or DRIVER is None:
        return None
    with browser() as window:
        window.look_like(DESK)
        window.open(link)
        window.until(lambda: "/s/" in window.run("return location.pathname"))
        window.open(window.run("return location.href") + "runs/first")
        entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        return float(window.until(lambda: window.run(f"return {entry}")))


def measured(sites: int, rounds: int, updates: int, more: int) -> dict[str, Any]:
    """Return the figures."""
    with tempfile.TemporaryDirectory(prefix="coordinator-page-") as folder:
        with served(Path(folder), sites, rounds) as (page, start_s):
            paint = first_paint_ms(page.link)
        rest = Path(folder) / "again"  # the link works once
        with served(rest, sites, rounds) as (page, _), page.looked_at() as parts:
            until_parts(parts, {"run-events": ""})
            idle = page.idle_ms(IDLE_S)
            took = [page.update_ms(parts, rounds + 1 + at) for at in range(updates)]
            memory = [page.memory()]
            for number in range(rounds + updates + 1, rounds + updates + more + 1):
                page.update_ms(parts, number)
            memory.append(page.memory())
    growth = memory[1] / memory[0] - 1
    return {
        "sites": sites,
        "rounds": rounds,
        "start_s": round(start_s, 2),
        "first_paint_ms": None if paint is None else round(paint),
        "update_ms": {"median": round(median(took), 1), "max": round(max(took), 1)},
        "idle_ms": round(idle, 1),
        "memory_mib": [round(one, 1) for one in memory],
        "memory_rounds": more,
        "reached": {
            "first_paint": None if paint is None else paint < PAINT_MS,
            "update": median(took) < UPDATE_MS,
            "memory": growth < GROWTH,
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--more", type=int, default=360)
    given = parser.parse_args()
    found = measured(given.sites, given.rounds, given.updates, given.more)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
