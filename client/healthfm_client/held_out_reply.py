"""After the last round: how the model does on this site's held-out people, as it may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from healthfm_client.local_work import LocalWork
from healthfm_client.site.site_node import SiteNode
from healthfm_core.arrays import Float32
from healthfm_core.errors import PolicyError
from healthfm_core.federation import protocol
from healthfm_core.federation.protocol import Study
from healthfm_core.training import PrivacyPlan
from healthfm_core.trust.certificates import now_utc


@dataclass(frozen=True)
class HeldOutAsked:
    """What a coordinator asks of a site after the last round.

    Attributes:
        study: The model's.
        data: The site's people as the study reads them.
        parameters: The model.
        wanted: Patterns of the metrics that the contract names.
        plan: Noise of the site's training; with it scores leave under the rule of tuning metrics.
    """

    study: Study
    data: Any
    parameters: Mapping[str, Float32]
    wanted: tuple[str, ...]
    plan: PrivacyPlan | None


def held_out_reply(
    work: LocalWork, node: SiteNode, asked: HeldOutAsked, *, name: str = ""
) -> RecordDict:
    """Return what this site tells of a model, which it keeps; nobody trains, no update goes back.

    Args:
        work: What the site does with its people's records.
        node: The site.
        asked: The model, and what is asked.
        name: Of the run, for the site's people.

    Raises:
        PolicyError: The run's sites tell sums alone, and this would be this site's own (HF-501).
    """
    study, plan = asked.study, asked.plan
    if study.config.federation.aggregation.secure.enabled:
        raise PolicyError(
            501,
            where="order to judge held-out people",
            seen="a run whose coordinator sees sums alone",
            wanted="a run without secure sums: what is told here is one site's own",
        )
    if node.home is not None:
        at = f"{now_utc():%Y-%m-%dT%H:%M:%SZ}"
        node.home.finished_models().keep(study, asked.parameters, name, at)
    metrics: Mapping[str, float] = {}
    if plan is None or plan.config.tuning_metrics:
        k = node.policy.least_people(study)
        metrics = work.held_out_metrics(asked.parameters, node.stores, asked.data, study, k)
    told = MetricRecord({**node.policy.metrics_to_send(metrics, asked.wanted)})
    return RecordDict({protocol.SITE: site_of(node), protocol.METRICS: told})


def site_of(node: SiteNode) -> ConfigRecord:
    """Return the site's name and node, as a reply to an order has them."""
    return ConfigRecord({"site": node.name, "node": str(node.node_id)})
