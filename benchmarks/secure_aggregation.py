"""What secure aggregation costs a site and the coordinator: processor seconds and bytes per round.

    python benchmarks/secure_aggregation.py [--parameters 30000000] [--goal-sites 16] [--sites 3 …]

First a whole round of `--goal-sites` sites, each with an update of its own, whose opened mean is
compared with the plain weighted mean. Goal there: at most 2 s of a site's processor time and at
most 1.1 times the bytes of the float32 update, in the ring of 32 bits. Then a table over numbers of
sites, in which one site masks a whole update and the others' messages are real but their arrays
short; a tenth of the sites leaves between messages and arrays, so the coordinator also takes out
masks of pairs. Times are of the process's own processor clock, one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.federation import wire
from healthfm_core.federation.secure.codecs import sum_codec
from healthfm_core.federation.secure.update_codec import SumCodec
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.privacy import secure_aggregation as secure

RESULTS = Path(__file__).parent / "results"
GOAL_S, GOAL_BYTES = 2.0, 1.1
NAME = "backbone.w"
_T = TypeVar("_T")


class Clock:
    """Processor seconds and bytes of one side."""

    def __init__(self) -> None:
        self.cpu_s, self.sent, self.received = 0.0, 0, 0

    def __call__(self, work: Callable[[], _T]) -> _T:
        """Do `work` on this side's clock."""
        begun = time.process_time()
        done = work()
        self.cpu_s += time.process_time() - begun
        return done


def codec(parameters: int, sites: int) -> SumCodec:
    """Return a round's encoding of one group; every site has 100 subjects."""
    schema = UpdateSchema({NAME: (parameters,)}, {"backbone": (NAME,)}, 100.0)
    return sum_codec(schema, (), 100 * sites, sites, SecureAggregationConfig(enabled=True))


def update_of(site: int, parameters: int) -> dict[str, Any]:
    """Return a site's update, about as long as a real one."""
    noise = np.random.default_rng(site).standard_normal(parameters, np.float32)
    return {NAME: noise / np.float32(parameters**0.5)}


class Bench:
    """One session: every message real, and the arrays of one site or of all.

    Args:
        sites: How many.
        parameters: Length of the update.
        whole: Whether every site masks an update of its own, and nobody leaves.
    """

    def __init__(self, sites: int, parameters: int, *, whole: bool) -> None:
        config = SecureAggregationConfig()
        self.whole, self.parameters = whole, parameters
        self.terms = secure.Terms(
            "bench", "round", 1, "00", config.threshold, config.min_sites, 0, 0.1, 0.1
        )
        self.names = [f"site-{i:03d}" for i in range(sites)]
        self.left = set() if whole else set(self.names[sites - sites // 10 :])
        self.server, self.coordinator = secure.ServerSession(self.terms), Clock()
        self.clocks = {name: Clock() for name in self.names}
        self.states: dict[str, secure.SiteSession] = {}
        self.plan = codec(parameters, sites)
        self.exact = np.zeros(parameters if whole else 0)

    def messages(self) -> None:
        """Exchange keys and shares."""
        signers = {name: secure.SigningKey.generate() for name in self.names}
        for name, clock in self.clocks.items():
            begin = partial(secure.begin, name, self.terms, signers[name])
            self.states[name], advert = clock(begin)
            clock.sent += len(advert.to_json())
            self.coordinator(partial(self.server.take_advert, name, advert))
        text = self.server.book.to_json()
        for name, clock in self.clocks.items():
            self.states[name], sealed = clock(partial(self.share, name, text))
            clock.sent, clock.received = clock.sent + len(sealed.to_json()), len(text)
            self.coordinator(partial(self.server.take_shares, name, sealed))

    def share(self, name: str, text: str) -> tuple[secure.SiteSession, secure.SealedShares]:
        """Answer the book of keys as a site does, from its text."""
        return secure.share(self.states[name], secure.KeyBook.from_json(text), {})

    def arrays(self) -> None:
        """Mask and fold."""
        self.server.sizes(self.plan.sizes())
        for i, (name, box) in enumerate(self.server.mailboxes().items()):
            if name in self.left:
                continue
            self.clocks[name].received += len(box.to_json())
            masked = self.real(i, name, box) if self.whole or i == 0 else self.short(name, box)
            self.coordinator(partial(self.server.fold, name, masked))

    def real(self, i: int, name: str, box: secure.Mailbox) -> dict[str, Any]:
        """Encode, mask and pack a whole update on the site's clock."""
        clock, update = self.clocks[name], update_of(i, self.parameters)
        if self.whole:
            self.exact += update[NAME]
        masked = clock(lambda: self.plan.encode(update, {"backbone": 100.0}, {}, 100.0))
        self.states[name] = clock(lambda: secure.mask(self.states[name], box, masked))
        clock.sent += sum(len(clock(partial(wire.pack, array))) for array in masked.values())
        return dict(masked)

    def short(self, name: str, box: secure.Mailbox) -> dict[str, Any]:
        """Go through the steps with one number of each array, and send zeros."""
        arrays = {n: np.zeros(size, dtype) for n, (size, dtype) in self.plan.sizes().items()}
        firsts = {n: array[:1].copy() for n, array in arrays.items()}
        self.states[name] = secure.mask(self.states[name], box, firsts)
        return arrays

    def open(self) -> dict[str, Any]:
        """Gather the shares and return the opened sums."""
        request = self.server.request()
        for name in request.survivors:
            reply = self.clocks[name](partial(secure.unmask, self.states[name], request))
            self.clocks[name].sent += len(reply.to_json())
            self.coordinator(partial(self.server.take_reply, name, reply))
        return self.coordinator(self.server.open)

    def figures(self) -> dict[str, Any]:
        """Run the session and return what it cost."""
        self.messages()
        self.arrays()
        sums = self.open()
        counted = [self.clocks[name] for name in (self.names if self.whole else self.names[:1])]
        sent = max(clock.sent for clock in counted)
        found = {
            "sites": len(self.names),
            "neighbours": len(self.server.book.graph[self.names[0]]),
            "site_cpu_s": round(max(clock.cpu_s for clock in counted), 3),
            "bytes_ratio": round(sent / (4 * self.parameters), 5),
            "letters_sent": sent - 4 * self.parameters,
            "letters_received": max(clock.received for clock in counted),
            "coordinator_cpu_s": round(self.coordinator.cpu_s, 3),
        }
        return found | (self.accuracy(sums) if self.whole else {})

    def accuracy(self, sums: dict[str, Any]) -> dict[str, float]:
        """Return how far the opened mean is off the plain one, and how far it may be."""
        mean = self.plan.decode(sums).means["backbone"][NAME]
        off = np.abs(mean - self.exact / len(self.names)).max()
        most = self.plan.ring("backbone").resolution / self.plan.capacity
        return {"largest_difference": float(off), "resolution": most}


def main() -> None:
    """Print the figures and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=30_000_000)
    parser.add_argument("--goal-sites", type=int, default=16)
    parser.add_argument("--sites", type=int, nargs="*", default=[3, 5, 8, 16, 32, 64, 100])
    given = parser.parse_args()
    whole = Bench(given.goal_sites, given.parameters, whole=True).figures()
    print(
        f"{given.goal_sites} sites, {given.parameters:,} parameters: {whole['site_cpu_s']:.2f} s "
        f"of a site's processor (goal {GOAL_S:g}), {whole['bytes_ratio']:.4f} x the float32 update "
        f"(goal {GOAL_BYTES:g}), off the plain mean by {whole['largest_difference']:.1e} at most "
        f"(resolution {whole['resolution']:.1e}); coordinator {whole['coordinator_cpu_s']:.2f} s"
    )
    rows = [Bench(n, given.parameters, whole=False).figures() for n in given.sites]
    keys = list(rows[0]) if rows else []
    print("  ".join(keys))
    for row in rows:
        print("  ".join(f"{row[key]:>{len(key)}}" for key in keys))
    RESULTS.mkdir(exist_ok=True)
    figures = {"goal_s": GOAL_S, "goal_bytes": GOAL_BYTES, "whole": whole, "table": rows}
    (RESULTS / "secure_aggregation.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
