"""A site's own rules about privacy, over real rounds: three sites, three numbers."""

from __future__ import annotations

import json

import pytest
import yaml
from pydantic import ValidationError

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_core.config import PrivacyConfig, RunConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.privacy.accounting import Mechanism, epsilon
from healthfm_core.privacy.distributed import noise_for
from healthfm_core.privacy.ledger import Ledger, spent_mechanisms
from healthfm_simulations.engine import NodeSpec, run_federation
from tests import three_numbers

DELTA = 1e-5
ROUNDS = 3
PER_ROUND = Mechanism(4.0, 0.1, 10)
"""What `three_numbers` says a private round takes."""


def cost(rounds: int) -> float:
    return epsilon([Mechanism(4.0, 0.1, 10 * rounds)], DELTA)


def with_policy(node: NodeSpec, **privacy) -> NodeSpec:
    file = node.stores[0][0].parent / f"{node.name}.yaml"
    file.write_text(yaml.safe_dump({"privacy": privacy}))
    return NodeSpec(node.name, node.stores, file)


def config(**privacy) -> RunConfig:
    return three_numbers.config(rounds=ROUNDS, quorum=0.5).model_copy(
        update={"privacy": PrivacyConfig(**privacy), "name": "numbers"}
    )


def run(tmp_path, nodes, config, name="run"):
    apps = three_numbers.apps()
    result = run_federation(config, nodes, tmp_path / name, apps=apps)
    return result, apps.client.private


def ledger_of(tmp_path, name: str) -> Ledger:
    return Ledger(tmp_path / f"{name}.jsonl")


def test_a_site_that_wants_noise_has_it_in_a_study_without_and_the_others_do_not(tmp_path):
    a, b, c = three_numbers.three_sites(tmp_path)
    a = with_policy(a, mode="dp", epsilon=8.0, epsilon_max=20.0, ledger="a.jsonl")
    result, private = run(tmp_path, [a, b, c], config())
    assert [p is not None for p in private] == [True, False, False] * ROUNDS
    assert len(result.history) == ROUNDS
    entries = ledger_of(tmp_path, "a").entries()
    assert [e.event for e in entries] == ["reserve", "spend", "commit"] * ROUNDS
    assert {e.study for e in entries} == {result.study.run_id}
    assert {e.name for e in entries} == {"numbers"}
    assert spent_mechanisms(entries) == [PER_ROUND] * ROUNDS


def test_a_study_in_which_everybody_is_private_needs_no_policy(tmp_path):
    _, private = run(
        tmp_path, three_numbers.three_sites(tmp_path), config(mode="dp", noise_multiplier=2.0)
    )
    assert {p.mechanism.noise_multiplier for p in private} == {2.0}


def test_a_study_that_would_cost_too_much_is_refused_before_its_first_round(tmp_path):
    a, b, c = three_numbers.three_sites(tmp_path)
    most = (cost(ROUNDS) + cost(ROUNDS - 1)) / 2
    a = with_policy(a, mode="dp", epsilon=9.0, epsilon_max=most, ledger="a.jsonl")
    result, private = run(tmp_path, [a, b, c], config())
    assert private == [None] * 2 * ROUNDS
    assert {tuple(row["asked"]) for row in result.history} == {("b", "c")}
    assert ledger_of(tmp_path, "a").entries() == ()
    told = (tmp_path / "run" / "events.log").read_text()
    assert "HF-601" in told
    assert "administrator" in told


def test_a_study_is_held_to_what_earlier_ones_left(tmp_path):
    a, b, c = three_numbers.three_sites(tmp_path)
    most = (cost(2 * ROUNDS) + cost(2 * ROUNDS - 1)) / 2
    a = with_policy(a, mode="dp", epsilon=9.0, epsilon_max=most, ledger="a.jsonl")
    _, first = run(tmp_path, [a, b, c], config(), "first")
    _, second = run(tmp_path, [a, b, c], config(), "second")
    assert sum(p is not None for p in first) == ROUNDS
    assert sum(p is not None for p in second) == 0


def test_a_site_whose_limit_is_reached_midway_stops_and_the_others_go_on(tmp_path):
    a, b, c = three_numbers.three_sites(tmp_path)
    most = (cost(ROUNDS + 2) + cost(ROUNDS + 1)) / 2
    a = with_policy(a, mode="dp", epsilon=9.0, epsilon_max=most, ledger="a.jsonl")
    book = ledger_of(tmp_path, "a")

    class Elsewhere(three_numbers.ClientWork):
        """Another study of the site's spends two rounds while this one is in its second."""

        def train_round(self, parameters, data, study, order, private=None, drift=None):
            if private is not None and order.round == 1:
                rules = SitePrivacy(delta=DELTA)
                for _ in range(2):
                    book.reserve("other", "other", 1, PER_ROUND, rules.limits(private))
            return super().train_round(parameters, data, study, order, private, drift)

    apps = three_numbers.apps()
    apps = type(apps)(apps.server, Elsewhere())
    result = run_federation(config(), [a, b, c], tmp_path / "run", apps=apps)
    answered = [row["answered"] for row in result.history]
    assert answered == [["a", "b", "c"], ["a", "b", "c"], ["b", "c"]]
    assert "HF-601" in str(result.history[-1]["set_aside"]["a"])
    assert epsilon(spent_mechanisms(book.entries()), DELTA) <= most


def test_a_damaged_ledger_ends_the_sites_part(tmp_path):
    a, b, c = three_numbers.three_sites(tmp_path)
    a = with_policy(a, mode="dp", epsilon=9.0, ledger="a.jsonl")
    run(tmp_path, [a, b, c], config(), "first")
    path = ledger_of(tmp_path, "a").path
    path.write_bytes(path.read_bytes().replace(b'"steps": 10', b'"steps": 11', 1))
    result, private = run(tmp_path, [a, b, c], config(), "second")
    assert all(p is None for p in private)
    assert "HF-602" in (tmp_path / "second" / "events.log").read_text()
    assert len(result.history) == ROUNDS


def test_a_study_without_noise_is_on_record_at_a_site_that_keeps_a_ledger(tmp_path):
    a, b, c = three_numbers.three_sites(tmp_path)
    a = with_policy(a, ledger="a.jsonl")
    run(tmp_path, [a, b, c], config())
    (entry,) = ledger_of(tmp_path, "a").entries()
    assert entry.event == "unprotected"
    assert json.loads(ledger_of(tmp_path, "a").path.read_text())["name"] == "numbers"


def test_if_every_site_stops_so_does_the_run(tmp_path):
    nodes = [
        with_policy(node, mode="dp", epsilon=0.01, ledger=f"{node.name}.jsonl")
        for node in three_numbers.three_sites(tmp_path)
    ]
    with pytest.raises(ProtocolError, match="HF-601"):
        run(tmp_path, nodes, config())


@pytest.mark.parametrize(
    ("asked", "site", "wanted"),
    [
        ({}, {}, {"mode": "off"}),
        ({}, {"mode": "dp", "epsilon": 3.0}, {"mode": "dp", "epsilon": 3.0}),
        ({"mode": "dp", "epsilon": 8.0}, {"epsilon": 3.0}, {"epsilon": 3.0}),
        ({"mode": "dp", "epsilon": 1.0}, {"epsilon": 3.0}, {"epsilon": 1.0}),
        ({"mode": "dp", "epsilon": 1.0, "delta": 1e-4}, {"delta": 1e-6}, {"delta": 1e-6}),
    ],
)
def test_the_stricter_of_study_and_site_holds(asked, site, wanted):
    found = SitePrivacy(**{"ledger": "l", **site}).for_study(PrivacyConfig(**asked))
    assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("rules", "said"),
    [({"mode": "dp"}, "needs privacy.epsilon"), ({"epsilon_max": 3.0}, "needs privacy.ledger")],
)
def test_half_a_rule_is_refused(rules, said):
    with pytest.raises(ValidationError, match=said):
        SitePrivacy(**rules)


def masked(**more) -> RunConfig:
    return three_numbers.config(
        rounds=ROUNDS, quorum=0.5, aggregation={"secure": {"enabled": True, **more}}
    )


def shared_noise() -> RunConfig:
    privacy = PrivacyConfig(mode="distributed", epsilon=8.0)
    return masked().model_copy(update={"privacy": privacy})


def test_noise_that_the_sites_share_is_counted_in_the_ledger_and_not_as_their_own(tmp_path):
    nodes = three_numbers.three_sites(tmp_path)
    a = with_policy(nodes[0], ledger="a.jsonl")
    result, private = run(tmp_path, [a, *nodes[1:]], shared_noise())
    entries = ledger_of(tmp_path, "a").entries()
    assert [e.event for e in entries] == ["reserve", "spend", "commit"] * ROUNDS
    noise = noise_for(8.0, DELTA, ROUNDS)
    assert spent_mechanisms(entries) == [Mechanism(noise, 1.0, 1, discrete=True)] * ROUNDS
    told = result.history[-1]["privacy"]
    assert told["epsilon"] == pytest.approx(8.0, rel=1e-3)
    assert (told["delta"], told["unit"]) == (DELTA, "subject")
    assert 0.8 * 8 < epsilon(spent_mechanisms(entries), DELTA) <= 8.0
    assert {p.config.mode for p in private} == {"distributed"}


def test_a_site_that_wants_noise_of_its_own_takes_no_part_in_sharing_it(tmp_path):
    nodes = three_numbers.three_sites(tmp_path)
    nodes.append(three_numbers.site(tmp_path, "d", pull=1.0, n=9))
    a = with_policy(nodes[0], mode="dp", epsilon=8.0, ledger="a.jsonl")
    result, _ = run(tmp_path, [a, *nodes[1:]], shared_noise())
    assert {tuple(row["asked"]) for row in result.history} == {("b", "c", "d")}
    assert "HF-604" in (tmp_path / "run" / "events.log").read_text()


@pytest.mark.parametrize(("unit", "times"), [("subject", 1.0), ("site", 2.0)])
def test_noise_on_whole_updates_is_counted_for_one_person(tmp_path, unit, times):
    nodes = three_numbers.three_sites(tmp_path)
    a = with_policy(nodes[0], ledger="a.jsonl")
    run(tmp_path, [a, *nodes[1:]], masked(epsilon=4.0, clip=4.0, unit=unit))
    noise = noise_for(4.0, 1e-6, ROUNDS) / times
    assert (
        spent_mechanisms(ledger_of(tmp_path, "a").entries())
        == [Mechanism(noise, 1.0, 1, discrete=True)] * ROUNDS
    )


def test_a_site_refuses_shared_noise_that_costs_more_than_it_permits(tmp_path):
    nodes = three_numbers.three_sites(tmp_path)
    nodes.append(three_numbers.site(tmp_path, "d", pull=1.0, n=9))
    a = with_policy(nodes[0], epsilon=2.0, ledger="a.jsonl")
    result, _ = run(tmp_path, [a, *nodes[1:]], shared_noise())
    assert {tuple(row["asked"]) for row in result.history} == {("b", "c", "d")}
    assert "HF-601" in (tmp_path / "run" / "events.log").read_text()
