"""Real work on a real store: what crosses the wire is on the page, and no log names a person."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict

from healthfm_client.core_local_work import CoreLocalWork
from healthfm_client.doctor import site_files
from healthfm_client.site.site_folder import JoinSettings, StoreChoice
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config import RunConfig
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.errors import PolicyError
from healthfm_core.federation import contracting, protocol
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.training import DriftCorrection, PrivacyPlan
from healthfm_server.app import make_app
from healthfm_server.held_out_round import PHASE
from healthfm_server.study_setup.core_model_setup import CoreModelSetup
from healthfm_server.transport.array_records import read
from healthfm_simulations.engine import NodeSpec
from healthfm_simulations.sites import prepare_sites
from tests import enrolled

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "privacy.md").read_text()
FAR = 734_000_003
"""Added to every subject's number, so that it is found in a text if it is there."""
CONFIG = RunConfig.model_validate(
    {
        "data": {"cohort": {"subjects": 80, "sites": 2, "wearable_hours": 6}},
        "tokens": {"k_min": 2, "max_len": 32},
        "model": {"layers": 1, "width": 16, "heads": 2, "ffn": 32, "wearable_width": 8},
        "train": {"max_steps": 1, "batch_size": 8},
        "federation": {"rounds": 2, "deadline_s": 600.0},
    }
)
MASKED = {protocol.KEYS, protocol.SHARES, protocol.UNMASK}
"""Messages of secure aggregation, which this run does without."""
SENT = {
    protocol.STATISTICS: {"version", "tokens", "task", contracting.ORDER_SIGNATURE},
    protocol.PREPARE: {"study"},
    protocol.TRAIN: {
        *("json", "study"),
        *(contracting.FOR_SITE, contracting.NONCE, contracting.EXPIRES, contracting.SIGNATURE),
    },
}
CONTRACT = {contracting.CONTRACT, contracting.SIGNATURE, contracting.SIGNER}
KINDS = {protocol.SITE: ConfigRecord, protocol.ARRAYS: ArrayRecord}


class Talkative(CoreLocalWork):
    """Real work that fails in round 2 at one site, with an error that says too much."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.second = 0

    def train_round(
        self,
        parameters: Mapping[str, Any],
        data: Any,
        study: Study,
        order: RoundOrder,
        private: PrivacyPlan | None = None,
        drift: DriftCorrection | None = None,
    ) -> RoundResult:
        """Train, or fail."""
        result = super().train_round(parameters, data, study, order, private, drift)
        self.second += order.round == 2
        if self.second == 1:
            subject = int(SiteStore.open(self.store).subjects()[0])
            raise KeyError(f"subject {subject}")
        return result


def moved(path: Path, folder: Path) -> Path:
    """Write a store anew with numbers of subjects that nothing else looks like."""
    store, target = SiteStore.open(path), folder / path.name

    def far(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("subject_id")
        return table.set_column(at, "subject_id", pa.array(ids(table) + FAR, pa.int64()))

    writer = StoreWriter(target, dataset_name=store.name)
    writer.add_events(far(store.events()))
    for device in store.devices:
        writer.add_wearable(device, far(store.wearable(device)))
    writer.write()
    return target


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[enrolled.Wire, list[Path], list[enrolled.Enrolled], str]:
    """A whole run; the wire, the stores, the sites and every log there is of it."""
    folder = tmp_path_factory.mktemp("leaves")
    sites = prepare_sites(CONFIG, folder / "cohort")
    stores = [moved(site.path, folder / "stores") for site in sites]
    authority = enrolled.study(folder / "study")
    homes = [
        enrolled.enrol(authority, NodeSpec(store.name, [(store, None)]), number, k_min=2)
        for number, store in enumerate(stores, start=1)
    ]
    grid = enrolled.Wire(homes, Talkative(stores[0]))
    request = {
        "config": CONFIG.model_dump_json(),
        "folder": str(folder / "run"),
        "study": str(folder / "study"),
        "nodes": 2,
    }
    lines: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: lines.append(logging.Formatter().format(record))
    logging.getLogger().addHandler(handler)
    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        make_app(CoreModelSetup())(grid, Context(1, 0, {}, RecordDict(), request))
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(before)
    written = [folder / "run" / name for name in ("events.log", "history.jsonl")]
    written += [home.home / "egress.log" for home in homes]
    return grid, stores, homes, "\n".join([*lines, *(path.read_text() for path in written)])


def test_only_the_records_on_the_page_cross_the_wire(run) -> None:
    grid, _, _, _ = run
    seen: dict[str, set[str]] = {}
    for message in grid.sent:
        kind = message.metadata.message_type
        arrays = {protocol.ARRAYS} if kind == protocol.TRAIN else set()
        assert set(message.content) == {protocol.ORDER} | arrays
        extra = CONTRACT if kind != protocol.TRAIN else set()
        assert set(message.content.config_records[protocol.ORDER]) == SENT[kind] | extra
    for reply in [reply for reply in grid.back if reply.has_content()]:
        kind = reply.metadata.message_type
        seen.setdefault(kind, set()).update(reply.content)
        for name, record in reply.content.items():
            assert isinstance(record, KINDS.get(name, MetricRecord))
        assert set(reply.content.config_records[protocol.SITE]) <= protocol.SITE_KEYS
    plain = protocol.LEAVING.keys() - MASKED - {protocol.DRY_RUN}  # tests/deploy/test_dry_run.py
    assert seen == {kind: set(protocol.LEAVING[kind]) for kind in plain}


def test_every_name_that_crossed_the_wire_is_on_the_page(run) -> None:
    grid, _, _, _ = run
    names: set[str] = set()
    for reply in [reply for reply in grid.back if reply.has_content()]:
        names |= set(reply.content) | set(reply.content.config_records[protocol.SITE])
        if reply.metadata.message_type == protocol.STATISTICS:
            names |= set(read(reply.content.array_records[protocol.ARRAYS]))
            told = read(reply.content.array_records[protocol.ARRAYS])["names"]
            assert json.loads(told.tobytes()).keys() == {"codes", "panel", "channels"}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()
    asked = (*SENT, protocol.DRY_RUN)
    row = {kind: re.search(rf"^\| `{kind}` \|.*\|(.*)\|$", PAGE, re.MULTILINE) for kind in asked}
    for kind, found in row.items():
        assert found is not None
        assert set(re.findall(r"`(\w+)`", found[1])) == set(protocol.LEAVING[kind]), kind


def test_only_parameters_and_permitted_metrics_come_back_from_training(run) -> None:
    grid, _, _, _ = run
    policy = SitePolicy(k_min=2)
    sent = [m for m in grid.sent if m.metadata.message_type == protocol.TRAIN]
    received = {name for m in sent for name in read(m.content.array_records[protocol.ARRAYS])}
    for reply in [r for r in grid.back if r.metadata.message_type == protocol.TRAIN]:
        if reply.has_error():
            continue
        metrics = dict(reply.content.metric_records[protocol.METRICS])
        assert metrics == policy.metrics_to_send(metrics, contracting.METRICS_WANTED)
        if reply.metadata.group_id == PHASE:
            assert set(reply.content) == {protocol.SITE, protocol.METRICS}
            assert {name.partition("/")[0] for name in metrics} <= {"held_out"}
            continue
        update = read(reply.content.array_records[protocol.ARRAYS])
        assert set(update) <= received
        weights = reply.content.metric_records[protocol.WEIGHTS]
        assert {group_of(name) for name in update} == set(weights)


def test_no_log_has_a_subjects_number_a_value_or_a_date_of_a_record(run) -> None:
    _, stores, _, logs = run
    assert "HF-407" in logs, "the failure that says too much happened"
    assert "KeyError" in logs
    assert len(logs) > 5000
    for path in stores:
        events = SiteStore.open(path).events()
        subjects = {str(one) for one in np.unique(ids(events))}
        assert min(map(int, subjects)) >= FAR
        values = events["numeric_value"].drop_null().to_numpy()
        long = {text for value in values for text in (str(value), repr(float(value)))}
        long = {text for text in long if len(text) > 6 and not text.endswith(".0")}
        times = events["time"].drop_null().to_pylist()
        days = {f"{time:%Y-%m-%d}" for time in times}
        assert len(subjects) > 10
        assert len(long) > 100
        assert len(days) > 100
        words = set(re.findall(r"[\w.-]+", logs))
        assert subjects & words == set()
        assert not [one for one in subjects if one in logs]
        assert long & words == set()
        assert days & {word[:10] for word in words} == set()


def test_the_search_would_find_one(run) -> None:
    """The same search over a text with a subject and a value in it."""
    _, stores, _, logs = run
    subject = str(SiteStore.open(stores[0]).subjects()[0])
    assert subject in f"{logs} KeyError: 'subject {subject}'"
    assert subject not in logs


def test_a_message_that_is_kept_back_is_not_in_the_log_with_its_content(run) -> None:
    _, _, homes, _ = run
    entries = [entry for home in homes for entry in SiteHome(home.home).log().entries()]
    (refused,) = [entry for entry in entries if entry.get("refused")]
    assert refused["refused"] == 407
    assert "subject" not in json.dumps(refused)


def test_the_doctor_counts_people_by_modality_and_withholds_the_few(run) -> None:
    _, stores, homes, _ = run
    (at,) = [n for n, path in enumerate(stores) if SiteStore.open(path).devices]
    home, path = SiteHome(homes[at].home), stores[at]
    store = SiteStore.open(path)
    worn = len(np.unique(ids(store.wearable())))
    everyone = len(store.subjects())
    assert 0 < worn < everyone
    home.write_settings(JoinSettings(stores=(StoreChoice(path=path),)))
    said = {finding.name: finding.seen for finding in site_files.data(home)}
    assert said["ehr"] == f"{path.name}: {everyone} people"
    (device,) = store.devices
    assert said[f"wearable/{device}"] == f"{path.name}: {worn} people"
    rules = home.policy.read_text()
    home.policy.write_text(f"modalities: [ehr, wearable]\nk_min: {worn + 1}\n")
    said = {finding.name: finding.seen for finding in site_files.data(home)}
    assert said[f"wearable/{device}"] == f"{path.name}: fewer than {worn + 1} people"
    assert "genomics" not in said
    home.policy.write_text(f"min_cohort: {everyone + 1}\n")
    with pytest.raises(PolicyError, match=r"HF-501.*too few"):
        list(site_files.data(home))
    home.policy.write_text(rules)
