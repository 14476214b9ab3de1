"""Injects faults into a real study for real, and writes docs/reliability.md: ``make chaos``.

    python -m tests.end_to_end.chaos [--times 1] [--storms 0] [--rounds 4] [--only worker node ...]
        [--seed 0] [--anew]

A coordinator and three sites with different modalities run on loopback as docs/deployment.md
sets them up. Each fault gets a run of its own and hits it at a random moment; then the run has to
finish by itself, with every round on disk and every checkpoint whole. In a storm one process of
each kind is killed in the same run. What was not injected now stays on the page as it was; storms
add up.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.run_folder.run_store import RunStore
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
from tests.end_to_end.reliability import STORM, Outcome, kept, write


def inject(federation: Federation, name: str, number: int, rounds: int, chance: random.Random):
    """Run a study, inject a fault at a random moment of it, and return what became of it."""
    at_round = chance.randrange(0, rounds - 1)
    rounds += FAULTS[name].longer
    order = _order(federation, f"{name}-{number}", rounds)
    _until(lambda: order.rounds_done() >= at_round and order.status().state == "running")
    time.sleep(chance.uniform(0.0, 4.0))
    before, hit = order.rounds_done(), time.monotonic()
    FAULTS[name].deed(federation)
    _until(lambda: order.rounds_done() > before or order.status().state == "finished")
    again_s = time.monotonic() - hit
    _until(lambda: order.status().state in ("finished", "failed"))
    return _outcome(name, order, before, again_s, rounds)


def storm(federation: Federation, number: int, rounds: int, chance: random.Random) -> Outcome:
    """Kill one process of each kind, in any order, at random moments from a random round on."""
    order, hit = _order(federation, f"storm-{number}", rounds), []
    begun, at_round = time.monotonic(), chance.randrange(0, rounds - 1)
    _until(lambda: order.rounds_done() >= at_round and order.status().state == "running")
    for name in chance.sample(sorted(KILLS), len(KILLS)):
        time.sleep(chance.uniform(0.0, 5.0))
        if order.status().state == "finished":
            break
        try:
            of_any_site(name, chance)(federation)
            hit.append(f"{name} after round {order.rounds_done()}")
        except TimeoutError:
            break
    _until(lambda: order.status().state in ("finished", "failed"))
    found = _outcome(STORM, order, 0, time.monotonic() - begun, rounds)
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
    for number in store.checkpoints.rounds():
        store.checkpoints.load(number)  # HF-703 where a checkpoint is not whole
    history = store.history()
    listed = [row["round"] for row in history]
    complete = (
        set(store.checkpoints.rounds()) & set(listed) if listed == sorted(set(listed)) else set()
    )
    return Outcome(
        fault=name,
        at_round=before,
        finished=order.status().state == "finished",
        again_s=round(again_s, 1),
        submissions=order.status().submissions,
        missing=sorted(set(range(1, rounds + 1)) - complete),
        set_aside=[
            f"round {row['round']}: {site}: {reason[:120]}"
            for row in history
            for site, reason in row["set_aside"].items()
        ],
        rounds=rounds,
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
    init, up = made
    shell.values["ROOT"] = told(shell.run(init))
    shell.run(up)
    for site, line in zip(SITES, asked, strict=True):
        shell.values[site.upper()] = told(shell.run(line))
        approve_all(shell.folder / site)
    for line in (*signed, *joined):
        shell.run(line)


def main() -> None:
    """Inject, and write the page after each fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="runs per fault")
    parser.add_argument("--storms", type=int, default=0, help="runs in which all kinds are killed")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=tuple(FAULTS), default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--anew", action="store_true", help="forget what was injected before")
    given = parser.parse_args()
    own = devices() == {"lo"}
    if own:
        ip(f"addr add {FAR}/32 dev lo")
    host = FAR if own else "127.0.0.2"
    faults = [name for name in given.only if own or not FAULTS[name].alone] * bool(given.times)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        deployment(Path(name), host) as (shell, tunnel),
    ):
        set_up(shell)
        outcomes = [] if given.anew else kept(but=set(faults))
        for outcome in injected(Federation(shell, tunnel), faults, given):
            outcomes.append(tell(outcome))
            write(outcomes)


def injected(
    federation: Federation, faults: list[str], given: argparse.Namespace
) -> Iterator[Outcome]:
    """Yield what became of each injection."""
    chance = random.Random(given.seed)
    for number in range(1, given.storms + 1):
        yield storm(federation, number, given.rounds, chance)
    for number in range(1, given.times + 1):
        for fault in faults:
            yield inject(federation, fault, number, given.rounds, chance)


def tell(outcome: Outcome) -> Outcome:
    """Print what became of an injection, and return it."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {outcome}\n")
    sys.stdout.flush()
    return outcome


if __name__ == "__main__":
    main()
