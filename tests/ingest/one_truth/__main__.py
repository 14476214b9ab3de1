"""A federation over one truth in three forms: ``python -m tests.ingest.one_truth FOLDER``.

Three hospitals with people of their own, of whom one exports an OMOP CDM, one FHIR and one MEDS,
each in its own units, codes beside the standard ones, and ways to write a time. `ingest` makes a
store of each; one model is trained over the three stores, and one on all of them put together.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from healthfm_client.__main__ import main as client
from healthfm_simulations.__main__ import main as simulate
from tests.ingest.one_truth.fhir_form import write_fhir
from tests.ingest.one_truth.made_people import ZONE, made_people
from tests.ingest.one_truth.meds_form import write_meds
from tests.ingest.one_truth.omop_form import write_omop

HOSPITALS = {"omop": write_omop, "fhir": write_fhir, "meds": write_meds}
SUBSETS = ("overall", "repeat", "new_onset")
SETTINGS = (
    "tokens.domains=[SNOMED,RxNorm,ICD10CM,CPT4,CVX,LOINC,Gender,MEDS_BIRTH,MEDS_DEATH]",
    *("tokens.visit_gap_hours=6", "tokens.max_len=192", "model=tiny", "model.layers=1"),
    *("model.width=64", "model.ffn=64", "model.dropout=0.2", "model.memory=true"),
    *("model.layer_scale=0.1", "train.batch_size=8", "train.lr=3e-4", "train.lr_memory=30"),
    *("train.drop_events=0.5", "train.local_epochs=0.8"),
    "federation.aggregation.server_optimizer.name=momentum",
    "federation.aggregation.server_optimizer.beta1=0.5",
    "simulation.arms=[federated,centralised]",
    "simulation.baselines=false",
)
"""The network of the simulated cohort; visits are hours, as events of one differ by minutes."""


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As figures are printed elsewhere."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def hospitals(folder: Path, people: int, seed: int) -> dict[str, Path]:
    """Write three hospitals' exports and ingest each: form → its store."""
    stores = {}
    for number, (form, write) in enumerate(HOSPITALS.items()):
        mix = made_people(people, [seed, number], 1 + 100_000 * number, (number - 1) / 2)
        source, stores[form] = write(mix, folder / "exports" / form), folder / "stores" / form
        client(["ingest", form, str(source), "--out", str(stores[form]), "--time-zone", ZONE])
    return stores


def shared_events(stores: dict[str, Path]) -> dict[str, float]:
    """Return form → the share of its events under codes that another hospital's store has."""
    counts = {}
    for form, store in stores.items():
        sql = f"select code, count(*) from '{store}/data/*/*.parquet' group by code"
        counts[form] = dict(duckdb.sql(sql).fetchall())
    shares = {}
    for form, own in counts.items():
        others = {code for other, of in counts.items() if other != form for code in of}
        shares[form] = sum(n for code, n in own.items() if code in others) / sum(own.values())
    return shares


def trained(stores: dict[str, Path], out: Path, rounds: int) -> dict[tuple[str, str], Interval]:
    """Train both arms; return (arm or difference, subset) → average precision."""
    names = ",".join(map(str, stores.values()))
    given = ["data=stores", f"data.stores=[{names}]", f"rounds={rounds}", f"out={out}", *SETTINGS]
    if simulate(given):
        raise SystemExit("the simulation failed")
    rows = json.loads((out / "metrics.json").read_text())
    return {
        (row["arm"], row["subset"]): Interval(row["value"], row["low"], row["high"])
        for row in rows
        if row["metric"] == "average_precision"
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Make, ingest and train, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="new folder for exports, stores and the run")
    parser.add_argument("--people", type=int, default=600, help="of each hospital")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="of the people")
    given = parser.parse_args(arguments)
    stores = hospitals(given.folder, given.people, given.seed)
    for form, share in shared_events(stores).items():
        sys.stdout.write(f"{form}: {share:.1%} of events under codes that another has\n")
    found = trained(stores, given.folder / "run", given.rounds)
    for subset in SUBSETS:
        apart = found["federated - centralised", subset]
        sys.stdout.write(f"average precision, {subset}: federated - centralised {apart}\n")


if __name__ == "__main__":
    main()
