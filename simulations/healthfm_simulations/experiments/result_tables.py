"""From finished runs to Markdown: a table of arms, paired comparisons, what each site gains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from healthfm_core.evaluation import MetricRow
from healthfm_core.evaluation.metrics.report_metrics import metric_title, short_title
from healthfm_core.evaluation.report.wording import arm_name, number, subset_name
from healthfm_simulations.experiments.experiment_plan import (
    ArmComparison,
    ComparisonSide,
    ExperimentPlan,
    MetricSelector,
    SiteTable,
    TableColumn,
)
from healthfm_simulations.experiments.experiment_runs import FinishedRun, of_variant
from healthfm_simulations.scoring.seed_intervals import t_interval

Values = Mapping[tuple[str, int], float]
"""(variant, seed) → one number."""


def arms_table(plan: ExperimentPlan, runs: Sequence[FinishedRun]) -> list[str]:
    """Return the lines of a table: a row per variant and arm, a column per subset and metric."""
    heads = ["variant", "arm", *(_title(column) for column in plan.columns)]
    several = len(plan.variants) > 1
    lines = _header(heads if several else heads[1:])
    for variant in plan.variants:
        for arm in plan.arms:
            cells = [
                _cell(_values(runs, ComparisonSide(variant=variant, arm=arm), column), column)
                for column in plan.columns
            ]
            if any(cells):
                names = [variant, arm_name(arm)] if several else [arm_name(arm)]
                lines.append(_row([*names, *(cell or "–" for cell in cells)]))
    return lines


def comparison_lines(plan: ExperimentPlan, runs: Sequence[FinishedRun]) -> list[str]:
    """Return a list item per comparison (and variant, where it names none)."""
    return [
        line
        for one in plan.comparisons
        for variant in _variants_of(one, plan)
        if (line := _compared(one, variant, runs))
    ]


def site_lines(by_site: SiteTable, plan: ExperimentPlan, runs: Sequence[FinishedRun]) -> list[str]:
    """Return who gains: per variant, sites by their size within each seed, smallest first.

    The last line of a variant is the mean over a seed's sites; all intervals are over the seeds.
    """
    what = f"{arm_name(by_site.of)} − {arm_name(by_site.to)}"
    metric = f"{short_title(by_site.metric)}, {subset_name(by_site.subset)}"
    heads = ["variant", "sites", "people trained on", f"{what}: {metric}", "sites that gain"]
    lines = _header(heads)
    for variant in plan.variants:
        ranked = [_gains(one, by_site) for one in of_variant(runs, variant)]
        for place in range(max(map(len, ranked), default=0)):
            same = [gains[place] for gains in ranked if place < len(gains)]
            by_seed = [gain for _, gain in same]
            lines.append(_row([variant, _ordinal(place, ranked), *_gain_cells(same, by_seed)]))
        everyone = [site for gains in ranked for site in gains]
        if everyone:
            by_seed = [fmean(gain for _, gain in gains) for gains in ranked if gains]
            lines.append(_row([variant, "all", *_gain_cells(everyone, by_seed)]))
    return lines


def _gains(one: FinishedRun, by_site: SiteTable) -> list[tuple[int, float]]:
    """Return (people trained on, gain) of a run's sites, smallest first."""
    gains = []
    for site in one.by_site:
        row = _find(site.rows, f"{by_site.of} - {by_site.to}", by_site.subset, by_site.metric)
        if row is not None and math.isfinite(row.value):
            gains.append((site.people, row.value))
    return sorted(gains)


def _gain_cells(same: Sequence[tuple[int, float]], by_seed: Sequence[float]) -> list[str]:
    people = sorted(size for size, _ in same)
    gains = [gain for _, gain in same]
    span = str(people[0]) if people[0] == people[-1] else f"{people[0]} to {people[-1]}"
    winners = sum(gain > 0 for gain in gains)
    return [span, _interval(by_seed, signed=True), f"{winners} of {len(gains)}"]


def _ordinal(place: int, ranked: Sequence[Sequence[object]]) -> str:
    if place == 0:
        return "smallest"
    return "largest" if place == max(map(len, ranked)) - 1 else f"{place + 1}."


def _variants_of(one: ArmComparison, plan: ExperimentPlan) -> Iterable[str | None]:
    named = one.of.variant is not None and one.to.variant is not None
    return [None] if named else list(plan.variants)


def _compared(one: ArmComparison, variant: str | None, runs: Sequence[FinishedRun]) -> str:
    of, to = (_in_variant(side, variant) for side in (one.of, one.to))
    left, right = (_values(runs, side, one) for side in (of, to))
    by_seed = {seed: value for (_, seed), value in right.items()}
    chance = _chance(runs, to, one)
    pairs = [
        (value, by_seed[seed], chance.get(seed, 0.5))
        for (_, seed), value in left.items()
        if seed in by_seed and (one.chance is None or seed in chance)
    ]
    if not pairs or of == to:
        return ""
    of_site = f"people of {one.site}" if one.site else None
    named = [metric_title(one.metric), subset_name(one.subset)]
    what = ", ".join([*named, *filter(None, (_task_name(one), of_site))])
    if one.kind == "share":
        text = _interval([100 * a / b for a, b, _ in pairs], digits=0, unit=" %")
        return f"- {_name(of)} as a share of {_name(to, of)} ({what}): {text}"
    if one.kind == "gain":
        text = _interval([100 * (a - c) / (b - c) for a, b, c in pairs], digits=0, unit=" %")
        return f"- What {_name(of)} gains over chance, of {_name(to, of)} ({what}): {text}"
    text = _interval([a - b for a, b, _ in pairs], signed=True)
    return f"- {_name(of)} − {_name(to, of)} ({what}): {text}"


def _chance(
    runs: Sequence[FinishedRun], to: ComparisonSide, one: ArmComparison
) -> dict[int, float]:
    """Return what the arm that ranks by chance has, seed by seed; nothing where none is named."""
    if one.chance is None:
        return {}
    side = ComparisonSide(variant=to.variant, arm=one.chance)
    return {seed: value for (_, seed), value in _values(runs, side, one).items()}


def _in_variant(side: ComparisonSide, variant: str | None) -> ComparisonSide:
    return side if side.variant is not None else side.model_copy(update={"variant": variant})


def _name(side: ComparisonSide, beside: ComparisonSide | None = None) -> str:
    if beside is not None and beside.variant == side.variant:
        return arm_name(side.arm)
    return f"{side.variant}: {arm_name(side.arm)}"


def _values(runs: Sequence[FinishedRun], side: ComparisonSide, what: MetricSelector) -> Values:
    values = {}
    for one in of_variant(runs, side.variant or ""):
        row = _find(_rows_at(one, what.site), side.arm, what.subset, what.metric, what.task)
        if row is not None and math.isfinite(row.value):
            values[one.variant, one.seed] = row.value
    return values


def _rows_at(one: FinishedRun, site: str | None) -> Sequence[MetricRow]:
    if site is None:
        return one.rows
    return next((site_rows.rows for site_rows in one.by_site if site_rows.site == site), ())


def _find(
    rows: Sequence[MetricRow], arm: str, subset: str, metric: str, task: str | None = None
) -> MetricRow | None:
    asked = task or (rows[0].task if rows else "")
    wanted = (arm, asked, subset, metric)
    return next((r for r in rows if (r.arm, r.task, r.subset, r.metric) == wanted), None)


def _cell(values: Values, column: TableColumn) -> str:
    if not values:
        return ""
    if column.mean == "geometric":
        logs = t_interval([math.log(value) for value in values.values()])
        return _written([math.exp(log) for log in logs], len(values), digits=1)
    return _interval(list(values.values()))


def _interval(
    values: Sequence[float], *, signed: bool = False, digits: int = 3, unit: str = ""
) -> str:
    return _written(t_interval(values), len(values), signed=signed, digits=digits, unit=unit)


def _written(
    numbers: Sequence[float], n: int, *, signed: bool = False, digits: int = 3, unit: str = ""
) -> str:
    """Return a mean of `n` values and, of several, its interval."""
    mean, low, high = (number(x, signed=signed, digits=digits) for x in numbers)
    return f"{mean}{unit} [{low}, {high}]" if n > 1 else f"{mean}{unit}"


def _title(column: TableColumn) -> str:
    metric = short_title(column.metric)
    where = [subset_name(column.subset), *filter(None, (_task_name(column), column.site))]
    return column.title or f"{metric}, {', '.join(where)}"


def _task_name(what: MetricSelector) -> str:
    return (what.task or "").replace("_", " ")


def _header(cells: Sequence[str]) -> list[str]:
    return [_row(cells), "|" + "---|" * len(cells)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
