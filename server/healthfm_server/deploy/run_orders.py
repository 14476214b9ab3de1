"""What the coordinator wants of each run, on disk; the run reconciler makes it so after any crash.

A run's folder holds ``order.json`` beside what the ServerApp writes. The commands change what is
wanted; only the reconciler changes the status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from healthfm_core.config.renamed import RUN
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import RunError
from healthfm_core.trust import files
from healthfm_core.trust.names import check_name
from healthfm_server.run_folder.dry_run_file import DryRunTold
from healthfm_server.run_folder.held_out_file import HeldOutTold, is_judged_at_sites
from healthfm_server.run_folder.run_store import RunStore

Wanted = Literal["running", "paused", "stopped"]
State = Literal["waiting", "running", "paused", "stopped", "finished", "failed"]

ACTIONS: Final[Mapping[str, Wanted]] = {"pause": "paused", "resume": "running", "stop": "stopped"}
"""What a person types or a program posts → what is wanted from then on."""

ORDER: Final = "order.json"
DONE: Final = "done.json"


@dataclass(frozen=True)
class RunStatus:
    """Status of a run, as the run reconciler writes it to ``done.json``.

    Attributes:
        state: What the run is.
        flower_run: Flower's number of its latest submission, 0 before the first.
        submissions: How often it was submitted.
        not_before: Unix time before which it is not submitted again.
        reason: Why it waits or failed, empty where all is well.
    """

    state: State = "waiting"
    flower_run: int = 0
    submissions: int = 0
    not_before: float = 0.0
    reason: str = ""


class RunOrder:
    """One run of the study, its configuration and what is wanted of it.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    @classmethod
    def give(
        cls,
        runs: Path,
        name: str,
        config: RunConfig,
        nodes: int | None,
        sites: Sequence[str] = (),
        *,
        settings: Sequence[str] = (),
        dry_run: bool = False,
    ) -> RunOrder:
        """Order a new run: it starts as soon as the reconciler sees it.

        Args:
            runs: The study's folder of runs.
            name: The run's name.
            config: What it is to do.
            nodes: How many nodes it waits for; None: one of each site that is admitted by then,
                or of each of `sites`.
            sites: Names of the sites that it is for; empty: all.
            settings: As a person gave them.
            dry_run: Whether the sites are only asked if they would begin.

        Raises:
            RunError: There is a run of that name (HF-704).
            TrustError: The name cannot be used (HF-810).
        """
        folder = runs / check_name(name, "run")
        if folder.exists():
            raise RunError(
                704,
                where=f"run {name}",
                seen="there is a run of that name already",
                wanted="a name of its own",
                do="Choose another with --name, or continue it with: healthfm-server resume",
            )
        folder.mkdir(parents=True)
        order = cls(folder)
        given = datetime.now(UTC).isoformat(timespec="seconds")
        text = {"wanted": "running", "nodes": nodes, "sites": sorted(sites), "given": given}
        text |= {"settings": list(settings)} if settings else {}
        text |= {"dry_run": True} if dry_run else {}
        files.replace(folder / "wanted-config.json", config.model_dump_json(indent=1).encode())
        files.replace(folder / ORDER, json.dumps(text).encode())
        return order

    @classmethod
    def find(cls, runs: Path, name: str) -> RunOrder:
        """Return the run of that name.

        Raises:
            RunError: There is none (HF-722).
        """
        known = {order.name: order for order in cls.all(runs)}
        if name in known:
            return known[name]
        raise RunError(
            722,
            where=f"run {name[:64]}",
            seen="this study has no run of that name",
            wanted=f"one of {', '.join(sorted(known)) or '(there is none yet)'}",
        )

    @classmethod
    def all(cls, runs: Path) -> Iterator[RunOrder]:
        """Yield the study's runs, by name."""
        for path in sorted(runs.glob(f"*/{ORDER}")):
            yield cls(path.parent)

    @property
    def wanted(self) -> Wanted:
        """What the coordinator wants."""
        wanted: Wanted = json.loads((self.folder / ORDER).read_text("utf-8"))["wanted"]
        return wanted

    def want(self, wanted: Wanted) -> None:
        """Change what is wanted; ``running`` also lets a run that failed or waits start now."""
        raw = json.loads((self.folder / ORDER).read_text("utf-8"))
        files.replace(self.folder / ORDER, json.dumps({**raw, "wanted": wanted}).encode())
        if wanted == "running" and self.status().state not in ("running", "finished"):
            self.note(replace(self.status(), state="waiting", not_before=0.0, reason=""))

    @property
    def nodes(self) -> int | None:
        """How many nodes the run waits for before it begins; None: all sites admitted by then."""
        nodes = json.loads((self.folder / ORDER).read_text("utf-8"))["nodes"]
        return None if nodes is None else int(nodes)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites that the run is for; empty: all."""
        return tuple(self.about().get("sites", ()))

    @property
    def is_dry_run(self) -> bool:
        """Whether the sites are only asked if they would begin."""
        return bool(self.about().get("dry_run", False))

    def about(self) -> dict[str, Any]:
        """Return what was ordered and when: ``given``, ``wanted``, ``nodes``, ``sites``.

        Where there are any also ``settings``, and of a dry run ``dry_run``.
        """
        about: dict[str, Any] = json.loads((self.folder / ORDER).read_text("utf-8"))
        return about

    def config(self) -> RunConfig:
        """Return the configuration it was ordered with."""
        text = (self.folder / "wanted-config.json").read_text("utf-8")
        return RunConfig.model_validate(RUN.upgrade(json.loads(text)))

    def status(self) -> RunStatus:
        """Return the run's status, as the reconciler wrote it last."""
        path = self.folder / DONE
        return RunStatus(**json.loads(path.read_text("utf-8"))) if path.is_file() else RunStatus()

    def note(self, status: RunStatus) -> None:
        """Write the run's status."""
        files.replace(self.folder / DONE, json.dumps(asdict(status)).encode())

    def begun(self) -> bool:
        """Whether there is something to resume."""
        return RunStore.begun(self.folder)

    def rounds_done(self) -> int:
        """Return how many rounds have a complete checkpoint."""
        return max(RunStore(self.folder, keep=1).checkpoints.rounds(), default=0)

    def is_complete(self) -> bool:
        """Whether nothing is left to do: all rounds, and what comes after them where it is due.

        That is the choice among the rounds, and the sites' judgement on their held-out people.
        """
        if self.is_dry_run:
            return DryRunTold.read(self.folder) is not None
        config, store = self.config(), RunStore(self.folder, keep=1)
        federation = config.federation
        if federation.early_stopping.monitor is not None:
            is_trained = store.choice() is not None
        else:
            is_trained = self.rounds_done() >= federation.rounds
        is_due = is_judged_at_sites(config)
        return is_trained and (not is_due or HeldOutTold.read(self.folder) is not None)

    def failure(self) -> tuple[int, str] | None:
        """Return number and sentence of the error the last submission ended with, if with one."""
        path = self.folder / "failure.json"
        if not path.is_file():
            return None
        raw = json.loads(path.read_text("utf-8"))
        return int(raw["number"]), str(raw["error"])
