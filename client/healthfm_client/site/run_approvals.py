"""Runs that ask for a person's approval: what was asked, in plain words, and what was answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from healthfm_core.config.privacy_mechanisms import hides_each_person
from healthfm_core.errors import PolicyError
from healthfm_core.modalities.registry import described
from healthfm_core.trust import files
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.contract import Contract

Answer = Literal["waiting", "approved", "denied"]
_RUN: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class ApprovalRequest:
    """One run, as it asks.

    Attributes:
        run: Its number.
        study: The study it belongs to.
        config_hash: Hash of its configuration: another configuration asks again.
        words: What it would do here, a sentence a line.
        since: When it asked first, ISO 8601 in UTC.
        expires: Until when its contract holds.
        answer: What the administrator said.
        answered: When, empty while it waits.
    """

    run: str
    study: str
    config_hash: str
    words: tuple[str, ...]
    since: str
    expires: str
    answer: Answer = "waiting"
    answered: str = ""


class Approvals:
    """A folder with a file per run.

    Args:
        folder: It is made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[ApprovalRequest]:
        """Yield every run that asked, the newest last."""
        requests = [self._read(path) for path in sorted(self._folder.glob("*.json"))]
        yield from sorted(requests, key=lambda asked: (asked.since, asked.run))

    def check(
        self, contract: Contract, words: tuple[str, ...], now: datetime | None = None
    ) -> None:
        """Refuse a run that nobody has approved, and note that it asks, in `words`.

        Raises:
            PolicyError: It waits (HF-503) or was denied (HF-506).
        """
        terms = contract.terms
        asked = self._find(terms.run)
        if asked is None or asked.config_hash != terms.config_hash:
            asked = ApprovalRequest(
                run=terms.run,
                study=contract.study,
                config_hash=terms.config_hash,
                words=words,
                since=_stamp(now),
                expires=_stamp(contract.expires),
            )
            self._write(asked)
        where = f"site policy, run {terms.run}"
        if asked.answer == "waiting":
            raise PolicyError(503, where=where, seen="nobody at the site has approved it yet")
        if asked.answer == "denied":
            raise PolicyError(506, where=where)

    def answer(self, run: str, answer: Answer, now: datetime | None = None) -> ApprovalRequest:
        """Put the administrator's answer on disk and return the run; it may be changed later.

        Raises:
            PolicyError: No such run asks (HF-503).
        """
        asked = self._find(run)
        if asked is None:
            raise PolicyError(
                503,
                where=f"run {run[:32]}",
                seen="no run of that number has asked",
                wanted="a number from the list",
                do="List them with: healthfm-client requests",
            )
        answered = replace(asked, answer=answer, answered=_stamp(now))
        self._write(answered)
        return answered

    def _find(self, run: str) -> ApprovalRequest | None:
        path = self._folder / f"{run}.json"
        return self._read(path) if _RUN.fullmatch(run) and path.exists() else None

    def _read(self, path: Path) -> ApprovalRequest:
        try:
            raw: dict[str, Any] = json.loads(files.read(path, "a run's request"))
            return ApprovalRequest(**{**raw, "words": tuple(raw["words"])})
        except (ValueError, KeyError, TypeError) as error:
            raise files.unusable(path, "a run's request is damaged") from error

    def _write(self, asked: ApprovalRequest) -> None:
        if not _RUN.fullmatch(asked.run):
            seen = "its number is not one that a coordinator gives"
            raise PolicyError(501, where=f"site policy, run {asked.run[:32]}", seen=seen)
        text = json.dumps(asdict(asked), indent=1, ensure_ascii=False) + "\n"
        files.replace(self._folder / f"{asked.run}.json", text.encode())


def describe_run(contract: Contract, *, k_min: int, own_noise: bool) -> tuple[str, ...]:
    """Return what a run would do at the site, for who knows the hospital and not the model.

    Args:
        contract: What the coordinator signed.
        k_min: The site's own threshold for counts.
        own_noise: Whether the site adds noise whatever a run asks.
    """
    terms = contract.terms
    k = max(terms.k_min, k_min)
    modalities = described(terms.modalities)
    return (
        f"Run {_plain(terms.config.get('name', ''))!r} of the study {contract.study}.",
        "It trains a model on this site's computer. Records, names and dates stay here.",
        f"First it asks how many people have each code; counts under {k} stay here.",
        f"Then, {terms.rounds} times, it sends a model, trains it here for a while, and gets the "
        "changes of the model back, with averages of how well it does.",
        f"It reads: {modalities or 'whatever site.yaml permits'}.",
        "Noise is added that bounds what the changes can tell about any one person."
        if hides_each_person(terms.privacy) or own_noise
        else "No noise is added: changes of a model are known to tell a little about the people "
        "it was trained on.",
        "The coordinator sees only sums over several sites."
        if terms.sums_only
        else "The coordinator sees the changes of this site by itself.",
        f"The contract holds until {contract.expires:%Y-%m-%d %H:%M} UTC.",
    )


def _plain(name: object) -> str:
    return "".join(character for character in str(name)[:64] if character.isprintable())


def _stamp(now: datetime | None) -> str:
    return f"{now or now_utc():%Y-%m-%dT%H:%M:%SZ}"
