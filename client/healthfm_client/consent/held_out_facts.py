"""What a run would have this site tell of its held-out people, after the last round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config.evaluation import EvaluationConfig
from healthfm_core.config.privacy_mechanisms import MECHANISMS
from healthfm_core.trust.contract import ContractTerms

PREFIX: Final = "held_out/"


def held_out_facts(terms: ContractTerms, policy: SitePolicy) -> dict[str, Any] | None:
    """Return which patterns leave, and of how many people at least; None where nothing does.

    Args:
        terms: The contract's.
        policy: The site's own rules.
    """
    evaluation = EvaluationConfig.model_validate(terms.config.get("evaluation", {}))
    permitted = [name for name in policy.metrics if name == "*" or name.startswith(PREFIX)]
    if not evaluation.at_sites or terms.sums_only or _is_kept(terms, policy) or not permitted:
        return None
    return {
        "permitted": permitted,
        "least_people": max(terms.k_min, policy.k_min, evaluation.k_subgroup),
    }


def _is_kept(terms: ContractTerms, policy: SitePolicy) -> bool:
    """Whether training here is private, and figures that no ε covers stay."""
    mode = MECHANISMS.get(str(terms.privacy.get("mode", "off")))
    is_private = not policy.privacy.is_as_study or (mode is not None and mode.is_private)
    asked = bool(terms.privacy.get("tuning_metrics", False))
    return is_private and not (asked and policy.privacy.tuning_metrics)


def held_out_sentence(facts: Mapping[str, Any] | None) -> str:
    """Return it for who knows the hospital and not the model."""
    if facts is None:
        return "Nothing is told of this site's held-out people, who train nobody."
    k = facts["least_people"]
    return (
        "After the last round the finished model is kept here, asked about this site's held-out "
        "people, who train nobody, and how well it does is sent: in all, by predicted risk, and by "
        f"sex, ancestry and age, of what {k} people or more have and {k} or more have not "
        f"({', '.join(facts['permitted'])})."
    )
