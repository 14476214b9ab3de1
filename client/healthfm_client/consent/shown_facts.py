"""A run's facts as a page shows them: tables of what is read, what leaves and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from healthfm_client.consent.run_sentences import STATED, byte_count
from healthfm_core.modalities.registry import described
from healthfm_core.trust.names import plain_text

Row = tuple[str, str]
NOT_STATED: Final = "not stated: ask before you approve"


@dataclass(frozen=True)
class ShownFacts:
    """What a person reads of a run before the answer.

    Attributes:
        stated: What the coordinator states, by label; what is not stated says so.
        modalities: Modality → people of it here.
        domains: Domain of codes, how many codes, the most common with their people.
        named: Scores and channels by name.
        leaves: What leaves, to whom, under which protection.
        costs: What it takes of this computer and of the line.
        budget: What ε it asks, what is spent, what is left.
        uncounted: Why what is read could not be counted; empty where it was.
    """

    stated: list[Row]
    modalities: list[Row]
    domains: list[tuple[str, str, str]]
    named: list[Row]
    leaves: list[Row]
    costs: list[Row]
    budget: list[Row]
    uncounted: str = ""


def shown_facts(facts: Mapping[str, Any]) -> ShownFacts:
    """Return the facts of `run_facts` as tables; the coordinator's words as text without tricks."""
    reads = facts["reads"] or {}
    return ShownFacts(
        stated=[
            (label, plain_text(facts["stated"].get(k) or NOT_STATED)) for k, label in STATED.items()
        ],
        modalities=list(_modalities(reads)),
        domains=list(_domains(reads)),
        named=list(_named(reads)),
        leaves=list(_leaves(facts)),
        costs=list(_costs(facts)),
        budget=list(_budget(facts["privacy"])),
        uncounted="" if facts["reads"] else plain_text(facts["uncounted"]),
    )


def tables_of(facts: Mapping[str, Any]) -> ShownFacts | None:
    """Return `shown_facts`; None of a request of an older release, or of terms that are no terms.

    What a coordinator signed may hold anything where a number belongs.
    """
    try:
        return shown_facts(facts)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _modalities(reads: Mapping[str, Any]) -> Iterator[Row]:
    for name, count in reads.get("people_by_modality", {}).items():
        yield described([name]), f"{count:,} people"


def _domains(reads: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, domain in reads.get("domains", {}).items():
        common = (f"{code} ({count:,})" for code, count in domain["most_common"].items())
        yield name, f"{domain['codes']:,}", ", ".join(common)


def _named(reads: Mapping[str, Any]) -> Iterator[Row]:
    for name, columns in reads.get("scores", {}).items():
        yield described([name]), ", ".join(columns)
    if reads.get("channels"):
        yield "channels of wearables", ", ".join(reads["channels"])


def _leaves(facts: Mapping[str, Any]) -> Iterator[Row]:
    leaves = facts["leaves"]
    k, rounds = leaves["counts_from"], facts["rounds"]
    yield "to", plain_text(leaves["to"] or "the coordinator")
    yield "once", f"how many people have each code; no count under {k}"
    yield f"{rounds:,} times", "the changes of the model after training here"
    if leaves["metrics"]:
        yield (
            "with them",
            f"averages of how well it does: {plain_text(', '.join(leaves['metrics']))}",
        )
    sums = f"only in a sum over {leaves['min_sites']} sites or more"
    yield "seen there", sums if leaves["sums_only"] else "the changes of this site by itself"
    yield "noise", plain_text(facts["privacy"]["noise"])


def _costs(facts: Mapping[str, Any]) -> Iterator[Row]:
    work = facts["work"]
    if work is None:
        return
    yield "people trained on", f"{facts['reads']['training_people']:,}"
    yield "rounds", f"{facts['rounds']:,}"
    each = f"{work['steps_per_round']:,} a round, of {work['people_per_step']:,} people each"
    yield "training steps", f"{work['steps']:,} ({each})"
    if work.get("seconds") is not None:
        yield "this computer's time", f"about {duration(work['seconds'])} in all"
    yield "received", byte_count(work["bytes_received"])
    yield "sent", byte_count(work["bytes_sent"])


def _budget(privacy: Mapping[str, Any]) -> Iterator[Row]:
    asked = privacy["epsilon_asked"]
    yield "asked by this run", "no ε" if asked is None else f"ε {asked:g}"
    for label, spent, limit in (
        ("this study so far", "epsilon_spent_by_study", "epsilon_of_study"),
        ("all studies so far", "epsilon_spent", "epsilon_max"),
    ):
        most = privacy[limit]
        left = f"{max(0.0, most - privacy[spent]):.2f} of {most:g} left" if most else "no limit"
        yield label, f"ε {privacy[spent]:.2f} spent, {left}"
    if privacy["runs_without_noise"]:
        yield "without noise", f"{privacy['runs_without_noise']} earlier runs, which no ε covers"


def duration(seconds: float) -> str:
    """Return a time in its largest unit that fits, as people say it."""
    for length, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.0f} {name}"
    return f"{max(1.0, seconds):.0f} seconds"
