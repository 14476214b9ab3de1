"""Runs that ask for a person's approval: what was asked, in plain words, and what was answered."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from healthfm_client.consent.run_sentences import sentences
from healthfm_core.errors import PolicyError
from healthfm_core.trust import files, signed
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.contract import Contract

Answer = Literal["waiting", "approved", "denied"]
_RUN: Final = re.compile(r"[0-9a-f]{16}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""A run's name as an honest coordinator gives it: nothing that a shell or a terminal obeys."""
_OF_ONE_RUN: Final = ("name", "seed")
"""Settings in which runs of the same terms may differ."""


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
        name: What the coordinator's people call it.
        terms: Hash of what runs of the same terms have in common.
        config: Its configuration.
        stated: What the coordinator states; None in a request of a release before 0.9.
        facts: What `words` say, for a program (`consent.run_facts`).
        further: Whether the approval holds for further runs of the same terms.
        approved_by: The earlier run whose approval held for this one too; empty: its own.
    """

    run: str
    study: str
    config_hash: str
    words: tuple[str, ...]
    since: str
    expires: str
    answer: Answer = "waiting"
    answered: str = ""
    name: str = ""
    terms: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    stated: Mapping[str, str] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    further: bool = False
    approved_by: str = ""

    @property
    def called(self) -> str:
        """What a person types for it: its name, or its number where that is none to be typed."""
        is_name = _NAME.fullmatch(self.name) and not _RUN.fullmatch(self.name)
        return self.name if is_name else self.run

    @property
    def digest(self) -> str:
        """Tells this request from another one of the same run, in other terms."""
        of = [self.run, self.study, self.config_hash, self.stated or {}, self.words, self.since]
        return hashlib.sha256(signed.canonical(of)).hexdigest()[:32]

    def is_of(self, contract: Contract) -> bool:
        """Whether a contract asks what this request asked."""
        same = self.stated is None or self.stated == contract.statement
        return same and self.config_hash == contract.terms.config_hash


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
        self,
        contract: Contract,
        facts: Callable[[], Mapping[str, Any]],
        now: datetime | None = None,
    ) -> None:
        """Refuse a run that nobody has approved, and note that it asks.

        Args:
            contract: What the coordinator signed.
            facts: Counts what the run would do here; called when the run asks first.
            now: The time, for tests.

        Raises:
            PolicyError: It waits (HF-503) or was denied (HF-506).
        """
        asked = self._find(contract.terms.run)
        if asked is None or not asked.is_of(contract):
            asked = self._ask(contract, facts(), now)
        where = f"site policy, run {asked.called}"
        if asked.answer == "waiting":
            raise PolicyError(503, where=where, seen="nobody at the site has approved it yet")
        if asked.answer == "denied":
            raise PolicyError(506, where=where)

    def answer(
        self,
        run: str,
        answer: Answer,
        now: datetime | None = None,
        *,
        further: bool = False,
        digest: str | None = None,
    ) -> ApprovalRequest:
        """Put the administrator's answer on disk and return the run; it may be changed later.

        Args:
            run: Its name or its number.
            answer: What the administrator says.
            now: The time, for tests.
            further: Whether an approval holds for further runs of the same terms, too.
            digest: Of the request that the person read; None: the one that was listed last.

        Raises:
            PolicyError: No such run asks, or several are called so (HF-503), or it asks for
                something else than what was read (HF-509).
        """
        asked = self.find(run)
        read = digest or self._was_read(asked)
        if read and read != asked.digest:
            raise PolicyError(509, where=f"run {asked.called}")
        stands = further and answer == "approved"
        answered = replace(
            asked, answer=answer, answered=_stamp(now), further=stands, approved_by=""
        )
        self._write(answered)
        return answered

    def note_read(self, asked: ApprovalRequest) -> None:
        """Note that a person has seen what a run asks: an answer is to that, and to nothing else.

        A coordinator may ask something else for the same run while the person reads.
        """
        files.replace(self._folder / f"{asked.run}.read", asked.digest.encode(), files.PRIVATE)

    def _was_read(self, asked: ApprovalRequest) -> str:
        path = self._folder / f"{asked.run}.read"
        return path.read_text("utf-8") if path.exists() else ""

    def find(self, run: str) -> ApprovalRequest:
        """Return the run of a name or number.

        Raises:
            PolicyError: None has it, or several are called so (HF-503).
        """
        numbered = self._find(run)
        found = [numbered] if numbered else [asked for asked in self if asked.called == run]
        if len(found) == 1:
            return found[0]
        numbers = ", ".join(asked.run for asked in found)
        raise PolicyError(
            503,
            where=f"run {run[:64]}",
            seen=f"several runs are called so: {numbers}" if found else "no such run has asked",
            wanted="one of these numbers" if found else "a name or number from the list",
            do="List them with: healthfm-client requests",
        )

    def standing_for(self, contract: Contract) -> ApprovalRequest | None:
        """Return the newest run whose approval holds for a contract's too; None where none does."""
        terms = _terms(contract)
        standing = [one for one in self if one.further and one.terms == terms]
        return standing[-1] if standing else None

    def last_approved(self, before: ApprovalRequest) -> ApprovalRequest | None:
        """Return the run that was approved last, other than `before`; None where none was."""
        approved = (a for a in self if a.answer == "approved" and a.run != before.run)
        return max(approved, key=lambda asked: asked.answered, default=None)

    def _ask(
        self, contract: Contract, facts: Mapping[str, Any], now: datetime | None
    ) -> ApprovalRequest:
        """Put on disk that a run asks; approved at once where a standing approval covers it."""
        terms = contract.terms
        asked = ApprovalRequest(
            run=terms.run,
            study=contract.study,
            config_hash=terms.config_hash,
            words=sentences(facts),
            since=_stamp(now),
            expires=_stamp(contract.expires),
            name=str(contract.statement.get("run", "")),
            terms=_terms(contract),
            config=dict(terms.config),
            stated=dict(contract.statement),
            facts=facts,
        )
        standing = self.standing_for(contract)
        if standing is not None:
            by = standing.called
            asked = replace(asked, answer="approved", answered=_stamp(now), approved_by=by)
        self._write(asked)
        return asked

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


def _terms(contract: Contract) -> str:
    """Return a hash of what runs of the same terms have in common."""
    config = {k: v for k, v in contract.terms.config.items() if k not in _OF_ONE_RUN}
    stated = {k: v for k, v in contract.statement.items() if k != "run"}
    return hashlib.sha256(signed.canonical([contract.study, config, stated])).hexdigest()


def _stamp(now: datetime | None) -> str:
    return f"{now or now_utc():%Y-%m-%dT%H:%M:%SZ}"
