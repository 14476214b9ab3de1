"""``python -m healthfm_simulations.privacy_audit``: who trained a model, and with which codes?

Trains the largest site of a simulation alone, on a random half of its people, without noise and at
each ε asked, and attacks the result: membership by the loss and by likelihood ratios of shadow
models, the least ε that explains what was found, and the codes that one person's update betrays.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

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
    seconds: float


def largest_site(config: RunConfig, folder: Path) -> AuditedSite:
    """Return the largest site of the simulation, under the vocabulary of all."""
    views = [site.view() for site in prepare_sites(config, folder)]
    statistics = merge([site_statistics([v], config.tokens, task=config.label_task) for v in views])
    vocabulary = build_vocabulary(statistics, config.tokens)
    largest = max(views, key=lambda view: len(view.subjects()))
    modalities = tuple(sorted(largest.modalities))
    study = Study(VERSION, "audit", for_the_wire(config), vocabulary, modalities)
    return AuditedSite(SiteData.load([largest], study), study, config.privacy)


def attack(victim: AuditedSite, seed: int, shadows: int, persons: int) -> AttackResult:
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
    private = victim.private(victim.data)
    return AttackResult(
        promised=None if private is None else private.epsilon(),
        people=int(asked.sum()),
        loss_auroc=by_loss.auroc,
        loss_caught=by_loss.caught,
        ratio_auroc=by_ratio.auroc,
        ratio_caught=by_ratio.caught,
        epsilon_at_least=bound,
        codes_auroc=codes_revealed(victim, seed, persons),
        seconds=time.monotonic() - begun,
    )


def codes_revealed(victim: AuditedSite, seed: int, persons: int) -> float:
    """Return, as a mean over people, how well an update of one person tells their codes."""
    train, aurocs = victim.data.train, []
    asked = np.flatnonzero(np.diff(train.visit_offsets) >= 2)[:persons]
    for person in asked:
        moved = np.linalg.norm(victim.update_of_one(int(person), seed)[CODES], axis=1)
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
        "| ε at least | codes of one update: AUROC |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        promised = "no noise" if result.promised is None else f"{result.promised:.2f}"
        table.append(
            f"| {promised} | {result.people} | {result.loss_auroc:.3f}, {result.loss_caught:.1%} "
            f"| {result.ratio_auroc:.3f}, {result.ratio_caught:.1%} "
            f"| {result.epsilon_at_least:.2f} | {result.codes_auroc:.3f} |"
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
        victim = largest_site(config, Path(folder) / "sites")
        results: list[AttackResult] = []
        for way in ways:
            victim_with_noise = replace(victim, privacy=way)
            results.append(attack(victim_with_noise, config.seed, given.shadows, given.persons))
            print("\n".join(lines(results)[-1:] if len(results) > 1 else lines(results)))
    given.out.mkdir(parents=True, exist_ok=True)
    record = {"overrides": given.overrides, "findings": [asdict(result) for result in results]}
    (given.out / "audit.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (given.out / "audit.md").write_text("\n".join(lines(results)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
