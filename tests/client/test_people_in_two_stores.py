"""A site whose people lie in two stores, the clinic's and the watches', as hospitals have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.__main__ import main
from healthfm_client.core_local_work import CoreLocalWork
from healthfm_client.doctor import site_files
from healthfm_client.ingest import ingest
from healthfm_client.local_work import StoreSpec
from healthfm_client.site.site_folder import JoinSettings, StoreChoice
from healthfm_client.site.site_home import SiteHome
from healthfm_core.config import PrivacyConfig
from healthfm_core.config.compose import compose
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import StoreError
from healthfm_core.federation.protocol import VERSION, Study
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.training import PrivacyPlan, initial_parameters
from healthfm_simulations.engine import NodeSpec
from tests import enrolled
from tests.tokens.small_store import Row, Worn, events, write
from tests.training.test_clipped_sum import SETTINGS
from tests.training.test_loop import order

PEOPLE = (1, 2, 3)
CODES = ("DX//A", "DX//B", "DX//C")
CLINIC: list[Row] = [(s, 500.0 * n, code, None) for s in PEOPLE for n, code in enumerate(CODES)]
WARD: list[Row] = [(s, 40.0 + 500.0 * n, "DX//A", None) for s in PEOPLE for n in range(2)]
WORN: list[Worn] = [(s, 10.0, "HR", 1 / 60, [60.0, 61.0]) for s in PEOPLE]
NORM = 0.001
ALL = ("ehr", "wearable", "genomics")


@pytest.fixture
def specs(tmp_path: Path) -> tuple[StoreSpec, ...]:
    """Three people, each of them in both stores."""
    splits = {2: "tuning", 3: "tuning"}
    write(tmp_path / "clinic", CLINIC, splits=splits)
    write(tmp_path / "watch", WARD, worn=WORN, splits=splits)
    return tuple(StoreSpec(tmp_path / name, ALL) for name in ("clinic", "watch"))


def test_a_person_in_two_stores_is_counted_once(specs) -> None:
    held, people = CoreLocalWork().describe(specs)
    assert (held, people) == ({"ehr", "wearable"}, 3)


def test_a_person_in_two_stores_does_not_halve_k(tmp_path: Path) -> None:
    for k, codes in ((4, ()), (3, CODES)):
        write(tmp_path / f"clinic{k}", CLINIC)
        write(tmp_path / f"watch{k}", WARD, worn=WORN)
        of = tuple(StoreSpec(tmp_path / f"{name}{k}", ALL) for name in ("clinic", "watch"))
        arrays = CoreLocalWork().statistics(of, TokensConfig(k_min=k), None)
        found = SiteStatistics.from_arrays(arrays)
        assert found.codes == codes
        assert found.subjects.tolist() == [3] * len(codes)
        assert found.channel_subjects.tolist() == [3] * bool(codes)


def test_a_person_in_two_stores_moves_a_private_sum_by_no_more_than_the_norm(specs) -> None:
    config = compose(
        [*SETTINGS, "train.objectives.time_to_event=1", "train.objectives.next_visit=0"]
    )
    work = CoreLocalWork()
    settings = config.tokens.model_copy(update={"k_min": 1})
    found = SiteStatistics.from_arrays(work.statistics(specs, settings, None))
    vocabulary = build_vocabulary(found, settings)
    study = Study(VERSION, "run", config, vocabulary, ("ehr", "wearable"))
    data = work.load(specs, study)
    assert data.train.subject_id.tolist() == [1]
    assert data.train.kind.size == 3 + 2 + 1, "events of both stores and an hour of wearing"
    parameters = initial_parameters(study)
    config_of_site = PrivacyConfig(mode="distributed", epsilon=8.0, max_grad_norm=NORM)
    plan = PrivacyPlan(config_of_site, Mechanism(1.0, 1.0, 1), 2)
    asked = order(parameters)
    update = work.train_round(parameters, data, study, asked, plan).update
    length = np.sqrt(sum(np.square(array.astype(np.float64)).sum() for array in update.values()))
    assert 0.9 * NORM < length <= NORM


def contradiction(tmp_path: Path) -> tuple[Path, Path]:
    """Two stores in which one person trains here and is held out there."""
    write(tmp_path / "clinic", CLINIC)
    write(tmp_path / "watch", WARD, splits={2: "held_out"})
    return tmp_path / "clinic", tmp_path / "watch"


def test_nobody_trains_in_one_store_who_is_held_out_in_another(tmp_path: Path) -> None:
    specs = [StoreSpec(path, ALL) for path in contradiction(tmp_path)]
    work = CoreLocalWork()
    for refused in (
        lambda: work.describe(specs),
        lambda: work.statistics(specs, TokensConfig(), None),
        lambda: work.load(specs, None),  # type: ignore[arg-type]
    ):
        with pytest.raises(StoreError, match="HF-212"):
            refused()


def test_join_and_describe_refuse_stores_that_contradict_each_other(tmp_path: Path, capsys) -> None:
    clinic, watch = contradiction(tmp_path / "stores")
    site = enrolled.enrol(
        enrolled.study(tmp_path / "study"), NodeSpec("north", [(tmp_path / "a", None)]), 1
    )
    words = ["--site", str(site.home), "--store", str(clinic), "--store", str(watch)]
    assert main(["join", *words]) == 3
    assert "HF-212" in capsys.readouterr().err
    assert not (site.home / "join.yaml").exists(), "nothing was started, nothing remembered"
    assert main(["describe", str(tmp_path / "stores")]) == 3
    assert "HF-212" in capsys.readouterr().err


def test_describe_and_doctor_say_how_many_are_in_more_than_one_store(
    tmp_path: Path, capsys
) -> None:
    people = range(30)
    for name, hour in (("clinic", 1.0), ("watch", 2.0)):
        write(tmp_path / "stores" / name, [(s, hour, "DX//A", None) for s in people])
    assert main(["describe", str(tmp_path / "stores"), "--k", "20"]) == 0
    sentence = "30 people are in more than one store; each counts once"
    assert capsys.readouterr().out.endswith(f"\n\n{sentence}\n")
    assert main(["describe", str(tmp_path / "stores"), "--k", "31"]) == 0
    assert "fewer than 31 people are in more than one store" in capsys.readouterr().out
    assert main(["describe", str(tmp_path / "stores"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2

    spec = NodeSpec("north", [(tmp_path / "a", None)])
    home = SiteHome(
        enrolled.enrol(enrolled.study(tmp_path / "study"), spec, 1, k_min=20, min_cohort=31).home
    )
    home.write_settings(JoinSettings(stores=(StoreChoice(path=tmp_path / "stores"),)))
    said = []
    with pytest.raises(Exception, match="HF-501"):
        said += [finding.seen for finding in site_files.data(home) if not said.append(finding.seen)]
    assert sentence in said


def test_pooled_hospitals_number_their_people_each_for_itself(tmp_path: Path) -> None:
    write(tmp_path / "here", CLINIC)
    write(tmp_path / "there", WARD, splits={2: "held_out"})
    spec = NodeSpec("pooled", [(tmp_path / n, None) for n in ("here", "there")], pooled=True)
    given = json.loads(str(spec.node_config()["stores"]))
    stores = [StoreSpec(Path(raw["path"]), ALL, raw["ids"]) for raw in given]
    assert CoreLocalWork().describe(stores)[1] == 6


def test_ingest_takes_the_splits_of_another_store(tmp_path: Path) -> None:
    clinic = write(tmp_path / "clinic", CLINIC, splits={1: "held_out", 2: "tuning", 3: "held_out"})
    table = tmp_path / "ward.parquet"
    rows = events([(1, 0.0, "DX//B", None), (3, 0.0, "DX//B", None)])
    pq.write_table(rows.append_column("site", pa.array([1, 1], pa.int64())), table)
    (path,) = ingest("event_table", table, tmp_path / "ward", splits_of=clinic.path)
    assert SiteStore.open(path).subjects("held_out").tolist() == [1, 3]
