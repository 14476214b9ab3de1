"""Models side by side: what differs in how they were made, and what sites found of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from healthfm_core.evaluation.metrics.metric_rows import MetricRow
from healthfm_server.registry.study_models import StudyModel
from healthfm_server.tracking.run_parameters import run_parameters

NOT_TOLD = "not told"


def comparison(models: Sequence[StudyModel]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (what, one value for each model): identity, settings that differ, figures.

    A figure is the mean over the sites that told it, by people, with the model's own 95 % interval.
    There is no interval of a difference: no prediction is at the coordinator.
    """
    yield "alias", tuple(", ".join(m.aliases) or "none" for m in models)
    yield "model after round", tuple(str(m.model.round) for m in models)
    yield "SHA-256", tuple(m.model.sha256[:16] for m in models)
    yield "trained by", tuple(", ".join(m.sites) or "nobody" for m in models)
    yield "judged by", tuple(", ".join(m.judges) or "nobody" for m in models)
    yield from settings_that_differ(models)
    keys = dict.fromkeys((row.subset, row.metric) for m in models for row in m.rows)
    for subset, metric in keys:
        found = (m.figure(subset, metric) for m in models)
        yield f"{subset}: {metric}", tuple(told(row) for row in found)


def settings_that_differ(models: Sequence[StudyModel]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the settings that are not the same in all, by name."""
    settings: list[Mapping[str, str]] = [run_parameters(m.study.config) for m in models]
    for key in sorted({key for each in settings for key in each}):
        values = tuple(each.get(key, NOT_TOLD) for each in settings)
        if len(set(values)) > 1:
            yield key, values


def told(row: MetricRow | None) -> str:
    """Return a figure with its interval and its people, for a person."""
    if row is None:
        return NOT_TOLD
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}], {row.n_subjects:,} people"


def comparison_lines(models: Sequence[StudyModel]) -> Iterator[str]:
    """Yield a table for a terminal, a line for each thing compared."""
    rows = [("", tuple(m.run for m in models)), *comparison(models)]
    wide = max(len(what) for what, _ in rows)
    each = [max(len(values[i]) for _, values in rows) for i in range(len(models))]
    for what, values in rows:
        cells = (value.ljust(width) for value, width in zip(values, each, strict=True))
        yield f"{what.ljust(wide)}  {'  '.join(cells)}".rstrip()
    yield how_to_read(models)


def how_to_read(models: Sequence[StudyModel]) -> str:
    """Return what a person should know of the figures side by side."""
    if len({m.judges for m in models}) > 1:
        return "They were judged by different sites: their figures are of different people."
    return (
        "Each interval is of one model. A difference that is smaller than they are wide may be "
        "chance: the sites' predictions, which would tell, stay at the sites."
    )
