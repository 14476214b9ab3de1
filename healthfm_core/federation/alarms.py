"""Alarms for a coordinator: a run that goes wrong in a way its losses do not show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from healthfm_core.federation.update_checks import is_divergence
from healthfm_core.modalities.registry import modality_names

SHORT_DAYS: Final = 7.0
LONG_DAYS: Final = 3652.5
LEAST_SHARE: Final = 0.05
PATIENCE: Final = 3
"""Rounds in a row that an encoder's share of the gradient has to be small."""

_LONGEST: Final = re.compile(r"layer(\d+)/half_life_max_days")


def alarms(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each thing that goes wrong as of the last of `rows`.

    What stands before its colon is the same every round (`kind_of`), what follows is the figure.

    Two failures of arXiv 2601.12227: a kernel whose half-lives have all become short (it sees the
    last week only) or all long (it sees no time at all), and a modality whose encoder gets next to
    none of the gradient for some rounds, so that the others learn without it.

    A third: sites whose training went out of bounds, which the others' mean does not show.

    A fourth: sites that would have moved the model more than one site may (`influence_bounds`).

    Args:
        rows: Rows of a run's history, in order; each has the round's mean ``metrics``, and in
            ``set_aside`` why a site's update was not taken.
    """
    if not rows:
        return []
    history = [dict(row.get("metrics", {})) for row in rows]
    held_back = [*_diverging(rows[-1]), *_outliers(rows[-1])]
    return [*_kernels(history[-1]), *_collapsed(history), *held_back]


def kind_of(sentence: str) -> str:
    """Return what an alarm is about, without this round's figure."""
    return sentence.partition(":")[0]


def _kernels(metrics: Mapping[str, float]) -> Iterator[str]:
    for name, longest in sorted(metrics.items()):
        match = _LONGEST.fullmatch(name)
        if match is None:
            continue
        layer = int(match[1])
        if longest < SHORT_DAYS:
            yield (
                f"Layer {layer} of the backbone forgets everything within a week: its longest "
                f"half-life is {longest:.2g} days."
            )
        shortest = metrics.get(f"layer{layer}/half_life_min_days", 0.0)
        if shortest > LONG_DAYS:
            yield (
                f"Layer {layer} of the backbone no longer tells times apart: its shortest "
                f"half-life is {shortest / 365.25:.0f} years."
            )


def _collapsed(history: Sequence[Mapping[str, float]]) -> Iterator[str]:
    if len(history) < PATIENCE:
        return
    recent = [_shares(metrics) for metrics in history[-PATIENCE:]]
    for modality in modality_names():
        if all(modality in shares and shares[modality] < LEAST_SHARE for shares in recent):
            yield (
                f"The {modality} encoder has had less than {100 * LEAST_SHARE:.0f} % of the "
                f"encoders' gradient for {PATIENCE} rounds: the model learns without it, "
                f"{100 * recent[-1][modality]:.1f} % now."
            )


def _diverging(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence where some sites' updates were not finite or too large to be taken."""
    reasons = row.get("set_aside", {}).values()
    out_of_bounds = sorted(reason for reason in reasons if is_divergence(reason))
    if out_of_bounds:
        yield (
            "Training diverges at some sites, whose updates are left out (lower train.lr): "
            f"{len(out_of_bounds)} of {len(row['asked'])} now."
        )


def _outliers(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence where sites' sizes or updates were far from the others'."""
    outliers = row.get("outliers", {})
    if outliers:
        said = ", ".join(f"{site} ({reason})" for site, reason in sorted(outliers.items()))
        yield f"Some sites would move the model more than one site may, and are held back: {said}."


def _shares(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return each encoder's share of the encoders' gradient norms; none where there is one."""
    norms = {m: metrics[f"grad_norm/{m}"] for m in modality_names() if f"grad_norm/{m}" in metrics}
    total = sum(norms.values())
    if len(norms) < 2 or total <= 0:
        return {}
    return {modality: norm / total for modality, norm in norms.items()}
