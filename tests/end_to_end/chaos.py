"""Injects faults into a real study for real, and writes docs/reliability.md: ``make chaos``.

    python -m tests.end_to_end.chaos [--times 1] [--rounds 4] [--only worker node ...] [--seed 0]

A coordinator and three sites with different modalities run on loopback as docs/deployment.md
sets them up. Each fault gets a run of its own and hits it at a random moment; then the run has to
finish by itself, with every round on disk and every checkpoint whole.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from healthfm_core.trust.authority import Authority
from healthfm_server.deploy.orders import RunOrder
from healthfm_server.run_store import RunStore
from tests.end_to_end.alone import devices
from tests.end_to_end.deployed import (
    REPOSITORY,
    SITES,
    Shell,
    approve_all,
    deployment,
    documented,
    told,
)
from tests.end_to_end.faults import FAULTS, KILLS, PATIENCE_S, Federation, of_any_site
from tests.end_to_end.link import FAR, ip

PAGE = REPOSITORY / "docs" / "reliability.md"
RESULTS = REPOSITORY / "benchmarks" / "results" / "chaos.json"
STORM_RESULTS = RESULTS.with_name("storm.json")


@dataclass
class Outcome:
    """What became of one injection.

    Attributes:
        fault: Its name.
        at_round: Rounds that were complete when it hit.
        finished: Whether the run finished by itself.
        again_s: From the fault to the next complete round, or to the end of the run.
        submissions: How often the run was submitted, 1 where nothing was lost at the coordinator.
        missing: Rounds that are not on disk.
        set_aside: What was left out of a round, by site and reason.
        hit: In a storm, what was killed, and after which round.
    """

    fault: str
    at_round: int
    finished: bool
    again_s: float
    submissions: int
    missing: list[int]
    set_aside: list[str] = field(default_factory=list)
    hit: list[str] = field(default_factory=list)


def inject(federation: Federation, name: str, number: int, rounds: int, chance: random.Random):
    """Run a study, inject a fault at a random moment of it, and return what became of it."""
    order = _order(federation, f"{name}-{number}", rounds)
    at_round = chance.randrange(0, rounds - 1)
    _until(lambda: order.rounds_done() >= at_round and order.done().state == "running")
    time.sleep(chance.uniform(0.0, 4.0))
    before, hit = order.rounds_done(), time.monotonic()
    FAULTS[name].deed(federation)
    _until(lambda: order.rounds_done() > before or order.done().state == "finished")
    again_s = time.monotonic() - hit
    _until(lambda: order.done().state in ("finished", "failed"))
    return _outcome(name, order, before, again_s, rounds)


def storm(federation: Federation, number: int, rounds: int, chance: random.Random) -> Outcome:
    """Kill one process of each kind, in any order, at random moments of one run."""
    order, hit = _order(federation, f"storm-{number}", rounds), []
    begun = time.monotonic()
    _until(lambda: order.done().state == "running")
    for name in chance.sample(sorted(KILLS), len(KILLS)):
        time.sleep(chance.uniform(0.0, 5.0))
        if order.done().state == "finished":
            break
        try:
            of_any_site(name, chance)(federation)
            hit.append(f"{name} after round {order.rounds_done()}")
        except TimeoutError:
            break
    _until(lambda: order.done().state in ("finished", "failed"))
    found = _outcome("storm", order, 0, time.monotonic() - begun, rounds)
    return replace(found, hit=hit)


def _order(federation: Federation, name: str, rounds: int) -> RunOrder:
    federation.shell.run(
        f"healthfm-server run --study study --name {name} model=tiny federation.rounds={rounds} "
        "train.max_steps=2 tokens.k_min=20 federation.quorum=0.3 federation.deadline_s=60 "
        f"federation.ttl_s=60 federation.gather_s=30 federation.keep_checkpoints={rounds + 1}"
    )
    return RunOrder.find(federation.study.runs, name)


def _outcome(name: str, order: RunOrder, before: int, again_s: float, rounds: int) -> Outcome:
    store = RunStore(order.folder, keep=rounds + 1)
    for number in store.rounds():
        store.load(number)  # HF-703 where a checkpoint is not whole
    history = store.history()
    listed = [row["round"] for row in history]
    complete = set(store.rounds()) & set(listed) if listed == sorted(set(listed)) else set()
    return Outcome(
        fault=name,
        at_round=before,
        finished=order.done().state == "finished",
        again_s=round(again_s, 1),
        submissions=order.done().submissions,
        missing=sorted(set(range(1, rounds + 1)) - complete),
        set_aside=[
            f"round {row['round']}: {site}: {reason[:120]}"
            for row in history
            for site, reason in row["set_aside"].items()
        ],
    )


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"nothing happened for {PATIENCE_S:.0f} s")
        time.sleep(0.2)


def set_up(shell: Shell) -> None:
    """Run the tutorial up to the moment where sites have joined."""
    made, asked, signed, joined, *_ = documented(REPOSITORY / "docs" / "deployment.md")
    for line in made:
        shell.run(line)
    shell.values["ROOT"] = Authority(shell.folder / "study" / "authority").fingerprint
    for site, line in zip(SITES, asked, strict=True):
        shell.values[site.upper()] = told(shell.run(line), "tls")
        approve_all(shell.folder / site)
    for line in (*signed, *joined):
        shell.run(line)


def write_results(path: Path, outcomes: list[Outcome]) -> None:
    """Write outcomes as JSON."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n"
    path.write_text(text, "utf-8")


def write_page(outcomes: list[Outcome], command: str) -> None:
    """Write docs/reliability.md and the figures it is made from."""
    write_results(RESULTS, outcomes)
    rows = [_row(name, [o for o in outcomes if o.fault == name]) for name in FAULTS]
    table = "\n".join(row for row in rows if row)
    template = (Path(__file__).parent / "reliability.md").read_text("utf-8")
    PAGE.write_text(template.format(command=command, table=table), "utf-8")


def _row(name: str, found: list[Outcome]) -> str:
    if not found:
        return ""
    finished = sum(o.finished and not o.missing for o in found)
    slowest = max(o.again_s for o in found)
    middle = sorted(o.again_s for o in found)[len(found) // 2]
    again = max(o.submissions for o in found) - 1
    aside = sum(len(o.set_aside) for o in found)
    lost = "no round" if all(not o.missing for o in found) else "rounds"
    cost = f"; {aside} times a site's part of a round" if aside else ""
    return (
        f"| {FAULTS[name].said} | {finished} of {len(found)} | {middle:.0f} ({slowest:.0f}) "
        f"| {again} | {lost}{cost} |"
    )


def main() -> None:
    """Inject, and write the page after each fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="runs per fault")
    parser.add_argument("--storms", type=int, default=0, help="runs in which all kinds are killed")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=tuple(FAULTS), default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    command = f"make chaos ARGS='--times {given.times} --rounds {given.rounds}'"
    own = devices() == {"lo"}
    if own:
        ip(f"addr add {FAR}/32 dev lo")
    faults = [name for name in given.only if own or not FAULTS[name].alone]
    host = FAR if own else "127.0.0.2"
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        deployment(Path(name), host) as made,
    ):
        shell, tunnel = made
        set_up(shell)
        federation = Federation(shell, tunnel)
        outcomes: list[Outcome] = []
        for number in range(1, given.storms + 1):
            outcomes.append(tell(storm(federation, number, given.rounds, chance)))
            write_results(STORM_RESULTS, outcomes)
        outcomes = []
        for number in range(1, given.times + 1):
            for fault in faults:
                outcomes.append(tell(inject(federation, fault, number, given.rounds, chance)))
                write_page(outcomes, command)


def tell(outcome: Outcome) -> Outcome:
    """Print what became of an injection, and return it."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {outcome}\n")
    sys.stdout.flush()
    return outcome


if __name__ == "__main__":
    main()
