"""The facts of a run at this site: what it reads, what leaves, what it costs. JSON takes them all.

They are counted from the site's own stores when a run asks first, and stay at the site.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from healthfm_client.consent.held_out_facts import held_out_facts
from healthfm_client.consent.noise_sentences import epsilon_asked, noise_sentence
from healthfm_client.local_work import StoreSpec
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import HealthFMError
from healthfm_core.federation import protocol
from healthfm_core.federation.protocol import Study
from healthfm_core.modalities.registry import modality_names, modality_of_column
from healthfm_core.trust.contract import Contract
from healthfm_core.trust.kit import Kit

if TYPE_CHECKING:
    from healthfm_core.tokens.statistics import SiteStatistics

NAMED: Final = 5
"""Codes of a domain that are named, those of most people."""
BYTES_PER_NUMBER: Final = 4
"""Parameters travel as float32; a masked update takes up to twice that."""


def run_facts(
    contract: Contract,
    policy: SitePolicy,
    stores: Sequence[StoreSpec] = (),
    kit: Kit | None = None,
) -> dict[str, Any]:
    """Return what a run would do here, as values that JSON takes.

    Args:
        contract: What the coordinator signed.
        policy: The site's own rules.
        stores: What the site takes part with; none: nothing is counted.
        kit: The study that the site is in.
    """
    terms = contract.terms
    k = max(terms.k_min, policy.k_min)
    whose = "" if kit is None else f"{kit.study} {kit.signer_fingerprint}"
    return {
        "study": contract.study,
        "number": terms.run,
        "stated": dict(contract.statement),
        "configuration": str(terms.config.get("name", "")),
        "rounds": terms.rounds,
        **_counted(contract, policy, stores, k),
        "leaves": {
            "to": "" if kit is None else kit.url,
            "counts_from": k,
            "metrics": [name for name in terms.metrics if name in policy.metrics],
            "metrics_asked": list(terms.metrics),
            "metrics_permitted": list(policy.metrics),
            "held_out": held_out_facts(terms, policy),
            "sums_only": terms.sums_only,
            "min_sites": terms.min_sites,
        },
        "privacy": {
            "noise": noise_sentence(terms, policy.privacy),
            "epsilon_asked": epsilon_asked(terms, policy.privacy),
            "delta": float(terms.privacy.get("delta", policy.privacy.delta)),
            **_spent(policy.privacy, whose),
        },
        "until": f"{contract.expires:%Y-%m-%d %H:%M} UTC",
    }


def _counted(
    contract: Contract, policy: SitePolicy, stores: Sequence[StoreSpec], k: int
) -> dict[str, Any]:
    """Return what is read and what it takes; why not, where the stores cannot be counted."""
    if not stores:
        return {"reads": None, "work": None, "uncounted": "no store was looked at"}
    from healthfm_client.core_local_work import opened  # here: they load PyTorch
    from healthfm_core.tokens.statistics import site_statistics

    try:
        config = RunConfig.model_validate(contract.terms.config)
        views = opened(stores)
        tokens = config.tokens.model_copy(update={"k_min": k})
        found = site_statistics(views, tokens, task=config.label_task)
        people = sum(len(view.subjects("train")) for view in views)
        reads = what_is_read(found, people)
        return {"reads": reads, "work": _work(contract, config, found, people), "uncounted": ""}
    except HealthFMError as error:
        return {"reads": None, "work": None, "uncounted": str(error)}


def what_is_read(found: SiteStatistics, people: int) -> dict[str, Any]:
    """Return people by modality, codes by domain, scores and channels by name."""
    held = dict(zip(modality_names(), found.modality_subjects.tolist(), strict=True))
    domains: dict[str, list[tuple[int, str]]] = {}
    for code, subjects in zip(found.codes, found.subjects.tolist(), strict=True):
        domains.setdefault(code.partition("//")[0], []).append((-subjects, code))
    return {
        "training_people": people,
        "people_by_modality": {name: count for name, count in held.items() if count},
        "domains": {
            name: {
                "codes": len(codes),
                "most_common": {code: -count for count, code in sorted(codes)[:NAMED]},
            }
            for name, codes in sorted(domains.items(), key=lambda item: (-len(item[1]), item[0]))
        },
        "scores": {
            name: [column for column in found.panel if modality_of_column(column) == name]
            for name in modality_names("panel")
            if any(modality_of_column(column) == name for column in found.panel)
        },
        "channels": [f"{device}: {channel}" for device, channel in found.channels],
    }


def _work(
    contract: Contract, config: RunConfig, found: SiteStatistics, people: int
) -> dict[str, Any]:
    """Return steps and bytes of the whole run, by the run's settings and this site's sizes.

    The size of the model follows from the codes of all sites; here it is that of this site's own.
    """
    from healthfm_core.tokens.vocabulary import build_vocabulary  # here: they load PyTorch
    from healthfm_core.training.site_data import initial_parameters

    vocabulary = build_vocabulary(found, config.tokens)
    present = zip(modality_names(), found.modality_subjects.tolist(), strict=True)
    held = tuple(sorted(name for name, count in present if count and vocabulary.has(name)))
    study = Study(protocol.VERSION, contract.terms.run, config, vocabulary, held)
    numbers = sum(array.size for array in initial_parameters(study).values())
    steps = math.ceil(config.train.local_epochs * people / config.train.batch_size)
    steps = steps if config.train.max_steps is None else min(steps, config.train.max_steps)
    rounds = config.federation.rounds
    return {
        "parameters": numbers,
        "steps_per_round": steps,
        "people_per_step": config.train.batch_size,
        "steps": steps * rounds,
        "bytes_received": numbers * BYTES_PER_NUMBER * rounds,
        "bytes_sent": round(numbers * config.federation.codec.uplink_bytes * rounds),
    }


def _spent(rules: SitePrivacy, whose: str) -> dict[str, float | int | None]:
    """Return what the ledger says: of this study, of all, the limits, and what is left of each."""
    from healthfm_core.privacy.accounting import epsilon  # here: it takes a second to load
    from healthfm_core.privacy.ledger import spent_mechanisms

    ledger = rules.open_ledger()
    entries = () if ledger is None else ledger.entries()
    all_, study = spent_mechanisms(entries), spent_mechanisms(entries, "", whose)
    total = epsilon(all_, rules.delta) if all_ else 0.0
    of_study = epsilon(study, rules.delta) if study else 0.0
    return {
        "epsilon_spent_by_study": of_study,
        "epsilon_of_study": rules.epsilon,
        "epsilon_left_of_study": _left(rules.epsilon, of_study),
        "epsilon_spent": total,
        "epsilon_max": rules.epsilon_max,
        "epsilon_left": _left(rules.epsilon_max, total),
        "runs_without_noise": sum(entry.event == "unprotected" for entry in entries),
    }


def _left(limit: float | None, spent: float) -> float | None:
    return None if limit is None else max(0.0, limit - spent)
