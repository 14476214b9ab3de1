"""A round waits as long as its sites' answers took, some times over: defaults nobody has to set."""

from __future__ import annotations

import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_core.config.federation import FederationConfig
from healthfm_core.federation import protocol
from healthfm_server import clock
from healthfm_server.run_folder.durable_files import append_row
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.transport.exchange import Timeouts
from healthfm_server.transport.measured_deadline import measured_timeouts
from tests import enrolled
from tests import three_numbers as small

HOUR = Timeouts(3600.0, 7200.0, patience=4.0)


class Late:
    """An exchange that knows of late answers, and nothing else."""

    def __init__(self, *late_s):
        self.late_s = dict(enumerate(late_s))


def waits(folder, *seconds, late=(), longest=HOUR, every=1):
    """Return how long a round waits after rounds whose slowest answers took so long."""
    store = RunStore.create(folder / "run", small.config())
    for number, slowest in enumerate(seconds, 1):
        times = {"a": slowest / 2, "b": slowest}
        append_row(store.folder / "history.jsonl", {"round": number, "site_seconds": times})
    config = FederationConfig(evaluate_every=every)
    found = measured_timeouts(longest, config, store, Late(*late))
    assert found.ttl_s == longest.ttl_s
    return found.deadline_s


def test_the_first_round_waits_as_long_as_it_may(tmp_path):
    assert waits(tmp_path) == 3600


@pytest.mark.parametrize(("slowest", "wait"), [(30.0, 120.0), (5.0, 60.0), (2000.0, 3600.0)])
def test_a_round_waits_four_times_the_slowest_answer_within_bounds(tmp_path, slowest, wait):
    assert waits(tmp_path, slowest, slowest / 3) == wait


def test_what_was_long_ago_does_not_count_but_a_round_in_which_sites_score_does(tmp_path):
    rounds = (500.0, *[30.0] * 11)
    assert waits(tmp_path / "a", *rounds) == 120
    assert waits(tmp_path / "b", *rounds, every=11) == 2000


def test_a_site_that_has_become_slower_is_waited_for_again(tmp_path):
    assert waits(tmp_path, 30.0, late=[200.0]) == 800


def test_who_wants_a_fixed_deadline_has_it(tmp_path):
    assert waits(tmp_path, 30.0, longest=Timeouts(3600.0, 7200.0)) == 3600


class Slow(enrolled.Wire):
    """Answers take five seconds; one of b comes a round late, and one of c never."""

    def __init__(self, sites):
        super().__init__(sites)
        self.held = []
        self.on_the_way = []

    def push_messages(self, messages):
        self.on_the_way, self.held = self.held, []
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        late, self.on_the_way = self.on_the_way, []
        yield from late
        replies = list(super().pull_messages(message_ids))
        if replies:
            clock.time.sleep(5.0)
        for reply in replies:
            about = reply.metadata
            match about.message_type, about.group_id, about.src_node_id:
                case protocol.TRAIN, "2", 2:
                    self.held.append(reply)
                case protocol.TRAIN, "4", 3:
                    pass
                case _:
                    yield reply


def test_in_a_deployment_a_lost_answer_costs_a_minute_and_not_an_hour(tmp_path):
    study, sites = enrolled.three(tmp_path)
    patient = {"deadline_s": 3600.0, "rounds": 4}
    store = enrolled.run(Slow(sites), study, tmp_path / "run", **patient)
    rows = store.history()
    assert rows[1]["set_aside"] == {"b": "it did not answer in time"}
    assert 60 <= rows[1]["seconds"] < 62
    assert rows[2]["set_aside"] == {"b": "it was busy"}
    assert 240 < rows[3]["seconds"] < 280, "b's late answer says how long one may take"


def test_a_simulation_waits_until_its_deadline(tmp_path):
    sites = small.three_sites(tmp_path)
    patient = {"deadline_s": 3600.0, "rounds": 2}
    store = enrolled.run(Slow(sites), None, tmp_path / "run", **patient)
    assert 3600 <= store.history()[1]["seconds"] < 3610
