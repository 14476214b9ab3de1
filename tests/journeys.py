"""Follows a raw OMOP row to its loss and a round from command to checkpoint, function by function.

    python -m tests.journeys          # the figures
    python -m tests.journeys --list   # and every function, in the order of its first call
    python -m tests.journeys --page   # docs/journeys.md

A function of the product counts once, where it is first called, unless a module is being loaded.
What is counted: functions, the files they are in, how many of them call another one, returns (how
often the list comes back to a file that it had left), and re-entrances: a function of a file is
called by another file while a function of its own file waits for that one. Each goes through an
interface that has a name, or `tests/test_journeys.py` fails.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import itertools
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

import tests.quiet_flower
from healthfm_client.__main__ import main as client_main
from healthfm_core.config.compose import compose
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.engine.inprocess import InProcessGrid
from tests import three_numbers as small

assert tests.quiet_flower

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = tuple(
    str(ROOT / name) + "/" for name in ("healthfm_core", "server", "client", "simulations")
)
PERSONS = 60
INTERFACES = {
    "InProcessGrid": "`Grid`, by which Flower's engines are exchanged",
    "run_federation.<locals>.hear": "`ProgressListener`, a callback",
}
"""Class or function that is come back to → the interface that it is called by."""


@dataclass(frozen=True)
class Function:
    """A function of the product, where the journey first came to it.

    Attributes:
        file: From the repository's root.
        name: With its class.
        depth: How many of the product's functions it was called through.
    """

    file: str
    name: str
    depth: int


@dataclass
class Journey:
    """The functions that a piece of work goes through.

    Attributes:
        title: What was followed.
        functions: In the order of their first calls.
        reentrances: Function that its own file's caller waits for → who waits, then who calls.
    """

    title: str
    functions: list[Function] = field(default_factory=list)
    reentrances: dict[Function, list[Function]] = field(default_factory=dict)
    _seen: set[CodeType] = field(default_factory=set)
    _callers: set[CodeType] = field(default_factory=set)
    _codes: list[CodeType] = field(default_factory=list)
    _reentered: set[CodeType] = field(default_factory=set)
    _ended: bool = False

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Write down what is called inside, in every thread that is started there too."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def end(self) -> None:
        """Write down nothing more."""
        self._ended = True

    @property
    def callers(self) -> int:
        """How many of them call another one: the others are where the work ends."""
        return sum(code in self._callers for code in self._codes)

    @property
    def files(self) -> list[str]:
        """Files in the order in which they are first come to."""
        return list(dict.fromkeys(function.file for function in self.functions))

    @property
    def returns(self) -> int:
        """How often the list comes back to a file that it had left."""
        files = [function.file for function in self.functions]
        stays = 1 + sum(one != other for one, other in itertools.pairwise(files))
        return stays - len(self.files)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or self._ended or not _is_function(code):
            return
        caller = _above(frame)
        if caller is not None:
            self._callers.add(caller.f_code)
            self._note_reentrance(frame, caller)
        if code in self._seen or _is_importing(frame):
            return
        self._seen.add(code)
        self.functions.append(_named(frame))
        self._codes.append(code)

    def _note_reentrance(self, frame: FrameType, caller: FrameType) -> None:
        file, above = frame.f_code.co_filename, caller
        if caller.f_code.co_filename == file or frame.f_code in self._reentered:
            return
        while (waits := _above(above)) is not None and waits.f_code.co_filename != file:
            above = waits
        if waits is not None and not _is_importing(frame):
            self._reentered.add(frame.f_code)
            self.reentrances[_named(frame)] = [_named(waits), _named(caller)]


def _is_function(code: CodeType) -> bool:
    """Whether it is a function of the product: no comprehension, no body of a class or module."""
    is_body = not code.co_flags & inspect.CO_OPTIMIZED
    return code.co_filename.startswith(PRODUCT) and not is_body and code.co_name[0] != "<"


def _named(frame: FrameType) -> Function:
    file = str(Path(frame.f_code.co_filename).relative_to(ROOT))
    return Function(file, frame.f_code.co_qualname, _depth(frame))


def _is_importing(frame: FrameType | None) -> bool:
    """Whether it is called while a module is loaded."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(PRODUCT):
            return True
        frame = frame.f_back
    return False


def _above(frame: FrameType) -> FrameType | None:
    """Return the nearest function of the product that it was called through."""
    above = frame.f_back
    while above is not None and not _is_function(above.f_code):
        above = above.f_back
    return above


def _depth(frame: FrameType) -> int:
    depth, above = 0, _above(frame)
    while above is not None:
        depth, above = depth + 1, _above(above)
    return depth


def row_to_loss(folder: Path) -> Journey:
    """Follow an OMOP export into a store, and the store through a round to the first loss."""
    journey = Journey("A raw OMOP row to its loss")
    export, store = folder / "cdm", folder / "store"
    write_omop(export)
    with journey.followed():
        client_main(["ingest", "omop", str(export), "--out", str(store)])
    config = compose(["rounds=1", "tokens.k_min=5", "train.max_steps=1"])
    with _delivered(journey, {"prepare", "train"}), _first_gradient(journey.end):
        run_federation(config, [NodeSpec("store", ((store, None),))], folder / "run")
    return journey


def command_to_checkpoint(folder: Path) -> Journey:
    """Follow a run of one round, the model a few numbers: what is left is the federation."""
    journey = Journey("A round from the command to its checkpoint")
    sites = small.three_sites(folder / "sites")
    with journey.followed():
        config = compose(["rounds=1"])
        run_federation(config, sites, folder / "run", apps=small.apps())
    return journey


@contextlib.contextmanager
def _delivered(journey: Journey, kinds: set[str]) -> Iterator[None]:
    """Follow only what the site does with messages of these kinds."""
    deliver = InProcessGrid._deliver

    def followed(grid: InProcessGrid, message: Any) -> Any:
        if message.metadata.message_type.rpartition(".")[2] not in kinds:
            return deliver(grid, message)
        with journey.followed():
            return deliver(grid, message)

    InProcessGrid._deliver = followed
    try:
        yield
    finally:
        InProcessGrid._deliver = deliver


@contextlib.contextmanager
def _first_gradient(then: Callable[[], None]) -> Iterator[None]:
    """Call `then` where the first gradient is asked for: the loss is there."""
    backward = torch.Tensor.backward

    def noted(loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        then()
        backward(loss, *args, **kwargs)

    torch.Tensor.backward = noted
    try:
        yield
    finally:
        torch.Tensor.backward = backward


def write_omop(folder: Path) -> None:
    """Write people with a visit, a condition and a measurement a month, as OMOP's CSV tables."""
    folder.mkdir()
    tables = {
        "person": ["person_id,gender_concept_id,year_of_birth"],
        "visit_occurrence": [
            "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date"
        ],
        "condition_occurrence": ["person_id,condition_concept_id,condition_start_date"],
        "measurement": ["person_id,measurement_concept_id,measurement_date,value_as_number"],
    }
    for person in range(1, PERSONS + 1):
        tables["person"].append(f"{person},{8507 + 25 * (person % 2)},19{40 + person % 50}")
        for month in range(1, 13):
            day = f"2015-{month:02d}-{person % 28 + 1:02d}"
            visit = 100 * person + month
            tables["visit_occurrence"].append(f"{visit},{person},9202,{day},{day}")
            tables["condition_occurrence"].append(f"{person},{201826 + person % 3},{day}")
            tables["measurement"].append(f"{person},3004501,{day},{80 + (person * month) % 40}")
    for name, lines in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def figures(journey: Journey) -> str:
    """Return the counts as words."""
    return (
        f"{len(journey.functions)} functions in {len(journey.files)} files, {journey.callers} of "
        f"them call others; {journey.returns} returns to a file that was left; "
        f"{len(journey.reentrances)} re-entrances; deepest call "
        f"{max(function.depth for function in journey.functions) + 1} functions"
    )


def listed(journey: Journey) -> Iterator[str]:
    """Yield a line for each stay in a file: the file, and the functions called there first."""
    here = ""
    for function in journey.functions:
        if function.file != here:
            here = function.file
            yield f"\n{here}"
        yield f"  {function.name}"


def reentered(journey: Journey) -> Iterator[str]:
    """Yield a line for each re-entrance: the function, who waits, who calls, and the interface."""
    for function, (waits, caller) in journey.reentrances.items():
        by = interface_of(function) or "no named interface"
        yield (
            f"- `{function.name}` of {function.file}, in which `{waits.name}` waits, is called by "
            f"`{caller.name}` of {caller.file}: {by}."
        )


def interface_of(function: Function) -> str | None:
    """Return the interface that a function is come back to by; None where it has no name."""
    return INTERFACES.get(function.name) or INTERFACES.get(function.name.partition(".")[0])


def page(journeys: list[Journey]) -> str:
    """Return docs/journeys.md."""
    parts = [
        "# Journeys\n\nMade by `python -m tests.journeys --page > docs/journeys.md`: every "
        "function of the product that the work goes through, once, where it is first called, "
        "under its file. A return: the list comes back to a file that it had left. A re-entrance: "
        "a file is called while one of its own functions waits for the caller.\n"
    ]
    for journey in journeys:
        body = "\n".join(listed(journey)).strip()
        again = "\n".join(reentered(journey)) or "It is nowhere re-entered."
        parts.append(f"\n## {journey.title}\n\n{figures(journey)}.\n\n{again}\n")
        parts.append(f"\n```\n{body}\n```\n")
    return "".join(parts)


def follow() -> list[Journey]:
    """Return both journeys."""
    torch.set_num_threads(1)
    found = []
    for travel in (row_to_loss, command_to_checkpoint):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            found.append(travel(Path(folder)))
    return found


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    journeys = follow()
    if asked.page:
        sys.stdout.write(page(journeys))
        return
    for journey in journeys:
        sys.stdout.write(f"{journey.title}: {figures(journey)}\n")
        if asked.list:
            sys.stdout.write("\n".join((*reentered(journey), *listed(journey))) + "\n\n")


if __name__ == "__main__":
    main()
