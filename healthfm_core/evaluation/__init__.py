"""Evaluation: how good the predictions are, how sure we are of that, and a page that shows it.

Predictions are flat columns (`Predictions`), a row per subject, query and target. `metric_rows`
turns those of several arms into rows with 95 % intervals over subjects and paired differences;
`write_report` makes one self-contained page of them. New onset, a code the subject's full history
does not hold, is always a column of its own: repeating the history scores well overall and finds
nothing new.

Beside the tables, each a module of its own and an optional part of the page: `metrics.horizons`
(events within 30 days to five years), `metrics.concordance` (the order of the times to events),
`analyses.probes`, `physiology` and `smoothness` (what frozen states hold), `subgroups` (groups of
people) and `missing_inputs` (inputs that are absent or corrupted).
"""

from healthfm_core.evaluation.metrics.metric_rows import (
    MetricRow,
    metric_rows,
    read_rows,
    write_rows,
)
from healthfm_core.evaluation.predictions import SUBSETS, Predictions, Subset

__all__ = [
    "SUBSETS",
    "MetricRow",
    "Predictions",
    "Subset",
    "metric_rows",
    "read_rows",
    "write_rows",
]
