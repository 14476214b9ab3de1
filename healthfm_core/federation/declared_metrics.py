"""Metrics that a sum of sites can carry: their names follow from the study, not from a site.

A list that every site fills alike, with nothing where it has none, does not tell which of them a
site has. What is not declared is not sent where sums are secure; so the names are those of the
objectives' registry and of the model's monitors, which training uses too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from healthfm_core.federation.parameter_groups import BACKBONE, gradient_norm_metric
from healthfm_core.federation.protocol import Study
from healthfm_core.models.monitors import context_metrics, half_life_metrics
from healthfm_core.objectives import trained

TUNING_METRICS: Final = ("auroc", "average_precision")
ALWAYS: Final = ("steps", "update_norm")
OF_PRIVACY: Final = ("privacy_noise_multiplier", "privacy_epsilon")


def declared_metrics(study: Study) -> tuple[str, ...]:
    """Return the names, sorted, of all metrics that a round of `study` may give at any site.

    A site whose own policy makes its training private where the study's is not tells its ε to
    nobody: the name would say that there is such a site.
    """
    config, is_private = study.config, study.config.privacy.mechanism.per_site_noise
    names = [*ALWAYS, *half_life_metrics(config.model.layers)]
    names += OF_PRIVACY if is_private else _training_metrics(study)
    if not is_private or config.privacy.tuning_metrics:
        names += [*tuning_metrics(study), *context_metrics(config.model)]
    return tuple(sorted(names))


def _training_metrics(study: Study) -> Iterator[str]:
    """Yield the losses of the objectives, and the gradient norms of all groups.

    Where sites hide their modalities, none that only sites with one of them have: such a number
    hardly changes between two rounds, so what its sum falls by tells what a late site has.
    """
    secure = study.config.federation.aggregation.secure
    hidden = secure.enabled and secure.hide_modalities
    for objective in trained(study.config.train.objectives):
        if objective.modality is None or not hidden:
            yield objective.loss_metric
            yield gradient_norm_metric(objective.group)
    for group in (BACKBONE, *(() if hidden else study.modalities)):
        yield gradient_norm_metric(group)


def tuning_metrics(study: Study) -> Iterator[str]:
    """Yield the names of what the study's task is scored by on a site's tuning people."""
    is_label = study.config.label_task is not None
    task = "label" if is_label else "next_visit"
    if any(objective.name == task for objective in trained(study.config.train.objectives)):
        yield "tuning_subjects"
        for name in TUNING_METRICS:
            yield f"tuning_{name}"
            if not is_label:
                yield f"tuning_{name}_new_onset"
