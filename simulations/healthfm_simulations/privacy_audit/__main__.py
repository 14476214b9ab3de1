"""``python -m healthfm_simulations.privacy_audit``: who trained a model, and with which codes?

Trains a random half of the people of a simulation's sites together, as they would be (with
``--alone`` the largest site by itself, a coordinator at its best), without noise and at each ε
asked, and attacks the model that leaves: membership by the loss and by likelihood ratios of shadow
models, the least ε that explains what was found, and the codes that one person's update betrays.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from healthfm_core.arrays import Float32Arrays
from healthfm_core.config import PrivacyConfig, RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.console import exit_code
from healthfm_core.federation.protocol import VERSION, Study, for_the_wire
from healthfm_core.owner_only import owner_only
from healthfm_core.privacy.audit import (
    codes_told,
    epsilon_lower_bound,
    likelihood_ratios,
    membership,
)
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.training import SiteData
from healthfm_simulations.privacy_audit.audited_federation import AuditedFederation
from healthfm_simulations.privacy_audit.audited_site import AuditedSite
from healthfm_simulations.sites import prepare_sites

CODES = "encoders.ehr.code.weight"


@dataclass(frozen=True)
class AttackResult:
    """What the attacks found out about one way to train.

    Attributes:
        promised: ε of the training; None without noise.
        people: Whose membership was guessed.
        loss_auroc: Membership by the loss.
        loss_caught: Members caught at 5 % false alarms, by the loss.
        ratio_auroc: Membership by likelihood ratios.
        ratio_caught: Members caught at 5 % false alarms, by likelihood ratios.
        epsilon_at_least: ε that the best of these refutes with 95 % confidence.
        codes_auroc: Which codes a person's record holds, from the update of one step of theirs.
        codes_in_sum: The same, where only its sum with other sites' updates is seen; None alone.
        seconds: Wall clock.
    """

    promised: float | None
    people: int
    loss_auroc: float
    loss_caught: float
    ratio_auroc: float
    ratio_caught: float
    epsilon_at_least: float
    codes_auroc: float
    codes_in_sum: float | None
    seconds: float


def largest_site(config: RunConfig, folder: Path) -> AuditedSite:
    """Return the largest site of the simulation, under the vocabulary of all."""
    largest = max(audited_sites(config, folder), key=lambda site: site.data.train.n_subjects)
    study = replace(largest.study, modalities=tuple(sorted(largest.data.modalities)))
    return replace(largest, study=study)


def audited_sites(config: RunConfig, folder: Path) -> list[AuditedSite]:
    """Return the sites of the simulation, in one study."""
    views = [site.view() for site in prepare_sites(config, folder)]
    statistics = merge([site_statistics([v], config.tokens, task=config.label_task) for v in views])
    vocabulary = build_vocabulary(statistics, config.tokens)
    modalities = tuple(sorted(frozenset[str]().union(*(view.modalities for view in views))))
    study = Study(VERSION, "audit", for_the_wire(config), vocabulary, modalities)
    return [AuditedSite(SiteData.load([view], study), study, config.privacy) for view in views]


def attack(
    victim: AuditedSite | AuditedFederation, seed: int, shadows: int, persons: int
) -> AttackResult:
    """Return what attacks on one training of the victim find.

    Args:
        victim: Who trains, and how.
        seed: Of coins and rounds; noise has none.
        shadows: Models the attacker trains, half of them on the other half of the people.
        persons: Of how many the codes are read off an update.
    """
    begun = time.monotonic()
    member = victim.coins(seed, "attacked")
    loss = victim.losses(victim.train(member, seed))
    rows, trained = [], []
    for n in range(shadows):
        inside = victim.coins(seed, f"shadow {n // 2}") ^ bool(n % 2)
        rows.append(victim.losses(victim.train(inside, seed + 1 + n)))
        trained.append(inside)
    asked = np.isfinite(loss)
    member, loss = member[asked], loss[asked]
    ratios = likelihood_ratios(loss, np.stack(rows)[:, asked], np.stack(trained)[:, asked])
    by_loss, by_ratio = membership(-loss, member), membership(ratios, member)
    delta = victim.privacy.delta
    bound = epsilon_lower_bound(ratios, member, delta, confidence=0.975)
    bound = max(bound, epsilon_lower_bound(-loss, member, delta, confidence=0.975))
    in_sum = None
    if isinstance(victim, AuditedFederation):
        in_sum = codes_revealed(victim.first, victim.sum_with_one, seed, persons)
    return AttackResult(
        promised=victim.promised(),
        people=int(asked.sum()),
        loss_auroc=by_loss.auroc,
        loss_caught=by_loss.caught,
        ratio_auroc=by_ratio.auroc,
        ratio_caught=by_ratio.caught,
        epsilon_at_least=bound,
        codes_auroc=codes_revealed(victim.first, victim.first.update_of_one, seed, persons),
        codes_in_sum=in_sum,
        seconds=time.monotonic() - begun,
    )


def codes_revealed(
    victim: AuditedSite,
    seen: Callable[[int, int], Float32Arrays],
    seed: int,
    persons: int,
) -> float:
    """Return, as a mean over people, how well what is seen of one person tells their codes.

    Args:
        victim: The site whose people they are.
        seen: (person, seed) → the update, or the sum, that is seen.
        seed: Of the round.
        persons: How many people.
    """
    train, aurocs = victim.data.train, []
    asked = np.flatnonzero(np.diff(train.visit_offsets) >= 2)[:persons]
    for person in asked:
        moved = np.linalg.norm(seen(int(person), seed)[CODES], axis=1)
        items = slice(train.offsets[person], train.offsets[person + 1])
        last = train.visit_offsets[person + 1] - train.visit_offsets[person] - 1
        held = np.zeros(len(moved), np.bool_)
        held[train.code[items][train.visit[items] < last]] = True  # the last is only asked about
        aurocs.append(codes_told(moved[1:].astype(np.float64), held[1:]))
    return float(np.mean(aurocs))


def lines(results: list[AttackResult]) -> list[str]:
    """Return the findings as a table in Markdown."""
    table = [
        "| ε promised | people | by loss: AUROC, caught | by ratio: AUROC, caught "
        "| ε at least | codes of one update: AUROC | codes in a sum |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        promised = "no noise" if result.promised is None else f"{result.promised:.2f}"
        in_sum = "–" if result.codes_in_sum is None else f"{result.codes_in_sum:.3f}"
        table.append(
            f"| {promised} | {result.people} | {result.loss_auroc:.3f}, {result.loss_caught:.1%} "
            f"| {result.ratio_auroc:.3f}, {result.ratio_caught:.1%} "
            f"| {result.epsilon_at_least:.2f} | {result.codes_auroc:.3f} | {in_sum} |"
        )
    return table


def main(arguments: list[str] | None = None) -> int:
    """Attack each way to train, print the table, and write it to ``--out``."""
    parser = argparse.ArgumentParser(prog="healthfm-audit", description=__doc__)
    parser.add_argument("overrides", nargs="*", help="as of healthfm-simulate")
    parser.add_argument("--epsilons", type=float, nargs="*", default=[8.0, 1.0])
    parser.add_argument("--shadows", type=int, default=4, help="an even number, 2 or more")
    parser.add_argument("--persons", type=int, default=20, help="whose codes are read off updates")
    parser.add_argument("--out", type=Path, default=Path("runs") / "audit")
    parser.add_argument("--alone", action="store_true", help="the largest site trains by itself")
    given = parser.parse_intermixed_args(arguments)
    with owner_only():
        return exit_code(lambda: _run(given), stopped="Stopped; nothing was written.")


def _run(given: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    config = compose(given.overrides)
    ways = [PrivacyConfig()] + [
        config.privacy.model_copy(update={"mode": "dp", "epsilon": e, "noise_multiplier": None})
        for e in given.epsilons
    ]
    with TemporaryDirectory() as folder:
        sites = Path(folder) / "sites"
        victim: AuditedSite | AuditedFederation = (
            largest_site(config, sites)
            if given.alone
            else AuditedFederation(tuple(audited_sites(config, sites)))
        )
        results: list[AttackResult] = []
        for way in ways:
            noised = victim.trained_with(way)
            results.append(attack(noised, config.seed, given.shadows, given.persons))
            print("\n".join(lines(results)[-1:] if len(results) > 1 else lines(results)))
    given.out.mkdir(parents=True, exist_ok=True)
    record = {"overrides": given.overrides, "findings": [asdict(result) for result in results]}
    (given.out / "audit.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (given.out / "audit.md").write_text("\n".join(lines(results)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
