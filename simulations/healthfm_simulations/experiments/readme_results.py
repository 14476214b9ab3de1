"""The part of an experiment's README that the runner writes, between two marker lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from healthfm_core.errors import ConfigError
from healthfm_core.evaluation.report.wording import duration
from healthfm_simulations.experiments.experiment_plan import ExperimentPlan
from healthfm_simulations.experiments.experiment_runs import FinishedRun
from healthfm_simulations.experiments.result_tables import arms_table, comparison_lines, site_lines

BEGIN: Final = "<!-- results: written by healthfm-experiment, not by hand -->"
END: Final = "<!-- end of results -->"


def results(plan: ExperimentPlan, runs: Sequence[FinishedRun], command: str) -> str:
    """Return the results as Markdown: how they came about, the tables, what they say in pairs."""
    parts = [_provenance(plan, runs, command), arms_table(plan, runs)]
    if compared := comparison_lines(plan, runs):
        parts.append(["Paired by seed:", "", *compared])
    if plan.by_site is not None:
        parts.append(site_lines(plan.by_site, plan, runs))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _provenance(plan: ExperimentPlan, runs: Sequence[FinishedRun], command: str) -> list[str]:
    days = sorted({one.stamp.day for one in runs})
    commits = sorted({one.stamp.commit for one in runs} - {""})
    seeds = sorted({one.seed for one in runs})
    took = duration(sum(one.stamp.seconds for one in runs))
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    at = f" · commit {', '.join(commits)}" if commits else ""
    over = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    lines = [f"`{command}` · {when} · {took} in {len(runs)} runs · {over}{at}"]
    if len(seeds) > 1:
        lines += ["", f"Means over {len(seeds)} seeds, 95 % t intervals over them in brackets."]
    return lines + _missing(plan, runs, len(seeds))


def _missing(plan: ExperimentPlan, runs: Sequence[FinishedRun], seeds: int) -> list[str]:
    """Name the variants that were not run with every seed; a table must not hide it."""
    counts = Counter(one.variant for one in runs)
    fewer = [f"{name} {counts[name] or 'none'}" for name in plan.variants if counts[name] < seeds]
    return [f"Not finished, with fewer seeds: {', '.join(fewer)}."] if fewer else []


def check_markers(file: Path) -> None:
    """Refuse a README that has no place for results; one that is not there is fine.

    Raises:
        ConfigError: HF-102, the marker lines are not there, or not in their order.
    """
    if file.is_file():
        _cut(file, file.read_text(encoding="utf-8"))


def write_results(file: Path, plan: ExperimentPlan, text: str) -> None:
    """Put `text` between the markers of `file`; a file that is not there is begun.

    Raises:
        ConfigError: HF-102, the marker lines are not there, or not in their order.
    """
    if not file.is_file():
        file.write_text(f"# {file.parent.name}\n\n{plan.question}\n\n{BEGIN}\n{END}\n", "utf-8")
    before, after = _cut(file, file.read_text(encoding="utf-8"))
    file.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def _cut(file: Path, text: str) -> tuple[str, str]:
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended) or BEGIN in rest or END in before:
        raise ConfigError(
            102,
            where=str(file),
            seen="the two lines that enclose the results are not there once each, in order",
            wanted=f"{BEGIN} and {END}",
            do="Put them where the results belong",
        )
    return before, after
