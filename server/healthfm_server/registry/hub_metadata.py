"""What a model hub reads at the top of a model card: YAML as Hugging Face's hub defines it.

https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import yaml

from healthfm_core.evaluation.metrics.metric_rows import MetricRow
from healthfm_core.evaluation.metrics.report_metrics import METRICS
from healthfm_core.federation.protocol import Study
from healthfm_core.held_out.site_evaluation import FEDERATED
from healthfm_server.run_folder.held_out_file import HeldOutTold
from healthfm_server.run_report.held_out_rows import pooled_rows, site_evaluations

TAGS: Final = ("medical", "electronic-health-records", "federated-learning", "time-series")
INTENDED_USE: Final = """\
## Intended use

For research on records like those it was trained on: states of persons, risks of codes, and what
the study's task asks. It is no medical device. Not for decisions about a person, for people unlike
those at the sites that trained it, or as evidence that one thing causes another.
"""


def hub_metadata(
    study: Study, name: str, told: HeldOutTold | None, license_: str | None
) -> dict[str, Any]:
    """Return the metadata of a model's card.

    Args:
        study: What its sites agreed on.
        name: What the model is called there.
        told: What sites told of this very model on their held-out people; None: nothing.
        license_: SPDX; None: none was given, and the hub shows none.
    """
    rows = pooled_rows(site_evaluations(told, study.config.evaluation.task))
    found: dict[str, Any] = {"library_name": "healthfm"}
    if license_ is not None:
        found["license"] = license_.lower()
    private = ["differential-privacy"] if study.config.privacy.mechanism.is_private else []
    found["tags"] = [*TAGS, *private, *sorted(study.modalities)]
    results = list(_results(rows, study.config.evaluation.task))
    if results:
        found["model-index"] = [{"name": name, "results": results}]
    return found


def front_matter(metadata: dict[str, Any]) -> str:
    """Return the lines above a card."""
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n"


def _results(rows: Iterable[MetricRow], task: str) -> Iterable[dict[str, Any]]:
    """Yield a result for each subset: a hub shows value by value, so each says its interval."""
    by_subset: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.arm == FEDERATED:
            title = f"{METRICS[row.metric].title} [{row.low:.3f}, {row.high:.3f}]"
            metric = {"type": row.metric, "value": round(row.value, 4), "name": title}
            by_subset.setdefault(row.subset, []).append(metric)
    for subset, metrics in by_subset.items():
        yield {
            "task": {"type": "tabular-classification", "name": task.replace("_", " ")},
            "dataset": {
                "type": "held-out-people",
                "name": f"held-out people of the sites, {subset.replace('_', ' ')}",
            },
            "metrics": metrics,
        }
