"""The report's parts, as plain values the template only has to lay out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.evaluation import plots
from healthfm_core.evaluation.calibration import reliability
from healthfm_core.evaluation.context import ReportContext
from healthfm_core.evaluation.metrics import auroc, average_precision
from healthfm_core.evaluation.tables import MINUS, MetricRow, subsets_of
from healthfm_core.evaluation.wording import (
    METRIC_NAMES,
    SUBSET_NAMES,
    arm_name,
    count,
    duration,
    interval,
    number,
    subset_name,
)

MODALITIES: Final = ("ehr", "wearable", "genomics")
CALIBRATION: Final = ("brier", "ece", "ece_uniform", "slope", "intercept")
CURVES_FIRST: Final = (
    "tuning_average_precision_new_onset",
    "tuning_average_precision",
    "tuning_auroc_new_onset",
    "tuning_auroc",
)
MOST_CURVES: Final = 4
WITHOUT_FEATURES: Final = ("repeat_history", "marginal")
"""Baselines that know no more than counts; not drawn in the reliability diagram."""
MOST_SITES_DRAWN: Final = 40


@dataclass(frozen=True)
class Cell:
    """A number and its interval, as written."""

    value: str
    interval: str
    above_zero: bool = False
    below_zero: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a table: its arm, the arm's colour (-1: none) and its cells."""

    arm: str
    colour: int
    cells: tuple[Cell, ...]
    strong: bool = False
    apart: bool = False


@dataclass(frozen=True)
class Table:
    """A table with grouped columns: ((group, number of columns), …) over the column names."""

    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def arms_of(rows: Sequence[MetricRow], reference: str) -> list[str]:
    """Arms in their order of appearance, the reference first."""
    arms = list(dict.fromkeys(row.arm for row in rows if not row.is_difference))
    return sorted(arms, key=lambda arm: arm != reference)


def headline(task: str) -> tuple[str, str]:
    """The (metric, subset) a task is judged by."""
    return ("average_precision", "new_onset") if task == "next_visit" else ("auroc", "overall")


def _discrimination(task: str) -> list[tuple[str, str]]:
    """The (subset, metric) columns of the first tables, the headline metric first."""
    first, _ = headline(task)
    metrics = (first, "auroc" if first == "average_precision" else "average_precision")
    return [(subset, metric) for subset in subsets_of(task) for metric in metrics]


def _cell(row: MetricRow | None) -> Cell:
    if row is None:
        return Cell("–", "")
    signed = row.is_difference
    return Cell(
        number(row.value, signed=signed),
        interval(row),
        above_zero=signed and row.low > 0,
        below_zero=signed and row.high < 0,
    )


def _table(
    rows: Sequence[MetricRow],
    arms: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    reference: str,
    *,
    apart: Sequence[str] = (),
    palette: Sequence[str] = (),
) -> Table:
    """Lay out (subset, metric) `pairs` as columns, arms as lines."""
    found = {(row.arm, row.subset, row.metric): row for row in rows}
    groups: list[tuple[str, int]] = []
    for subset, _ in pairs:
        name = subset_name(subset)
        if groups and groups[-1][0] == name:
            groups[-1] = (name, groups[-1][1] + 1)
        else:
            groups.append((name, 1))
    lines = tuple(
        Line(
            arm=arm_name(arm),
            colour=palette.index(arm) % len(plots.ARM_COLOURS) if arm in palette else -1,
            cells=tuple(_cell(found.get((arm, subset, metric))) for subset, metric in pairs),
            strong=arm == reference,
            apart=arm in apart,
        )
        for arm in arms
    )
    return Table(tuple(groups), tuple(METRIC_NAMES[metric] for _, metric in pairs), lines)


def main_table(rows: Sequence[MetricRow], context: ReportContext) -> Table:
    """Discrimination of every arm and of the known truth, by subset."""
    arms = arms_of(rows, context.reference)
    ceilings = list(dict.fromkeys(row.arm for row in context.ceiling))
    pairs = _discrimination(context.task)
    every = [*rows, *context.ceiling]
    return _table(every, arms + ceilings, pairs, context.reference, apart=ceilings, palette=arms)


def difference_table(rows: Sequence[MetricRow], context: ReportContext) -> Table | None:
    """Paired differences of the reference to each other arm; None where there is none."""
    arms = list(dict.fromkeys(row.arm for row in rows if MINUS in row.arm))
    if not arms:
        return None
    pairs = _discrimination(context.task)
    return _table(rows, arms, pairs, context.reference)


def further_table(rows: Sequence[MetricRow], context: ReportContext) -> Table | None:
    """Subsets beside the three: fewer inputs, people with a reference score; None without any.

    Of a next-visit task only all rows and new onsets are shown.
    """
    further = dict.fromkeys(row.subset for row in rows if row.subset not in SUBSET_NAMES)
    shown = [subset for subset in further if not subset.endswith("/repeat")]
    if not shown:
        return None
    metrics = [metric for _, metric in _discrimination(context.task)[:2]]
    pairs = [(subset, metric) for subset in shown for metric in metrics]
    held = {row.arm for row in rows if row.subset in shown}
    arms = arms_of(rows, context.reference)
    return _table(
        rows, [arm for arm in arms if arm in held], pairs, context.reference, palette=arms
    )


def calibration_table(rows: Sequence[MetricRow], context: ReportContext) -> Table:
    """Calibration of every arm over all rows."""
    arms = arms_of(rows, context.reference)
    pairs = [("overall", metric) for metric in CALIBRATION]
    return _table(rows, arms, pairs, context.reference, palette=arms)


def interval_figure(rows: Sequence[MetricRow], context: ReportContext) -> str:
    """The headline metric of every arm, by subset, with the ceiling."""
    metric, _ = headline(context.task)
    marks: dict[str, list[float]] = {}
    for row in context.ceiling:
        if row.metric == metric and math.isfinite(row.value):
            marks.setdefault(row.subset, []).append(row.value)
    return plots.interval_plot(
        [row for row in rows if row.metric == metric and not row.is_difference],
        [(subset, SUBSET_NAMES[subset]) for subset in subsets_of(context.task)],
        arms_of(rows, context.reference),
        name="arms",
        xlabel=METRIC_NAMES[metric],
        marks=marks,
    )


def shares(rows: Sequence[MetricRow], context: ReportContext) -> list[str]:
    """Say what share of each ceiling the reference reaches, by the headline metric."""
    metric, subset = headline(context.task)
    value = {row.arm: row.value for row in rows if (row.metric, row.subset) == (metric, subset)}
    reached = value.get(context.reference, math.nan)
    floor = value.get("marginal", math.nan)
    said = []
    for row in context.ceiling:
        if (row.metric, row.subset) != (metric, subset) or not math.isfinite(reached):
            continue
        text = (
            f"{arm_name(context.reference).capitalize()} reaches {reached / row.value:.0%} of "
            f"“{arm_name(row.arm)}” ({number(reached)} of {number(row.value)}) in "
            f"{METRIC_NAMES[metric]} on {SUBSET_NAMES[subset]}"
        )
        if math.isfinite(floor) and row.value > floor:
            text += f", {(reached - floor) / (row.value - floor):.0%} of the way from the marginal"
        said.append(text + ".")
    return said


def opening(rows: Sequence[MetricRow], context: ReportContext) -> str:
    """The result in one sentence."""
    metric, subset = headline(context.task)
    found = {row.arm: row for row in rows if (row.metric, row.subset) == (metric, subset)}
    own = found.get(context.reference)
    if own is None or not math.isfinite(own.value):
        return ""
    others = [
        f"{arm_name(row.arm)} {number(row.value)}"
        for row in found.values()
        if not row.is_difference and row.arm != context.reference and math.isfinite(row.value)
    ]
    text = (
        f"{arm_name(context.reference).capitalize()} reaches {METRIC_NAMES[metric]} "
        f"{number(own.value)} ({interval(own)})"
    )
    if context.task == "next_visit":
        text += f" on {SUBSET_NAMES[subset]}"
    return text + (f"; {', '.join(others)}." if others else ".")


def curves_figure(context: ReportContext, arms: Sequence[str]) -> str:
    """Learning curves over rounds; empty where no arm has a number in two rounds."""
    curves = {arm: _series(records) for arm, records in context.history.items()}
    names = list(dict.fromkeys(name for found in curves.values() for name in found))
    first = [name for name in CURVES_FIRST if name in names]
    losses = [name for name in names if name.startswith("loss")]
    chosen = (first + [name for name in losses if name not in first])[:MOST_CURVES]
    drawn = {
        arm: {name: found[name] for name in chosen if name in found}
        for arm, found in curves.items()
    }
    if not any(drawn.values()):
        return ""
    return plots.learning_curves(drawn, list(dict.fromkeys([*arms, *drawn])))


def _series(
    records: Sequence[Mapping[str, object]],
) -> dict[str, tuple[list[float], list[float]]]:
    """Turn a record per round into (rounds, values) by name; nested names lose their parents."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for place, record in enumerate(records):
        flat = dict(_numbers(record))
        at = flat.pop("round", float(place + 1))
        for name, value in flat.items():
            if math.isfinite(value):
                rounds, values = found.setdefault(name, ([], []))
                rounds.append(at)
                values.append(value)
    return {name: series for name, series in found.items() if len(series[0]) > 1}


def _numbers(record: Mapping[str, object]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            found += _numbers(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((name, float(value)))
    return found


def reliability_figure(context: ReportContext, arms: Sequence[str]) -> str:
    """Reliability of the arms whose predictions are at hand."""
    drawn = {
        arm: reliability(context.predictions[arm].score, context.predictions[arm].outcome)
        for arm in arms
        if arm not in WITHOUT_FEATURES and len(context.predictions.get(arm, ()))
    }
    if not drawn:
        return ""
    return plots.reliability_diagram(
        drawn, arms, title="all predictions, deciles", fewest=context.k_subgroup
    )


def observed_over_expected(
    context: ReportContext, arms: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Arm → observed over expected per decile of risk, lowest first; small bins withheld."""
    lines = []
    for arm in arms:
        if arm in WITHOUT_FEATURES or not len(context.predictions.get(arm, ())):
            continue
        found = reliability(context.predictions[arm].score, context.predictions[arm].outcome)
        ratios = zip(found.count, found.observed_over_expected, strict=True)
        shown = [number(float(r), digits=2) if n >= context.k_subgroup else "–" for n, r in ratios]
        lines.append((arm_name(arm), shown))
    return lines


def sites_figure(context: ReportContext, arms: Sequence[str]) -> str:
    """The reference and local training at each site that is large enough; else empty."""
    pair = (context.reference, "local")
    if any(arm not in context.predictions for arm in pair) or not context.sites:
        return ""
    metric, subset = headline(context.task)
    of = auroc if metric == "auroc" else average_precision
    names: list[str] = []
    values: list[tuple[float, float]] = []
    for index, site in enumerate(context.sites):
        parts = [context.predictions[arm] for arm in pair]
        parts = [part.where(part.site == index) for part in parts]
        if subset == "new_onset":
            parts = [part.subset("new_onset") for part in parts]
        scores = [of(part.score, part.outcome) for part in parts]
        if all(part.n_subjects >= context.k_subgroup for part in parts) and np.all(
            np.isfinite(scores)
        ):
            names.append(site.name)
            values.append((scores[0], scores[1]))
    if not names:
        return ""
    order = sorted(range(len(names)), key=lambda i: values[i][1] - values[i][0])[:MOST_SITES_DRAWN]
    label = METRIC_NAMES[metric]
    if context.task == "next_visit":
        label += f", {SUBSET_NAMES[subset]}"
    return plots.site_pairs(
        [names[i] for i in order],
        [values[i][0] for i in order],
        [values[i][1] for i in order],
        pair,
        arms,
        xlabel=label,
    )


@dataclass(frozen=True)
class SiteLine:
    """One line of the sites × modalities matrix."""

    name: str
    held: tuple[bool, ...]
    subjects: str
    held_out: str


def site_lines(context: ReportContext) -> list[SiteLine]:
    """The sites, small counts withheld."""
    k = context.k_subgroup
    return [
        SiteLine(
            site.name,
            tuple(name in site.modalities for name in MODALITIES),
            count(site.n_subjects, k),
            count(site.n_held_out, k),
        )
        for site in context.sites
    ]


def half_life_figure(context: ReportContext) -> str:
    """The kernel's half-lives; empty where none are given."""
    if context.half_lives is None or not context.half_lives.learned:
        return ""
    return plots.half_life_plot(context.half_lives.learned, context.half_lives.true)


def clock(context: ReportContext) -> list[tuple[str, str, float]]:
    """(arm, duration, share of the longest) per arm."""
    longest = max(context.seconds.values(), default=1.0) or 1.0
    return [(arm_name(a), duration(s), s / longest) for a, s in context.seconds.items()]
