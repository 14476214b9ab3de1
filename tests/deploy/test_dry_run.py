"""A dry run: each site says whether it would begin, nobody is asked and nothing is computed."""

from __future__ import annotations

import json

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from healthfm_client.__main__ import main
from healthfm_client.site.site_home import SiteHome
from healthfm_core.federation import contracting, protocol
from healthfm_server.deploy.expected_cost import expected_cost
from healthfm_server.deploy.run_ordering import RunWish, order_run, ordered_details
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_status import dry_run_lines, run_status, status_lines
from healthfm_server.run_folder.dry_run_file import DryRunTold, SiteWould
from healthfm_server.study_setup import dry_run as asking
from tests import enrolled
from tests import three_numbers as small
from tests.page.made_study import make_study


def told(store):
    return DryRunTold.read(store.folder)


def test_each_site_says_what_it_would_do_and_nothing_else_leaves(tmp_path):
    study, sites = enrolled.three(tmp_path)
    SiteHome(sites[1].home).policy.write_text("require_approval: true")
    SiteHome(sites[2].home).policy.write_text("min_cohort: 100000")
    grid = enrolled.Wire(sites)
    store = enrolled.run(grid, study, tmp_path / "runs" / "dry-run-1", dry_run=True)
    found = told(store).sites
    assert {name: one.would for name, one in found.items()} == {
        "a": "begin",
        "b": "ask a person",
        "c": "refuse",
    }
    assert "min_cohort" in found["c"].reason
    assert {message.metadata.message_type for message in grid.sent} == {protocol.DRY_RUN}
    assert all(set(message.content) == {protocol.ORDER} for message in grid.sent)
    told_sites = {"version", contracting.CONTRACT, contracting.SIGNATURE, contracting.SIGNER}
    orders = [message.content.config_records[protocol.ORDER] for message in grid.sent]
    assert [set(order) for order in orders] == [told_sites] * 3
    answers = [reply.content for reply in grid.back if not reply.has_error()]
    assert [dict(one[protocol.WOULD]) for one in answers] == [{"begin": 1}, {"begin": 0}]
    assert all(set(one) == {protocol.WOULD} for one in answers)
    assert list(SiteHome(sites[1].home).approvals()) == [], "no person is asked"
    assert store.study() is None
    assert store.history() == []


def test_a_paused_site_a_policy_and_a_standing_approval_answer_as_in_a_run(tmp_path, capsys):
    study, sites = enrolled.three(tmp_path, require_approval=True)
    with pytest.raises(Exception, match="HF-503"):
        enrolled.run(enrolled.Wire(sites), study, tmp_path / "runs" / "first")
    for site in sites:
        (asked,) = SiteHome(site.home).approvals()
        main(["approve", "--site", str(site.home), asked.run, "--further"])
    SiteHome(sites[1].home).policy.write_text(
        "{require_approval: true, privacy_floor: [secure_aggregation]}"
    )
    main(["pause", "--site", str(sites[2].home)])
    store = enrolled.run(enrolled.Wire(sites), study, tmp_path / "runs" / "dry", dry_run=True)
    found = told(store).sites
    assert [found[name].would for name in "abc"] == ["begin", "refuse", "refuse"]
    assert "HF-501" in found["b"].reason
    assert "HF-505" in found["c"].reason


def test_a_contract_of_a_dry_run_serves_once_and_for_nothing_else(tmp_path):
    study, sites = enrolled.three(tmp_path)

    class Twice(enrolled.Wire):
        def change(self, message: Message) -> None:
            first = self.sent[0].content[protocol.ORDER]
            message.content[protocol.ORDER] = ConfigRecord({**first})

    store = enrolled.run(Twice(sites[:1]), study, tmp_path / "runs" / "one", dry_run=True)
    assert told(store).sites["a"].would == "begin"

    class Other(enrolled.Wire):
        def change(self, message: Message) -> None:
            if message.metadata.message_type != protocol.PREPARE:
                return
            message.metadata.__dict__["_message_type"] = protocol.DRY_RUN
            record = {"version": protocol.VERSION, **dict(message.content[protocol.ORDER])}
            message.content[protocol.ORDER] = ConfigRecord(record)

    grid = Other(sites[:1])
    with pytest.raises(Exception, match="HF-403"):
        enrolled.run(grid, study, tmp_path / "runs" / "two")
    assert {reply.error.code for reply in grid.back if reply.has_error()} == {814}


def test_who_is_not_connected_and_who_cannot_say_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "CONNECT_S", 0.0)
    study, sites = enrolled.three(tmp_path)

    class Old(enrolled.Wire):
        def _deliver(self, message: Message) -> Message:
            if message.metadata.dst_node_id == 1:  # a release that knows no dry runs
                return Message(Error(0, "no such handler"), reply_to=message)
            if message.metadata.dst_node_id == 2:
                answer = RecordDict({protocol.WOULD: ConfigRecord({"begin": 7})})
                return Message(answer, reply_to=message)
            return super()._deliver(message)

        def get_node_ids(self):
            return [1, 2]

    store = enrolled.run(Old(sites), study, tmp_path / "runs" / "dry", dry_run=True)
    assert told(store).sites == {
        "a": SiteWould("no answer", "no such handler"),
        "b": SiteWould("no answer", "its answer is not one of a dry run"),
        "c": SiteWould("not connected"),
    }


def test_what_a_run_takes_is_told_by_an_earlier_one_like_it(tmp_path):
    study, sites = enrolled.three(tmp_path)
    assert expected_cost(tmp_path / "runs", small.config()) is None
    made = make_study(tmp_path / "made")
    config = small.config(deadline_s=60.0, keep_checkpoints=9)
    order = RunOrder.give(made.runs, "first", config, None)
    store = enrolled.run(enrolled.Wire(sites), study, order.folder)
    numbers = sum(array.size for array in store.checkpoints.load().parameters.values())
    cost = expected_cost(made.runs, config)
    assert (cost.like, cost.parameters) == ("first", numbers)
    assert cost.bytes_to_site == 4 * numbers * config.federation.rounds
    assert cost.seconds is not None
    other = config.model_copy(update={"train": config.train.model_copy(update={"lr": 0.5})})
    assert expected_cost(made.runs, other).seconds is None
    tokens = config.tokens.model_copy(update={"max_codes": 17})
    assert expected_cost(made.runs, config.model_copy(update={"tokens": tokens})) is None


def test_it_is_ordered_told_and_finished_as_such(tmp_path):
    study = make_study(tmp_path / "study")
    order, _ = order_run(study, RunWish(("model=tiny",), dry_run=True))
    assert (order.name, order.is_dry_run, order.is_complete()) == ("dry-run-1", True, False)
    assert ordered_details(order) == {"run": "dry-run-1", "dry_run": True}
    assert order.about()["settings"] == ["model=tiny"]
    before = run_status(order, study.sites.sites())
    assert (before["dry_run"]["sites"], list(dry_run_lines(before["dry_run"]))) == ({}, [])
    sites = {"north": SiteWould("begin"), "south": SiteWould("refuse", "HF-501: why")}
    DryRunTold("2026-11-25T00:00:00+00:00", sites, None, "not known").save(order.folder)
    assert order.is_complete()
    facts = run_status(order, study.sites.sites())
    json.dumps(facts)
    assert list(dry_run_lines(facts["dry_run"])) == [
        "north: would begin",
        "south: would refuse: HF-501: why",
        "not known",
    ]
    whole = {"study": "", "url": "", "root_words": "", "alarms": (), "rotation": None, "sites": ()}
    assert "dry run dry-run-1: waiting" in list(status_lines({**whole, "runs": [facts]}))
    plain, _ = order_run(study, RunWish())
    assert (plain.name, plain.is_dry_run) == ("run-1", False)
    assert run_status(plain, study.sites.sites())["dry_run"] is None


def test_a_damaged_earlier_run_does_not_keep_from_saying_what_the_sites_said(tmp_path):
    made = make_study(tmp_path / "made")
    config = small.config()
    order = RunOrder.give(made.runs, "first", config, None)
    study, sites = enrolled.three(tmp_path)
    enrolled.run(enrolled.Wire(sites), study, order.folder)
    for file in (order.folder / "checkpoints").glob("*.json"):
        file.write_text("{")
    store = enrolled.run(enrolled.Wire(sites), study, made.runs / "dry", dry_run=True)
    found = told(store)
    assert {one.would for one in found.sites.values()} == {"begin"}
    assert found.expected is None
    assert "HF-703" in found.said
