"""A run in sentences, for who knows the hospital and not the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from healthfm_client.consent.held_out_facts import PREFIX, held_out_sentence
from healthfm_core.modalities.registry import described
from healthfm_core.trust.names import plain_text

STATED: Final = {
    "purpose": "purpose",
    "task": "task",
    "protocol": "protocol or ethics reference",
    "contact": "contact",
}
MOST_DOMAINS: Final = 8
"""Domains of codes that the sentences name; ``--json`` has all."""


def sentences(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the facts of `run_facts` in sentences: what for, what is read, what leaves, costs."""
    return (*_stated(facts), *_read(facts), *_left_here(facts), *_work(facts), *_privacy(facts))


def _stated(facts: Mapping[str, Any]) -> Iterator[str]:
    stated = facts["stated"]
    name = plain_text(stated.get("run", ""))
    which = f"Run {name!r}" if name else "A run"
    yield (
        f"{which} of the study {facts['study']}, number {facts['number']}, with the "
        f"configuration {plain_text(facts['configuration'])!r}."
    )
    for field, label in STATED.items():
        if stated.get(field):
            yield f"The coordinator states as its {label}: {plain_text(stated[field])}"
    missing = [label for field, label in STATED.items() if not stated.get(field)]
    if missing:
        yield f"The coordinator states no {', '.join(missing)}: ask before you approve."


def _read(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "It trains a model on this site's computer. Records, names and dates stay here."
    reads = facts["reads"]
    if reads is None:
        yield f"What it would read could not be counted: {facts['uncounted']}"
        return
    kinds = (
        f"{described([name])} of {count:,}" for name, count in reads["people_by_modality"].items()
    )
    people = f"{reads['training_people']:,} people"
    yield f"It trains on {people}: {'; '.join(kinds) or 'nothing of them'}."
    domains = reads["domains"]
    k = facts["leaves"]["counts_from"]
    if domains:
        said = [f"{name} {facts_['codes']:,}" for name, facts_ in domains.items()]
        more = f" and {len(said) - MOST_DOMAINS} more" if len(said) > MOST_DOMAINS else ""
        total = sum(domain["codes"] for domain in domains.values())
        yield (
            f"Codes that {k} people or more have: {total:,}, by domain "
            f"{', '.join(said[:MOST_DOMAINS])}{more}."
        )
        firsts = (next(iter(domain["most_common"].items())) for domain in domains.values())
        common = [f"{code} ({count:,})" for code, count in firsts]
        yield f"Most common of each, with their people: {', '.join(common[:MOST_DOMAINS])}."
    for name, columns in reads["scores"].items():
        more = f" and {len(columns) - MOST_DOMAINS} more" if len(columns) > MOST_DOMAINS else ""
        yield f"{described([name]).capitalize()}: {', '.join(columns[:MOST_DOMAINS])}{more}."
    if reads["channels"]:
        yield f"Channels of wearables: {', '.join(reads['channels'])}."


def _left_here(facts: Mapping[str, Any]) -> Iterator[str]:
    leaves, rounds = facts["leaves"], facts["rounds"]
    to = f"the coordinator at {leaves['to']}" if leaves["to"] else "the coordinator"
    yield (
        f"First it asks how many people have each code, and sends that to {to}; counts under "
        f"{leaves['counts_from']} stay here."
    )
    metrics = [name for name in leaves["metrics"] if not name.startswith(PREFIX)]
    averages = f", with averages of how well it does ({', '.join(metrics)})" if metrics else ""
    yield (
        f"Then, {rounds} times, it sends a model, trains it here for a while, and gets the changes "
        f"of the model back{averages}."
    )
    yield (
        f"The coordinator sees only sums over several sites, {leaves['min_sites']} of them or more."
        if leaves["sums_only"]
        else "The coordinator sees the changes of this site by itself."
    )
    yield held_out_sentence(leaves.get("held_out"))


def _work(facts: Mapping[str, Any]) -> Iterator[str]:
    work = facts["work"]
    if work is None:
        return
    yield (
        f"Expected here: {work['steps']:,} training steps of {work['people_per_step']} people "
        f"({work['steps_per_round']:,} a round), a model of about {work['parameters']:,} numbers, "
        f"{byte_count(work['bytes_received'])} received and "
        f"{byte_count(work['bytes_sent'])} sent in all; other sites' codes add to it."
    )


def _privacy(facts: Mapping[str, Any]) -> Iterator[str]:
    privacy = facts["privacy"]
    yield privacy["noise"]
    asked = privacy["epsilon_asked"]
    asks = "no ε" if asked is None else f"ε {asked:g}"
    study = _budget(privacy["epsilon_spent_by_study"], privacy["epsilon_of_study"])
    total = _budget(privacy["epsilon_spent"], privacy["epsilon_max"])
    yield f"Privacy budget: it asks {asks}; spent by this study {study}; by all studies {total}."
    bare = privacy["runs_without_noise"]
    if bare:
        runs = "run" if bare == 1 else "runs"
        yield f"{bare} earlier {runs} here had no noise, which no ε covers."
    yield f"The contract holds until {facts['until']}."


def _budget(spent: float, limit: float | None) -> str:
    if limit is None:
        return f"ε {spent:.2f}, no limit in site.yaml"
    return f"ε {spent:.2f} of {limit:g}, {max(0.0, limit - spent):.2f} left"


def byte_count(count: int) -> str:
    """Return a number of bytes as people read it."""
    for length, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= length:
            return f"{count / length:,.1f} {name}"
    return f"{count:,} bytes"
