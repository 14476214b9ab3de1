"""What a model card says of the run that trained the model: sites, rounds, metrics, ε spent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from healthfm_core.federation.declared_metrics import tuning_metrics
from healthfm_core.federation.early_stopping import scores_of
from healthfm_core.federation.metric_names import is_count
from healthfm_core.federation.protocol import Study
from healthfm_server.run_folder.run_store import RunStore

_EPSILON: Final = "privacy_epsilon"


def run_card(store: RunStore, study: Study, round_: int) -> Iterator[str]:
    """Yield the lines, in Markdown, for the model after `round_` of a run.

    A site is named with the rounds whose update of it is in the model. The metrics are the sites'
    own, on their tuning people, as far as they let them out; people are counted, all else is the
    mean by training subjects. A round's row of history scores the model after the round before it.
    """
    rows = store.history()
    trained = [row for row in rows if row["round"] <= round_]
    yield "## The run that trained it"
    yield ""
    yield f"Run `{store.folder.name}`, id `{study.run_id}`: {len(trained)} rounds are in this"
    yield f"model, of {study.config.federation.rounds} that were to be."
    choice = store.choice()
    if choice is not None:
        yield f"{choice.sentence()}."
    yield ""
    yield from _sites(store.events(), trained)
    yield from _metrics(rows, study, round_, choice.scores if choice else {})
    yield from _spent(trained)


def _sites(events: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Any]]) -> list[str]:
    answered = Counter(site for row in trained for site in row["answered"])
    known = {event["site"]: event for event in events if event["event"] == "prepared"}
    lines = ["| site | modalities | rounds in the model |", "|---|---|---|"]
    for site in sorted(known.keys() | answered.keys()):
        has = ", ".join(known.get(site, {}).get("modalities", ())) or "not told"
        lines.append(f"| {site} | {has} | {answered[site]} of {len(trained)} |")
    return [*lines, ""]


def _metrics(
    rows: Sequence[Mapping[str, Any]], study: Study, round_: int, chosen: Mapping[int, float]
) -> Iterator[str]:
    monitor = study.config.federation.early_stopping.monitor
    scores = {name: scores_of(rows, name) for name in tuning_metrics(study)}
    if monitor in scores:
        scores[monitor] |= chosen
    if not any(scores.values()):
        yield "No site told how the model does on its tuning people."
        yield ""
        return
    yield "| on the sites' tuning people | this model | last scored | best |"
    yield "|---|---|---|---|"
    for name, by_round in scores.items():
        if by_round:
            last, best = max(by_round), max(by_round, key=lambda r: (by_round[r], -r))
            cells = (_of(by_round, each, name) for each in (round_, last, best))
            here, last_one, best_one = cells
            yield f"| {name} | {here} | {last_one} | {'' if is_count(name) else best_one} |"
    yield ""
    yield "A site scores the model that it receives: the last one only where one was chosen."
    yield ""


def _of(by_round: Mapping[int, float], round_: int, name: str) -> str:
    value = by_round.get(round_)
    if value is None:
        return "not scored"
    return f"{value:,.0f}" if is_count(name) else f"{value:.3f} (round {round_})"


def _spent(trained: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the rounds in the model cost in privacy, where a sum's noise or sites tell it."""
    sums = [row["privacy"] for row in trained if "privacy" in row]
    if sums:
        last = sums[-1]
        yield f"Privacy spent by these rounds: ε {last['epsilon']:.2f} at δ {last['delta']:g},"
        yield f"unit: one {last['unit']}."
        yield ""
    told = [
        float(metrics[_EPSILON])
        for row in trained
        for metrics in row["site_metrics"].values()
        if math.isfinite(metrics.get(_EPSILON, math.nan))
    ]
    if told:
        yield f"Largest ε that a site told of its people in these rounds: {max(told):.2f}."
        yield ""
