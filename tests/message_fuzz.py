"""Messages that a hostile coordinator, server or site may send: real ones, changed.

    python -m tests.message_fuzz --messages 100000 [--seed 0]

Real apps, real keys and real contracts (`tests.enrolled`). The corpus is every message of two real
runs, one whose updates travel in the clear and one of secure sums. What a site gets and what a
server gets back is one of those with some of its fields, bytes, records or its very kind changed.

What has to hold, whatever comes:

- nothing is raised out of an app, and no failure is an unforeseen one (HF-407, or Flower's own);
- at a site nobody trains: every order of the corpus was used, and no changed one was signed. No
  file of its folder changes but the log of what left, and no line of the budget is written;
- at the server the run ends with all its rounds, the honest sites in each of them and its
  parameters finite.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import string
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from healthfm_core.errors import HealthFMError
from healthfm_core.federation import protocol, wire
from healthfm_simulations.engine.inprocess import copied
from tests import enrolled
from tests import three_numbers as small

KINDS: Final = (
    protocol.STATISTICS,
    protocol.PREPARE,
    protocol.TRAIN,
    protocol.KEYS,
    protocol.SHARES,
    protocol.UNMASK,
)
SECURE: Final = {"aggregation": {"secure": {"enabled": True, "message_timeout_s": 30.0}}}
MAY_CHANGE: Final = ("egress.log", "egress.head", "contracts", "nonces", "orders")
"""Files and folders of a site that a message may write to: what left, and what was used up."""
NESTED: Final = "[" * 100_000
UNFORESEEN: Final = "HF-407"
CODE: Final = re.compile(r"HF-\d{3}")


class Tallying(small.ClientWork):
    """Counts how often it was made to train."""

    trained = 0

    def train_round(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and count."""
        self.trained += 1
        return super().train_round(*args, **kwargs)


# --- what is changed --------------------------------------------------------------------------

Leaf = Any


def odd_values(random: Random) -> Iterator[Leaf]:
    """Yield values that nobody expects, for ever."""
    while True:
        yield random.choice(
            [
                0, -1, 1, 2**63 - 1, -(2**63), 10**18, 0.0, -0.0, 1e308, float("nan"), float("inf"),
                "", "null", "[]", "{}", "\x00", "../..", "é" * 40, "9" * 400, NESTED, True, False,
                "".join(random.choices(string.printable, k=random.randrange(1, 60))),
                random.randbytes(random.randrange(40)),
            ]
        )  # fmt: skip


def changed_json(text: str, random: Random) -> str:
    """Return the text with one leaf or one key of its JSON changed; as it is where it is none."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return text
    holder, key = [raw], 0
    while isinstance(holder[key], dict | list) and holder[key] and random.random() < 0.9:
        holder = holder[key]
        key = random.choice(list(holder)) if isinstance(holder, dict) else _index(holder, random)
    match random.randrange(4):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder["more"] = 1
        case 2 if isinstance(holder[key], int | float):
            whole = isinstance(holder[key], int)  # 0.5 is too small for some, and overflows
            holder[key] += random.choice([-1, 1, 2, 10**9] if whole else [-1, 1, 0.5, 10**9])
        case _:
            value = next(odd_values(random))
            holder[key] = value.hex() if isinstance(value, bytes) else value
    return json.dumps(raw)


def _index(values: list[Any], random: Random) -> int:
    return random.randrange(len(values))


def changed_text(text: str, random: Random) -> str:
    """Return the text with a part cut out, doubled or overwritten, or its JSON changed."""
    if not text or random.random() < 0.5:
        return changed_json(text, random)
    at, length = random.randrange(len(text)), random.randrange(1, 9)
    middle = random.choice(["", text[at : at + length] * 2, random.choice(string.printable)])
    return text[:at] + middle + text[at + length :]


def changed_value(value: Leaf, random: Random) -> Leaf:
    """Return another value for a key of a record."""
    if isinstance(value, str) and random.random() < 0.8:
        return changed_text(value, random)
    return next(odd_values(random))


def changed_array(array: Array, random: Random) -> Array:
    """Return the array with other bytes, another shape or type, or a bundle with other arrays."""
    data, shape, kind = array.data, array.shape, array.dtype
    match random.randrange(6):
        case 0:
            data = data[: random.randrange(len(data) + 1)]
        case 1 if data:
            at = random.randrange(len(data))
            data = data[:at] + random.randbytes(1) + data[at + 1 :]
        case 2:
            shape = tuple(random.choices([0, 1, 2, 7, 2**31, -1], k=random.randrange(4)))
        case 3:
            kind = random.choice(["object", "float16", "float64", "uint32", "no type", "V8"])
        case _:
            data = _changed_bundle(data, random)
    return Array(kind, shape, array.stype, data)


def _changed_bundle(data: bytes, random: Random) -> bytes:
    """Return a bundle, if it is one, with one of its arrays filled, cut, doubled or left out."""
    try:
        arrays = {name: np.array(value) for name, value in wire.unbundle(data).items()}
    except ValueError:
        return data
    name = random.choice(sorted(arrays)) if arrays else "none"
    value = arrays.pop(name, np.zeros(1, np.float32))
    match random.randrange(4):
        case 0:
            fill = random.choice([0, 1, -1, 2**31 - 1, 3e38, np.nan, np.inf])
            kind = value.dtype if np.isfinite(fill) and abs(fill) < 2**31 else np.dtype(np.float32)
            arrays[name] = np.full(value.shape, fill, np.float64).astype(kind)
        case 1:
            arrays[name] = value.ravel()[: random.randrange(value.size + 1)]
        case 2:
            arrays[name] = np.concatenate([value.ravel(), value.ravel()])
    return wire.bundle(arrays)


def _change_record(content: RecordDict, name: str, random: Random) -> None:
    record = content[name]
    keys = list(record)
    if not keys or random.random() < 0.1:
        del content[name]
        return
    key = random.choice(keys)
    if random.random() < 0.15:
        del record[key]
    elif isinstance(record, ArrayRecord):
        record[key] = changed_array(record[key], random)
    elif isinstance(record, MetricRecord):
        record[key] = random.choice([float("nan"), float("inf"), -1, 2**62, 1e308, [1.0, 2.0]])
    else:
        record[key] = changed_value(record[key], random)


def changed(content: RecordDict, others: Sequence[RecordDict], random: Random) -> RecordDict:
    """Return `content` with one to three changes; some are records of another message.

    Args:
        content: What a real message carried; it stays as it is.
        others: What others carried.
        random: Decides.
    """
    content = copied(content)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        names = list(content)
        if not names or random.random() < 0.1:
            other = copied(random.choice(others))
            for name in other:
                content[name] = other[name]
        elif random.random() < 0.05:
            content["more"] = ConfigRecord({"a": 1})
        else:
            _change_record(content, random.choice(names), random)
    return content


def equal(one: RecordDict, other: RecordDict) -> bool:
    """Whether two messages carry the same."""
    return list(one) == list(other) and all(dict(one[n]) == dict(other[n]) for n in one)


# --- at a site --------------------------------------------------------------------------------


@dataclass
class SiteReport:
    """What a site made of the messages.

    Attributes:
        refused: Code → how often it was the answer.
        answered: Kind of message → how often a changed message was answered all the same.
        unforeseen: Failures that no code names, and exceptions.
        trained: How often somebody was made to train.
        touched: Files of the site's folder that changed and may not.
    """

    refused: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    unforeseen: list[str] = field(default_factory=list)
    trained: int = 0
    touched: list[str] = field(default_factory=list)


def corpus(folder: Path, work: small.ClientWork, **federation: Any) -> enrolled.Wire:
    """Return the grid of a finished run over three enrolled sites, with every message of it."""
    study, sites = enrolled.three(folder)
    grid = enrolled.Wire(sites, work)
    enrolled.run(grid, study, folder / "run", **federation)
    return grid


def files_of(home: Path) -> dict[str, str]:
    """Return a hash of every file in a site's folder that no message may change."""
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not any(part.startswith(MAY_CHANGE) for part in path.parts)
    }


def attack_a_site(folder: Path, messages: int, random: Random, **federation: Any) -> SiteReport:
    """Send one site of a finished run changed messages, and return what it made of them."""
    work = Tallying()
    grid = corpus(folder, work, **federation)
    mine = [m for m in grid.sent if m.metadata.dst_node_id == 1]
    home = Path(str(grid._contexts[1].node_config["home"]))
    contents = [m.content for m in grid.sent]
    report, before, trained = SiteReport(), files_of(home), work.trained
    for _ in range(messages):
        real = random.choice(mine)
        kind = random.choice(KINDS) if random.random() < 0.1 else real.metadata.message_type
        content = changed(real.content, contents, random)
        reply = _sent(grid, real, kind, content, report)
        if reply is not None:
            _note(report, kind, reply, is_changed=not equal(content, real.content))
    report.trained = work.trained - trained
    after = files_of(home)
    report.touched = sorted(
        k for k in before.keys() | after.keys() if before.get(k) != after.get(k)
    )
    return report


def _sent(
    grid: enrolled.Wire, real: Message, kind: str, content: RecordDict, report: SiteReport
) -> Message | None:
    message = Message(content, real.metadata.dst_node_id, kind, group_id=real.metadata.group_id)
    message.metadata.__dict__.update(real.metadata.__dict__)
    message.metadata.__dict__["_message_type"] = kind
    try:
        return grid._app(message, grid._contexts[1])
    except Exception as error:
        report.unforeseen.append(f"{kind}: raised {type(error).__name__}: {error}")
        return None


def _note(report: SiteReport, kind: str, reply: Message, *, is_changed: bool) -> None:
    if not reply.has_error():
        report.answered[kind] += is_changed
        return
    reason = reply.error.reason or ""
    code = CODE.search(reason)
    report.refused[code[0] if code else "none"] += 1
    if code is None or code[0] == UNFORESEEN:
        report.unforeseen.append(f"{kind}: {reason}")


# --- at the server ----------------------------------------------------------------------------


class HostileSite(enrolled.Wire):
    """Site b's replies are changed on their way, some of them; the others are as they are."""

    def __init__(self, nodes: list[enrolled.Enrolled], random: Random) -> None:
        super().__init__(nodes)
        self.random = random
        self.changes = 0

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        if message.metadata.dst_node_id == 2 and reply.has_content() and self.random.random() < 0.6:
            others = [m.content for m in self.back if m.has_content()]
            reply.content = changed(reply.content, others, self.random)
            self.changes += 1
        return reply


@dataclass
class ServerReport:
    """What the server made of a hostile site's replies.

    Attributes:
        changes: Replies that were changed.
        runs: Runs that they came in.
        set_aside: Code, or the first words, → how often a reply was set aside for it.
        wrong: What must not happen.
    """

    changes: int = 0
    runs: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def attack_a_server(folder: Path, messages: int, random: Random) -> ServerReport:
    """Run studies with one hostile site of three until it has sent `messages` changed replies."""
    report = ServerReport()
    study, sites = enrolled.three(folder)
    while report.changes < messages:
        seed = random.randrange(2**32)
        grid = HostileSite(sites, Random(seed))
        out = folder / f"run-{report.runs}"
        try:
            store = enrolled.run(grid, study, out)
        except HealthFMError as error:
            report.wrong.append(f"seed {seed}: the run ended: {error}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-3:]
            lines = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(where))
            report.wrong.append(f"seed {seed}: {type(error).__name__}: {error}, {lines}")
        else:
            report.wrong += [f"seed {seed}: {fault}" for fault in faults_of(store)]
            events = (e for e in store.events() if e["event"] == "set aside")
            reasons = [CODE.search(str(e["reason"])) for e in events]
            report.set_aside.update(code[0] if code else "none" for code in reasons)
        report.changes += max(1, grid.changes)
        report.runs += 1
        _removed(out)
    return report


def faults_of(store: Any) -> Iterable[str]:
    """Yield what a run shows that one hostile site must not cause."""
    rows = store.history()
    if len(rows) != 3:
        yield f"{len(rows)} rounds of 3"
    for row in rows:
        if not {"a", "c"} <= set(row["answered"]):
            yield f"round {row['round']}: an honest site was left out"
    state = store.checkpoints.load()
    if state is None or not all(np.isfinite(value).all() for value in state.parameters.values()):
        yield "parameters that are not finite"


def _removed(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


# --- the command ------------------------------------------------------------------------------


def faults(site: SiteReport) -> list[str]:
    """Return what must not happen at a site."""
    found = list(dict.fromkeys(site.unforeseen))
    if site.trained:
        found.append(f"it trained {site.trained} times")
    return found + [f"{name} was changed" for name in site.touched]


def main() -> None:
    """Send the messages and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    random, share = Random(given.seed), given.messages // 20
    attacks: list[tuple[str, Callable[[Path], SiteReport | ServerReport]]] = [
        ("a site, updates in the clear", lambda f: attack_a_site(f, 9 * share, random)),
        ("a site, secure sums", lambda f: attack_a_site(f, 10 * share, random, **SECURE)),
        ("the server", lambda f: attack_a_server(f, share, random)),
    ]
    wrong = 0
    for name, attack in attacks:
        with tempfile.TemporaryDirectory() as folder:
            report = attack(Path(folder))
        found = faults(report) if isinstance(report, SiteReport) else report.wrong
        said = "\n".join(["WRONG", *found[:40]]) if found else str(report)
        sys.stdout.write(f"{name}: {said}\n\n")
        wrong += len(found)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
