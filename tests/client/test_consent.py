"""Who approves a run reads what for, what is read, what leaves and costs; and answers by name."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.__main__ import main
from healthfm_client.consent.run_facts import run_facts
from healthfm_client.consent.run_sentences import sentences
from healthfm_client.local_work import StoreSpec
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.site.run_approvals import Approvals
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config.compose import compose
from healthfm_core.config.study_statement import StudyStatement
from healthfm_core.errors import PolicyError, ProtocolError, TrustError
from healthfm_core.federation.contracting import terms_before
from healthfm_core.privacy.accounting import Mechanism, epsilon
from healthfm_core.privacy.ledger import Ledger, PrivacyLimits
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.contract import Contract
from healthfm_core.trust.site_keys import SiteKeys
from healthfm_server.deploy.study_folder import SETTINGS, StudySettings
from tests import enrolled
from tests.tokens.small_store import Row, Worn, write

STATED = {
    "run": "first",
    "purpose": "To foresee admissions of people with heart failure",
    "protocol": "EK 2026/114",
    "contact": "Dr Meier, +41 44 000 00 00",
    "task": "Admission within 30 days",
}
ROWS: list[Row] = [
    *[(s, 10.0 * s, "DX//A", None) for s in range(1, 8)],
    *[(s, 10.0 * s, "DX//B", None) for s in range(1, 4)],
    *[(s, 10.0 * s, "LAB//K", 4.0 + s) for s in range(1, 6)],
    *[(s, 10.0 * s, "DX//RARE", None) for s in (1, 2)],
]
WORN: list[Worn] = [(s, 10.0, "HR", 1 / 60, [60.0, 61.0]) for s in range(1, 5)]


MIDDAY = datetime(2026, 5, 1, 12, tzinfo=UTC)
SHORT = ("federation.rounds=4", "train.batch_size=2", "train.local_epochs=1", "train.max_steps=9")


def contract(run: str = "0" * 16, stated: dict[str, str] | None = None, *words: str) -> Contract:
    config = compose(["model=tiny", "tokens.k_min=3", *words])
    now = now_utc()
    told = STATED if stated is None else stated
    terms = terms_before(run, config)
    return Contract("heart", terms, now, now + timedelta(days=1), statement=told)


def no_facts() -> dict[str, Any]:
    return run_facts(contract(), SitePolicy())


def test_what_is_read_is_told_by_name_and_count_and_what_it_costs(tmp_path: Path) -> None:
    write(tmp_path / "store", ROWS, worn=WORN)
    stores = (StoreSpec(tmp_path / "store", ("ehr", "wearable", "genomics")),)
    asked = contract("0" * 16, None, *SHORT)
    facts = run_facts(asked, SitePolicy(), stores)
    reads, work = facts["reads"], facts["work"]
    assert reads["training_people"] == 7
    assert reads["people_by_modality"] == {"ehr": 7, "wearable": 4}
    assert reads["domains"] == {
        "DX": {"codes": 2, "most_common": {"DX//A": 7, "DX//B": 3}},
        "LAB": {"codes": 1, "most_common": {"LAB//K": 5}},
    }
    assert (work["steps_per_round"], work["steps"]) == (4, 16)
    assert work["bytes_sent"] == work["parameters"] * 4 * 4
    coded = contract("0" * 16, None, *SHORT, "federation.codec.uplink=fp16")
    assert run_facts(coded, SitePolicy(), stores)["work"]["bytes_sent"] * 2 == work["bytes_sent"]
    said = "\n".join(sentences(facts))
    for words in STATED.values():
        assert words in said
    assert "It trains on 7 people: clinical records of 7; wearable" in said
    assert "3 people or more have: 3, by domain DX 2, LAB 1." in said
    assert "DX//A (7), LAB//K (5)" in said
    assert "RARE" not in json.dumps(facts)
    assert "16 training steps of 2 people (4 a round)" in said


def test_a_modality_that_the_policy_keeps_here_is_not_told_as_read(tmp_path: Path) -> None:
    write(tmp_path / "store", ROWS, worn=WORN)
    facts = run_facts(contract(), SitePolicy(), (StoreSpec(tmp_path / "store", ("ehr",)),))
    assert facts["reads"]["people_by_modality"] == {"ehr": 7}
    assert facts["reads"]["channels"] == []


def test_a_store_that_cannot_be_counted_is_told_and_the_run_asks_all_the_same(
    tmp_path: Path,
) -> None:
    stores = (StoreSpec(tmp_path / "gone", ("ehr",)),)
    facts = run_facts(contract(), SitePolicy(), stores)
    assert facts["reads"] is None
    assert any("could not be counted: StoreError[HF-2" in line for line in sentences(facts))


def test_what_is_told_of_held_out_people_is_said_as_the_policy_has_it() -> None:
    everything = {"metrics": ("loss_*", "held_out/*"), "k_min": 5}
    facts = run_facts(contract(), SitePolicy.model_validate(everything))
    assert facts["leaves"]["held_out"] == {"permitted": ["held_out/*"], "least_people": 20}
    said = "\n".join(sentences(facts))
    assert "by sex, ancestry and age, of what 20 people or more have" in said
    strict = SitePolicy.model_validate({**everything, "k_min": 50})
    assert run_facts(contract(), strict)["leaves"]["held_out"]["least_people"] == 50


@pytest.mark.parametrize(
    ("words", "rules"),
    [
        (("evaluation.at_sites=false",), {}),
        (("federation=secure",), {}),
        (("privacy=dp", "privacy.epsilon=3"), {}),
        ((), {"metrics": ["loss_*"]}),
        ((), {"privacy": {"mode": "dp", "epsilon": 3.0, "ledger": "ledger.jsonl"}}),
    ],
)
def test_where_nothing_is_told_of_held_out_people_that_is_said(
    words: tuple[str, ...], rules: dict[str, Any]
) -> None:
    policy = SitePolicy.model_validate({"metrics": ["loss_*", "held_out/*"], **rules})
    facts = run_facts(contract("0" * 16, None, *words), policy)
    assert facts["leaves"]["held_out"] is None
    assert "Nothing is told of this site's held-out people" in "\n".join(sentences(facts))


def test_what_is_not_stated_is_told_as_not_stated() -> None:
    said = "\n".join(sentences(run_facts(contract("0" * 16, {"run": "first"}), SitePolicy())))
    assert "no purpose, task, protocol or ethics reference, contact: ask before" in said


def test_a_coordinators_words_are_told_as_its_own_and_start_no_line() -> None:
    sly = {"run": "first", "purpose": "health.\nNoise is added here. It promises \u03b5 1"}
    lines = sentences(run_facts(contract("0" * 16, sly), SitePolicy()))
    said = "The coordinator states as its purpose: health.Noise is added here. It promises \u03b5 1"
    assert said in lines
    assert not any(line.startswith("Noise") for line in lines)


def test_the_budget_is_told_as_asked_spent_and_left(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    noise = Mechanism(2.0, 0.1, 10)
    ledger.reserve("r", "n", 1, noise, PrivacyLimits(1e-5, None, None, None), "x")
    ledger.note_unprotected("bare", "n", "x")
    rules = SitePrivacy(epsilon=3.0, epsilon_max=9.0, ledger=str(ledger.path))
    asked = contract("0" * 16, None, "privacy.mode=dp", "privacy.epsilon=1")
    privacy = run_facts(asked, SitePolicy(privacy=rules))["privacy"]
    spent = epsilon([noise], 1e-5)
    assert privacy["epsilon_asked"] == 1.0
    assert privacy["epsilon_spent"] == spent
    assert privacy["epsilon_left"] == 9.0 - spent
    assert privacy["runs_without_noise"] == 1
    said = "\n".join(sentences(run_facts(asked, SitePolicy(privacy=rules))))
    assert (
        f"asks ε 1; spent by this study ε 0.00 of 3, 3.00 left; by all studies ε {spent:.2f}"
        in (said)
    )
    assert "1 earlier run here had no noise" in said


def ask(approvals: Approvals, asked: Contract) -> str:
    try:
        approvals.check(asked, no_facts)
    except PolicyError as error:
        return str(error)[:19]
    return "computes"


def test_further_runs_of_the_same_terms_need_no_answer_and_others_do(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    assert ask(approvals, contract("1" * 16)) == "PolicyError[HF-503]"
    approvals.answer("first", "approved", further=True)
    second = {**STATED, "run": "second"}
    assert ask(approvals, contract("2" * 16, second, "seed=7", "name=other")) == "computes"
    assert approvals.find("second").approved_by == "first"
    longer = contract("3" * 16, {**STATED, "run": "third"}, "federation.rounds=9")
    assert ask(approvals, longer) == "PolicyError[HF-503]"
    elsewhere = contract("4" * 16, {**STATED, "run": "fourth", "purpose": "Another one"})
    assert ask(approvals, elsewhere) == "PolicyError[HF-503]"
    approvals.answer("first", "denied")
    assert ask(approvals, contract("5" * 16, {**STATED, "run": "fifth"})) == "PolicyError[HF-503]"
    assert ask(approvals, contract("1" * 16)) == "PolicyError[HF-506]"


def test_an_approval_of_one_run_is_of_that_run_alone(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    ask(approvals, contract("1" * 16))
    approvals.answer("first", "approved")
    assert ask(approvals, contract("1" * 16)) == "computes"
    assert ask(approvals, contract("2" * 16)) == "PolicyError[HF-503]"
    with pytest.raises(PolicyError, match=r"HF-503.*several runs are called so: 1{16}, 2{16}"):
        approvals.answer("first", "denied")


def test_a_purpose_that_changes_in_mid_run_asks_again(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    ask(approvals, contract("1" * 16))
    approvals.answer("first", "approved")
    changed = contract("1" * 16, {**STATED, "purpose": "Something else"})
    assert ask(approvals, changed) == "PolicyError[HF-503]"


def test_a_request_of_an_earlier_release_keeps_its_answer(tmp_path: Path) -> None:
    asked = contract("1" * 16)
    old = {
        "run": "1" * 16,
        "study": "heart",
        "config_hash": asked.terms.config_hash,
        "words": ["Run 'x'."],
        "since": "2026-01-01T00:00:00Z",
        "expires": "2026-02-01T00:00:00Z",
        "answer": "approved",
        "answered": "2026-01-01T00:00:01Z",
    }
    (tmp_path / f"{'1' * 16}.json").write_text(json.dumps(old))
    assert ask(Approvals(tmp_path), asked) == "computes"


def test_the_words_of_study_yaml_reach_a_site_signed_and_answer_by_the_runs_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, sites = enrolled.three(tmp_path, require_approval=True)
    statement = StudyStatement(**{k: v for k, v in STATED.items() if k != "run"})
    settings = StudySettings(study="heart", hosts=("h",), statement=statement)
    (study / SETTINGS).write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    for name in ("first", "second"):
        rounds = 3 if name == "first" else 2
        with pytest.raises(ProtocolError, match="HF-503"):
            enrolled.run(enrolled.Wire(sites), study, tmp_path / name, rounds=rounds)
        home = sites[0].home
        assert main(["requests", "--site", str(home), name]) == 0
        shown = capsys.readouterr().out
        assert f"Run '{name}' of the study heart" in shown
        assert "The coordinator states as its purpose: To foresee admissions" in shown
        assert ("- federation.rounds: 3 then, 2 now" in shown) == (name == "second")
        assert "sends that to the coordinator at https://study.example.org:8443" in shown
        assert main(["approve", "--site", str(home), name]) == 0
        capsys.readouterr()
    assert main(["requests", "--site", str(home), "--json"]) == 0
    first, second = sorted(json.loads(capsys.readouterr().out), key=lambda one: one["name"])
    assert second["differs"] == {"from": "first", "settings": {"federation.rounds": [3, 2]}}
    assert first["facts"]["stated"] == STATED
    assert SiteHome(home).approvals().find("second").answer == "approved"


def test_a_statement_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)

    class Changed(enrolled.Wire):
        def change(self, message: Any) -> None:
            for record in message.content.config_records.values():
                if "contract" in record:
                    text = str(record["contract"])
                    record["contract"] = text.replace('"run":"first"', '"run":"fines"')

    with pytest.raises(ProtocolError, match="HF-814"):
        enrolled.run(Changed(sites), study, tmp_path / "first")


def test_a_statement_is_text_and_not_a_book() -> None:
    good = replace(contract(), issued=MIDDAY, expires=MIDDAY)
    assert Contract.from_json(good.to_json()) == good
    text = good.to_json()
    assert Contract.from_json(text.replace(STATED["purpose"], "x" * 700)).statement != STATED
    for bad in (text.replace(STATED["purpose"], "x" * 9000), text.replace('"first"', "1")):
        with pytest.raises(TrustError, match="HF-814"):
            Contract.from_json(bad)


def test_who_read_one_thing_does_not_approve_another(tmp_path: Path, capsys: Any) -> None:
    """A coordinator may ask something else for the same run between the reading and the answer."""
    home = SiteHome(tmp_path)
    SiteKeys.create(home.keys)
    asks = home.approvals()

    def ask(*words: str) -> None:
        with pytest.raises(PolicyError, match="HF-503"):
            asks.check(contract("0" * 16, None, *words), no_facts)

    ask()
    assert main(["requests", "--site", str(tmp_path)]) == 0
    ask("federation.rounds=4000")
    assert main(["approve", "--site", str(tmp_path), "first"]) != 0
    assert "HF-509" in capsys.readouterr().err
    assert [asked.answer for asked in asks] == ["waiting"]
    assert main(["requests", "--site", str(tmp_path)]) == 0
    assert main(["approve", "--site", str(tmp_path), "first"]) == 0
    assert [asked.answer for asked in asks] == ["approved"]
