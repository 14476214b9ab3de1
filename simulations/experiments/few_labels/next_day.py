"""Death in hospital from few labels, after the platform has forecast the next day of every stay.

    python simulations/experiments/few_labels/next_day.py [--inner] [--seeds 5] [--out FOLDER]

The four ICU types train the platform's own network on the objective ``value_forecast`` alone: real
server and client, Flower's messages, twelve rounds, no label. A ridge regression, whose every step
is a sum over the sites, then reads the network's state at 48 hours beside the numbers of the stay,
on a share of the labels. Regression, boosted trees and the same ridge without the network have the
very same labels. Prints AUROC on set c, or with ``--inner`` over five folds of sets a and b, and
paired differences. Pretrained models are kept in the folder and used again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from day_ahead import SHARES, aurocs
from torch import Tensor

from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.splits import keeps_label, keyed_uniform
from healthfm_core.evaluation.baselines import label_baselines
from healthfm_core.evaluation.baselines.label_baselines import Summaries
from healthfm_core.models.code_summaries import summaries_of
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.trained import TrainedModel
from healthfm_core.training import loaded_model, loader_for
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.sites import SimulatedSite, prepare_sites

TASK: Final = "in_hospital_mortality"
PRETRAINING: Final = (
    "data=physionet2012",
    "tokens.bin_hours=24",
    "model.layers=1",
    "model.width=128",
    "model.ffn=128",
    "model.sum_pooling=false",
    "model.linear_logit=false",
    "model.summary_hours=24",
    "model.summary_width=192",
    "model.layer_scale=0.1",
    "model.dropout=0.2",
    "train.objectives.label=0",
    "train.objectives.value_forecast=1",
    "train.batch_size=64",
    "train.lr=2e-3",
    "train.lr_final=0.02",
    "train.warmup_rounds=0",
    "train.round_warmup=0",
    "train.weight_decay=0.02",
    "train.drop_events=0.1",
    "federation.rounds=12",
)
STRENGTH: Final = 0.01
"""scikit-learn's C of the ridge that reads states."""
STRENGTH_ALONE: Final = 0.003
"""The same of the ridge on the stay's numbers alone, the best for it of .001, .003 and .01."""
WEIGHT: Final = 0.6
"""Scale of the stay's numbers beside the states: a smaller one is a stronger penalty."""
FURTHEST: Final = 4.0
FOLDS: Final = 5
STEPS: Final = 100
REPLICATES: Final = 1000


@dataclass(frozen=True)
class EncodedStays:
    """N stays as a pretrained network reads them.

    Attributes:
        subject: [N] ids.
        site: [N] the ICU type.
        died: [N] in hospital.
        state: [N, d] the network's state at 48 hours.
        numbers: [N, F] each variable's numbers over the stay, as tokens tell them.
    """

    subject: np.ndarray
    site: np.ndarray
    died: np.ndarray
    state: np.ndarray
    numbers: np.ndarray


def pretrained(seed: int, sites: Sequence[SimulatedSite], out: Path) -> TrainedModel:
    """Return the seed's network, trained by the platform's rounds unless it lies in `out`."""
    folder = out / f"model-{seed}"
    if not folder.exists():
        config = compose([*PRETRAINING, f"seed={seed}"])
        nodes = [NodeSpec(site.name, ((site.path, site.modalities),)) for site in sites]
        result = run_federation(config, nodes, out / f"run-{seed}", resume=True)
        TrainedModel(result.study, result.parameters, config.federation.rounds).save(folder)
    return TrainedModel.load(folder)


def read(
    model: TrainedModel, sites: Sequence[SimulatedSite], splits: Sequence[str]
) -> EncodedStays:
    """Return the stays of some splits, by id."""
    parts = [p for i, site in enumerate(sites) for s in splits for p in _of_site(model, i, site, s)]
    subject, at, died, state, numbers = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    order = np.argsort(subject)
    return EncodedStays(subject[order], at[order], died[order], state[order], numbers[order])


@torch.no_grad()
def _of_site(
    model: TrainedModel, index: int, site: SimulatedSite, split: str
) -> Iterator[tuple[np.ndarray, ...]]:
    store = SiteStore.open(site.path)
    tokens = model.study.config.tokens
    people = tokenize([store], model.study.vocabulary, tokens, split=split, task=TASK)
    network = loaded_model(model.parameters, model.study, store.modalities).eval()
    for batch in loader_for(people, model.study).in_order(batch_size=256, query="label"):
        code, codes = batch.code, network.shape.codes
        yield (
            people.subject_id[batch.subject.numpy()],
            np.full(batch.size, index),
            batch.label[:, 0].numpy() > 0,
            network(batch, batch.query)[:, 0].numpy(),
            summaries_of(code, batch.spread, code > 0, codes).flatten(1).numpy(),
        )


def standardised(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the columns that vary in `reference`, by its mean and spread, up to `FURTHEST`."""
    mean, sd = reference.mean(0), reference.std(0)
    some = sd > 1e-6
    return np.clip((x[:, some] - mean[some]) / sd[some], -FURTHEST, FURTHEST)


def inputs(stays: EncodedStays, train: np.ndarray) -> np.ndarray:
    """Return [N, .] what the pretrained ridge reads; its scales are of `train`, labelled or not."""
    state = standardised(stays.state, stays.state[train])
    return np.concatenate([state, np.eye(4)[stays.site], WEIGHT * numbers_of(stays, train)], 1)


def numbers_of(stays: EncodedStays, train: np.ndarray) -> np.ndarray:
    """Return [N, F] the stay's numbers, by the scales of `train`."""
    return standardised(stays.numbers, stays.numbers[train])


def ridge(x: np.ndarray, died: np.ndarray, site: np.ndarray, strength: float) -> np.ndarray:
    """Return the weights and, last, the intercept; each step's gradient is a sum over sites."""
    parts = [
        (torch.tensor(x[site == s]).double(), torch.tensor(died[site == s]).double())
        for s in np.unique(site)
    ]
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = weights[:-1].square().sum() / (2 * strength)
        for own, outcome in parts:
            logit = own @ weights[:-1] + weights[-1]
            total = total + torch.nn.functional.binary_cross_entropy_with_logits(
                logit, outcome, reduction="sum"
            )
        total.backward()
        return total

    optimizer.step(closure)
    return weights.detach().numpy()


def answers(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return [n] probabilities of death."""
    return 1 / (1 + np.exp(-(x @ weights[:-1] + weights[-1])))


def summarised(sites: Sequence[SimulatedSite], splits: Sequence[str]) -> Summaries:
    """Return what the baselines read of the stays of some splits, by id, the site among it."""
    stores = [SiteStore.open(site.path) for site in sites]
    what = label_baselines.choose(stores, split="train")
    parts = [label_baselines.summarise(stores, TASK, what, split=split) for split in splits]
    subject, site, x, died = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("subject", "site", "x", "outcome")
    )
    order = np.argsort(subject)
    x = np.concatenate([x, np.eye(len(stores))[site]], 1)
    return Summaries(subject[order], site[order], x[order], died[order])


def predictions(
    networks: Sequence[EncodedStays],
    plain: Summaries,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> dict[tuple[float, str], np.ndarray]:
    """Return (share, arm) → [test] probabilities of death, from the labels that `seed` draws.

    Args:
        networks: The stays as each seed's network reads them.
        plain: The same stays as the baselines read them.
        train: [N] who trains.
        test: [N] who is asked.
        seed: Draws the labels; the arm ``pretrained`` is of this seed's network.
    """
    own = networks[seed]
    reads = [inputs(stays, train) for stays in networks]
    alone = numbers_of(own, train)
    found = {}
    for share in SHARES:
        rows = train & keeps_label(own.subject, share=share, seed=seed)
        died, site = own.died[rows], own.site[rows]
        each = [answers(x[test], ridge(x[rows], died, site, STRENGTH)) for x in reads]
        found[share, "pretrained"] = each[seed]
        found[share, f"{len(each)} networks"] = np.mean(each, 0)
        weights = ridge(alone[rows], died, site, STRENGTH_ALONE)
        found[share, "ridge on the stay's numbers"] = answers(alone[test], weights)
        known = plain.where(rows)
        trees, regression = label_baselines.fit_trees(known), label_baselines.fit(known)
        found[share, "trees"] = trees.predict_proba(plain.x[test])[:, 1]
        found[share, "regression"] = regression.predict_proba(plain.x[test])[:, 1]
        sys.stdout.write(f"seed {seed}, {share:.0%}: {rows.sum()} labels, {died.sum()} deaths\n")
        sys.stdout.flush()
    return found


def table(runs: Sequence[dict[tuple[float, str], np.ndarray]], died: np.ndarray) -> str:
    """Return a row per share and arm: AUROC, and what the pretrained and all networks gain on it.

    Means over the runs; 95 % intervals of a bootstrap over the stays, the same for all arms.
    """
    draw, n, lines = np.random.default_rng(0), len(died), []
    counts = draw.multinomial(n, np.full(n, 1 / n), size=REPLICATES).astype(np.float32)
    counts = np.concatenate([np.ones((1, n), np.float32), counts])
    for share in SHARES:
        arms = [arm for s, arm in runs[0] if s == share]
        each = {arm: [aurocs(run[share, arm], died, counts) for run in runs] for arm in arms}
        mean = {arm: np.mean(values, 0) for arm, values in each.items()}
        for arm in arms:
            gains = " | ".join(_interval(mean[one] - mean[arm], "+.3f") for one in arms[:2])
            lines.append(f"| {share:.0%} | {arm} | {_interval(mean[arm], '.3f')} | {gains} |")
        by_seed = [f"{a[0] - b[0]:+.3f}" for a, b in zip(each[arms[0]], each["trees"], strict=True)]
        lines.append(f"{share:.0%}, {arms[0]} - trees by seed: {' '.join(by_seed)}")
    return "\n".join(lines)


def _interval(values: np.ndarray, how: str) -> str:
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return f"{values[0]:{how}} [{low:{how}}, {high:{how}}]"


def runs_of(
    given: argparse.Namespace, sites: Sequence[SimulatedSite]
) -> tuple[list[dict[tuple[float, str], np.ndarray]], np.ndarray]:
    """Return each seed's predictions, and who of those asked died."""
    splits = ("train", "tuning") if given.inner else ("train", "held_out")
    models = [pretrained(seed, sites, given.out) for seed in range(given.seeds)]
    networks = [read(model, sites, splits) for model in models]
    plain = summarised(sites, splits)
    own = networks[0]
    if not given.inner:
        tested = np.concatenate([SiteStore.open(s.path).subjects("held_out") for s in sites])
        test = np.isin(own.subject, tested)
        runs = [predictions(networks, plain, ~test, test, seed) for seed in range(given.seeds)]
        return runs, own.died[test]
    fold = (keyed_uniform(own.subject, "inner") * FOLDS).astype(int)
    order = np.argsort(fold, kind="stable")
    runs = []
    for seed in range(given.seeds):
        parts = [predictions(networks, plain, fold != k, fold == k, seed) for k in range(FOLDS)]
        runs.append({key: np.concatenate([part[key] for part in parts]) for key in parts[0]})
    return runs, own.died[order]


def main() -> None:
    """Run it; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inner", action="store_true", help="score folds of sets a and b")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/few_labels_next_day"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    sites = prepare_sites(compose(list(PRETRAINING)), given.out / "sites")
    runs, died = runs_of(given, sites)
    sys.stdout.write(table(runs, died) + "\n")


if __name__ == "__main__":
    main()
