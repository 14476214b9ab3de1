"""Death in hospital from few labels, after four ICUs have learned from unlabelled stays.

    python simulations/experiments/few_labels/day_ahead.py [--inner] [--seeds 5]

Two small networks learn from the stays of sets a and b without any label, by federated averaging
over the four ICU types: one forecasts the numbers of each variable's second day from the first day,
the other what was hidden of the whole stay. A ridge regression then reads their states at 48 hours
and a share of the labels. Beside it stand regression and boosted trees with the very same labels.
Prints AUROC on set c, or with ``--inner`` on a third of sets a and b, and paired differences.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from healthfm_client.ingest.readers.physionet2012 import LIMITS, START_US
from healthfm_core.data.store.splits import keeps_label
from healthfm_core.evaluation.baselines.label_baselines import Summaries, fit, fit_trees

SHARES = (0.01, 0.02, 0.05, 0.10, 0.25, 1.0)
HOURS = {"stay": (0.0, 48.0), "first": (0.0, 24.0), "second": (24.001, 48.0)}
NUMBERS = 6
"""Mean, lowest, highest, first, last value and count of a variable in some hours."""
OF_A_DAY = [0, 1, 2, 4, 5]
OF_BASELINES = [0, 1, 2, 4]
WIDTH, ROUNDS, BATCH, RATE, DECAY = 192, 20, 64, 1e-3, 0.02
HIDDEN_SHARE = 0.4
STRENGTH = 0.002
"""scikit-learn's C of the probe."""
REPLICATES = 1000
MOST_FOR_ALL_INPUTS = 0.10
"""Trees of all inputs are fitted up to this share; each takes minutes beyond it."""


@dataclass(frozen=True)
class Stays:
    """N stays.

    Attributes:
        subject: [N] ids.
        site: [N] 0 to 3, the ICU type.
        died: [N] in hospital.
        in_c: [N] whether of set c.
        statics: [N, 8] age, sex, height, weight, one column per site; NaN where unknown.
        windows: Name of some `HOURS` → [N, V, NUMBERS], NaN without a value, counts 0.
    """

    subject: np.ndarray
    site: np.ndarray
    died: np.ndarray
    in_c: np.ndarray
    statics: np.ndarray
    windows: dict[str, np.ndarray]


def read(folder: Path) -> Stays:
    """Read the stays, without values that no adult survives."""
    table = pq.read_table(folder / "stays.parquet").sort_by("subject_id")
    subject = table["subject_id"].to_numpy()
    site = table["site"].to_numpy() - 1
    plain = [table[c].to_numpy().astype(float) for c in ("Age", "Gender", "Height", "Weight")]
    statics = np.stack(plain, 1)
    statics[statics < 0] = np.nan
    statics = np.concatenate([statics, np.eye(4)[site]], 1)
    events = pq.read_table(folder / "events.parquet")
    code = events["code"].combine_chunks()
    names = code.dictionary.to_pylist()
    observed = [i for i, name in enumerate(names) if name.startswith("OBS//")]
    variable = np.full(len(names), -1)
    variable[observed] = np.arange(len(observed))
    value = events["numeric_value"].to_numpy().astype(float)
    start = np.datetime64(START_US, "us")
    hour = (events["time"].to_numpy() - start).astype("timedelta64[s]").astype(float) / 3600
    which = variable[code.indices.to_numpy()]
    keep = (which >= 0) & np.isfinite(value)
    for name, (low, high) in LIMITS.items():
        if name in names:
            keep &= (code.indices.to_numpy() != names.index(name)) | (
                (value >= low) & (value <= high)
            )
    cell = np.searchsorted(subject, events["subject_id"].to_numpy()[keep]) * len(observed)
    cell, value, hour = cell + which[keep], value[keep], hour[keep]
    order = np.lexsort((hour, cell))
    cell, value, hour = cell[order], value[order], hour[order]
    windows = {
        name: summaries(cell, value, (hour >= low) & (hour <= high), len(subject), len(observed))
        for name, (low, high) in HOURS.items()
    }
    in_c = np.array(table["set"].to_pylist()) == "c"
    return Stays(subject, site, table["hospital_death"].to_numpy() > 0, in_c, statics, windows)


def summaries(
    cell: np.ndarray, value: np.ndarray, inside: np.ndarray, stays: int, variables: int
) -> np.ndarray:
    """Return [stays, variables, NUMBERS] of the values inside, sorted by cell and time."""
    cell, value, cells = cell[inside], value[inside], stays * variables
    count = np.bincount(cell, minlength=cells).astype(float)
    mean = np.bincount(cell, value, cells) / np.maximum(count, 1)
    lowest, highest = np.full(cells, np.inf), np.full(cells, -np.inf)
    np.minimum.at(lowest, cell, value)
    np.maximum.at(highest, cell, value)
    first = np.minimum(np.searchsorted(cell, np.arange(cells)), len(cell) - 1)
    last = np.maximum(np.searchsorted(cell, np.arange(cells), side="right") - 1, 0)
    found = np.stack([mean, lowest, highest, value[first], value[last], count], 1)
    found[count == 0, :-1] = np.nan
    return found.reshape(stays, variables, NUMBERS)


def scaled(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return asinh((x - median) / spread) by column, up to 4, as `reference` has them; NaN kept."""
    low, middle, high = np.nanpercentile(reference, [10, 50, 90], axis=0)
    spread = (high - low) / 2.56
    narrow = ~(spread > 1e-6)
    spread[narrow] = np.nanstd(reference[:, narrow], axis=0)
    spread[~(spread > 1e-6)] = 1.0
    return np.clip(np.arcsinh((x - middle) / spread), -4, 4)


def numbers(window: np.ndarray, which: list[int]) -> np.ndarray:
    """Return [N, V · len(which)] numbers of a window, counts as log(1 + n)."""
    chosen = window[:, :, which].copy()
    chosen[:, :, -1] = np.log1p(chosen[:, :, -1])
    return chosen.reshape(len(chosen), -1)


def tensor(x: np.ndarray) -> Tensor:
    """Return `x` in float32, 0 where it is NaN."""
    return torch.tensor(np.nan_to_num(x), dtype=torch.float32)


class Network(nn.Module):
    """Two layers to a state of `WIDTH`, and a linear map to what is asked of it."""

    def __init__(self, inputs: int, outputs: int, dropout_in: float, dropout: float) -> None:
        super().__init__()
        self.state = nn.Sequential(
            nn.Dropout(dropout_in),
            nn.Linear(inputs, WIDTH),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(WIDTH, WIDTH),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.out = nn.Linear(WIDTH, outputs)


class DayAhead:
    """The second day from the first; the state at 48 hours is that of the second day."""

    def __init__(self, stays: Stays, train: np.ndarray) -> None:
        first = numbers(stays.windows["first"], OF_A_DAY)
        second = numbers(stays.windows["second"], OF_A_DAY)
        both = np.concatenate([first[train], second[train]])
        statics = scaled(stays.statics, stays.statics[train])
        target = scaled(second, both)

        def inputs(day: np.ndarray) -> Tensor:
            missing = np.isnan(day[:, :: len(OF_A_DAY)])
            return tensor(np.concatenate([statics, scaled(day, both), missing], 1))

        self.inputs, self.read = inputs(first), inputs(second)
        self.target, self.known = tensor(np.clip(target, -3, 3)), tensor(~np.isnan(target))
        self.network = Network(self.inputs.shape[1], self.target.shape[1], 0.1, 0.2)

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Return the mean squared error of what the second day has."""
        said = self.network.out(self.network.state(self.inputs[rows]))
        known = self.known[rows]
        return ((said - self.target[rows]) ** 2 * known).sum() / known.sum().clamp_min(1)


class Hidden:
    """Whole variables hidden of the 48 hours, from the others."""

    def __init__(self, stays: Stays, train: np.ndarray) -> None:
        x = numbers(stays.windows["stay"], list(range(NUMBERS)))
        statics = scaled(stays.statics, stays.statics[train])
        self.values = tensor(scaled(x, x[train]))
        self.missing = tensor(np.isnan(x[:, ::NUMBERS]))
        self.statics = tensor(np.concatenate([statics, np.isnan(stays.statics)], 1))
        self.read = self.seen(np.arange(len(x)), torch.zeros(self.missing.shape))
        outputs = self.values.shape[1]
        self.network = Network(self.read.shape[1], outputs, 0.0, 0.1)

    def seen(self, rows: np.ndarray, hidden: Tensor) -> Tensor:
        """Return what is left of rows, with what is hidden named."""
        left = 1 - hidden
        values = self.values[rows] * left.repeat_interleave(NUMBERS, 1)
        return torch.cat([self.statics[rows], values, self.missing[rows] * left, hidden], 1)

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Return the mean squared error of what was hidden."""
        hidden = (torch.rand(self.missing[rows].shape, generator=generator) < HIDDEN_SHARE).float()
        said = self.network.out(self.network.state(self.seen(rows, hidden)))
        asked = (hidden * (1 - self.missing[rows])).repeat_interleave(NUMBERS, 1)
        error = (said - self.values[rows].clamp(-3, 3)) ** 2
        return (error * asked).sum() / asked.sum().clamp_min(1)


def pretrain(task: DayAhead | Hidden, sites: list[np.ndarray], seed: int) -> np.ndarray:
    """Average the sites' networks for `ROUNDS` epochs; return the states [N, WIDTH] at 48 hours."""
    network, generator = task.network, torch.Generator().manual_seed(seed)
    draw = np.random.default_rng(seed)
    people = sum(len(rows) for rows in sites)
    network.train()
    for round_ in range(ROUNDS):
        start = {k: v.clone() for k, v in network.state_dict().items()}
        mean = {k: torch.zeros_like(v) for k, v in start.items()}
        rate = RATE * (0.02 + 0.49 * (1 + np.cos(np.pi * round_ / ROUNDS)))
        for rows in sites:
            network.load_state_dict(start)
            optimizer = torch.optim.AdamW(
                network.parameters(), rate, weight_decay=DECAY, fused=True
            )
            order = draw.permutation(rows)
            for low in range(0, len(rows) - BATCH + 1, BATCH):
                optimizer.zero_grad()
                task.loss(order[low : low + BATCH], generator).backward()
                optimizer.step()
            for name, value in network.state_dict().items():
                mean[name] += value * (len(rows) / people)
        network.load_state_dict(mean)
    network.eval()
    with torch.no_grad():
        return network.state(task.read).numpy()


def standardised(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return `x` by the reference's mean and spread."""
    return (x - reference.mean(0)) / reference.std(0).clip(1e-3)


def states(stays: Stays, train: np.ndarray, seed: int) -> np.ndarray:
    """Return the two networks' states side by side, standardised by the training stays."""
    sites = [np.flatnonzero(train & (stays.site == site)) for site in range(4)]
    found = []
    for kind in (DayAhead, Hidden):
        torch.manual_seed(seed)
        state = pretrain(kind(stays, train), sites, seed)
        found.append(standardised(state, state[train]))
    return np.concatenate(found, 1)


def ridge(x: np.ndarray, died: np.ndarray) -> LogisticRegression:
    """Return the probe fitted."""
    return LogisticRegression(C=STRENGTH, max_iter=300).fit(x, died)


def predictions(stays: Stays, train: np.ndarray, test: np.ndarray, seed: int) -> dict:
    """Return (share, arm) → [test] probabilities of death, from the same labels."""
    state = states(stays, train, seed)
    everything = [numbers(stays.windows[name], list(range(NUMBERS))) for name in HOURS]
    wide = np.concatenate([stays.statics, *everything], 1)
    whole = stays.windows["stay"][:, :, OF_BASELINES].reshape(len(wide), -1)
    plain = np.concatenate([stays.statics, whole], 1)
    scaled_wide = np.nan_to_num(scaled(wide, wide[train]))
    alike = standardised(scaled_wide, scaled_wide[train])
    found = {}
    for share in SHARES:
        rows = train & keeps_label(stays.subject, share=share, seed=seed)
        died = stays.died[rows]

        def given(x: np.ndarray, rows: np.ndarray = rows, died: np.ndarray = died) -> Summaries:
            return Summaries(stays.subject[rows], stays.site[rows].astype(np.int32), x[rows], died)

        found[share, "pretrained"] = ridge(state[rows], died).predict_proba(state[test])[:, 1]
        found[share, "same ridge on the inputs"] = ridge(alike[rows], died).predict_proba(
            alike[test]
        )[:, 1]
        found[share, "regression"] = fit(given(plain)).predict_proba(plain[test])[:, 1]
        for name, x in (("trees", plain), ("trees of all inputs", wide)):
            if share <= MOST_FOR_ALL_INPUTS or name == "trees":
                found[share, name] = boosted(fit_trees(given(x)), x[test])
        sys.stdout.write(f"seed {seed}, {share:.0%}: {rows.sum()} labels, {died.sum()} deaths\n")
        sys.stdout.flush()
    return found


def boosted(model: HistGradientBoostingClassifier, x: np.ndarray) -> np.ndarray:
    """Return the trees' probabilities."""
    return model.predict_proba(x)[:, 1]


def aurocs(score: np.ndarray, died: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return [R] AUROC where stay n is there counts[r, n] times; a tie counts half."""
    order = np.argsort(score, kind="stable")
    start = np.flatnonzero(np.diff(score[order], prepend=-1.0))
    there = counts[:, order]
    dead = np.add.reduceat(there * died[order], start, axis=1)
    alive = np.add.reduceat(there * ~died[order], start, axis=1)
    before = np.cumsum(alive, 1) - alive / 2
    return (dead * before).sum(1) / (dead.sum(1) * alive.sum(1))


def table(runs: list[dict], died: np.ndarray) -> str:
    """Return a row per share: AUROC of each arm, and the pretrained one less each other."""
    draw = np.random.default_rng(0)
    n, lines = len(died), []
    counts = draw.multinomial(n, np.full(n, 1 / n), size=REPLICATES).astype(np.float32)
    counts = np.concatenate([np.ones((1, n), np.float32), counts])
    for share in SHARES:
        arms = [arm for s, arm in runs[0] if s == share]
        mean = {
            arm: np.mean([aurocs(run[share, arm], died, counts) for run in runs], 0) for arm in arms
        }
        if share == 1 and len(runs) > 1:
            together = np.mean([run[share, "pretrained"] for run in runs], 0)
            mean["seeds together"] = aurocs(together, died, counts)
        for arm, values in mean.items():
            gain = mean["pretrained"] - values
            if arm == "seeds together":
                gain = values - mean["trees"]
            low, high = np.percentile(gain[1:], [2.5, 97.5])
            ends = " ".join(f"{end:.3f}" for end in np.percentile(values[1:], [2.5, 97.5]))
            lines.append(
                f"| {share:.0%} | {arm} | {values[0]:.3f} [{ends}] "
                f"| {gain[0]:+.3f} [{low:+.3f}, {high:+.3f}] |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run it; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inner", action="store_true", help="score a third of sets a and b")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/few_labels"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/physionet2012"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    stays = read(given.data)
    train, test = ~stays.in_c, stays.in_c
    if given.inner:
        third = np.random.default_rng(7).integers(0, 3, len(stays.site)) == 0
        train, test = ~stays.in_c & ~third, ~stays.in_c & third
    runs = []
    for seed in range(given.seeds):
        file = given.out / f"{'inner' if given.inner else 'c'}-{seed}.npz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            found = predictions(stays, train, test, seed)
            np.savez(file, **{f"{share} {arm}": x for (share, arm), x in found.items()})
        with np.load(file) as saved:
            split = {name: name.partition(" ") for name in saved}
            runs.append({(float(s), arm): saved[n] for n, (s, _, arm) in split.items()})
    sys.stdout.write(table(runs, stays.died[test]) + "\n")


if __name__ == "__main__":
    main()
