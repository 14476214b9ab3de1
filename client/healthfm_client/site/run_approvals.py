"""Runs that ask for a person's approval: what was asked, in plain words, and what was answered."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_core.config.privacy_mechanisms import MECHANISMS, hides_each_person
from healthfm_core.errors import PolicyError
from healthfm_core.modalities.registry import described
from healthfm_core.trust import files
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.contract import Contract, ContractTerms

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


def describe_run(contract: Contract, *, k_min: int, privacy: SitePrivacy) -> tuple[str, ...]:
    """Return what a run would do at the site, for who knows the hospital and not the model.

    Args:
        contract: What the coordinator signed.
        k_min: The site's own threshold for counts.
        privacy: The site's own rules about noise.
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
        _noise(terms, privacy),
        "The coordinator sees only sums over several sites."
        if terms.sums_only
        else "The coordinator sees the changes of this site by itself.",
        f"The contract holds until {contract.expires:%Y-%m-%d %H:%M} UTC.",
    )


def _noise(terms: ContractTerms, rules: SitePrivacy) -> str:
    """Return what a run's noise promises a person here, with its ε and δ."""
    asked, most = terms.privacy, rules.epsilon
    mode = MECHANISMS.get(str(asked.get("mode", "off")))
    secure = terms.config.get("federation", {}).get("aggregation", {}).get("secure", {})
    if hides_each_person(asked) and asked.get("epsilon") is None:
        limit = f"a cost of more than ε {most:g} is refused" if most else _ANY_EPSILON
        return (
            f"Noise of {float(asked.get('noise_multiplier') or 0):g} times what one person may "
            "change is added here. What it hides depends on this site's people and is counted "
            f"before the first round: {limit}."
        )
    if hides_each_person(asked):
        epsilon = min(float(asked["epsilon"]), most or math.inf)
        delta = min(float(asked.get("delta", rules.delta)), rules.delta)
        return f"Noise is added here. {_meaning(epsilon, delta)}"
    if rules.mode == "dp" and most is not None:
        return f"Noise is added here, as site.yaml wants. {_meaning(most, rules.delta)}"
    if mode is not None and mode.noise_in_sum:
        said = _meaning(float(asked["epsilon"]), float(asked.get("delta", rules.delta)))
        return f"The sites add noise together, and it hides less where others add none. {said}"
    if terms.sums_only and secure.get("epsilon") is not None:
        said = _meaning(float(secure["epsilon"]), float(secure["delta"]))
        return f"Noise is added to the sum over sites, for each {secure['unit']}. {said}"
    return (
        "No noise is added: changes of a model are known to tell a little about the people it was "
        "trained on."
    )


_ANY_EPSILON: Final = (
    "site.yaml sets no privacy.epsilon, so that any cost is taken, noise that hides nobody too"
)


def _meaning(epsilon: float, delta: float) -> str:
    """Return what ε says of an attacker who held it as likely as not; 10 and more says little."""
    sure = 100 / (1 + math.exp(-epsilon))
    how_sure = f"{sure:.2f} % sure" if sure < 99.99 else "all but certain"
    worth = " That is no protection to rely on." if epsilon > 10 else ""
    return (
        f"It promises ε {epsilon:g} (δ {delta:g}) for the whole run: who held it as likely as not "
        f"that somebody took part can be {how_sure} of it afterwards.{worth}"
    )


def _plain(name: object) -> str:
    return "".join(character for character in str(name)[:64] if character.isprintable())


def _stamp(now: datetime | None) -> str:
    return f"{now or now_utc():%Y-%m-%dT%H:%M:%SZ}"
