"""The audit of our own training: coins, subsets of people, and the whole command on a tiny site."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from healthfm_core.config import PrivacyConfig
from healthfm_core.config.compose import compose
from healthfm_core.training import initial_parameters, loader_for
from healthfm_simulations.privacy_audit.__main__ import (
    CODES,
    attack,
    audited_sites,
    codes_revealed,
    largest_site,
    lines,
    main,
)
from healthfm_simulations.privacy_audit.audited_federation import AuditedFederation
from healthfm_simulations.privacy_audit.audited_site import people_of

TINY = [
    *("data=cohort", "model=tiny", "model.width=16", "model.ffn=16", "data.cohort.subjects=60"),
    *("data.cohort.sites=2", "data.cohort.years=2", "data.cohort.wearable_hours=0"),
    *("tokens.k_min=2", "tokens.max_len=48", "rounds=2", "train.max_steps=2"),
]


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return largest_site(compose(TINY), tmp_path_factory.mktemp("audit"))


def test_some_of_the_people_are_read_as_they_were_among_all(victim):
    train = victim.data.train
    keep = victim.coins(0, "attacked")
    some = people_of(train, keep)
    assert np.array_equal(some.subject_id, train.subject_id[keep])

    def rows(sequences):
        batches = loader_for(sequences, victim.study).in_order(batch_size=1, query="sep")
        return {int(sequences.subject_id[b.subject[0]]): b for b in batches}

    among_all, alone = rows(train), rows(some)
    assert alone.keys() == among_all.keys() & set(some.subject_id.tolist())
    for person, batch in alone.items():
        for name in ("kind", "token", "t_days", "target", "repeats", "wearable", "panel"):
            assert torch.equal(getattr(batch, name), getattr(among_all[person], name)), name


def test_coins_are_fair_and_everyones_own(victim):
    flips = np.stack([victim.coins(0, str(n)) for n in range(200)])
    assert 0.45 < flips.mean() < 0.55
    assert np.abs(np.corrcoef(flips.T) - np.eye(flips.shape[1])).max() < 0.4


def test_a_plain_update_of_one_person_tells_their_codes_and_a_noised_one_does_not(victim):
    assert codes_revealed(victim, victim.update_of_one, seed=0, persons=3) > 0.99
    private = PrivacyConfig(mode="dp", noise_multiplier=1.0)
    noised = replace(victim, privacy=private)
    assert abs(codes_revealed(noised, noised.update_of_one, seed=0, persons=3) - 0.5) < 0.25
    update = replace(victim, privacy=private).update_of_one(0, seed=0)
    assert (np.abs(update[CODES]).sum(1) > 0).all()


def test_every_finding_is_a_figure_of_the_table(victim):
    found = attack(victim, seed=0, shadows=2, persons=2)
    assert found.promised is None
    assert found.codes_auroc > 0.99
    assert 0 < found.people <= victim.data.train.n_subjects
    assert found.epsilon_at_least >= 0.0
    assert f"{found.ratio_auroc:.3f}" in lines([found])[-1]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    sites = audited_sites(compose(TINY), tmp_path_factory.mktemp("federation"))
    return AuditedFederation(tuple(sites))


def test_the_model_that_is_attacked_is_the_weighted_mean_of_the_sites(federation):
    everyone = np.ones(sum(s.data.train.n_subjects for s in federation.sites), np.bool_)
    study = federation.first.study
    one_round = study.config.federation.model_copy(update={"rounds": 1})
    study = replace(study, config=study.config.model_copy(update={"federation": one_round}))
    sites = tuple(replace(site, study=study) for site in federation.sites)
    found = AuditedFederation(sites).train(everyone, seed=0)
    start = initial_parameters(study)
    parts = [
        replace(site, data=replace(site.data, intercepts={})).round(start, 1, 0) for site in sites
    ]
    weights = [part.weights["backbone"] for part in parts]
    name = next(name for name in start if name.startswith("backbone"))
    mean = sum(w * p.update[name] for w, p in zip(weights, parts, strict=True)) / sum(weights)
    assert np.allclose(found[name], start[name] + mean, atol=1e-7)
    assert not np.array_equal(found[name], start[name])


def test_a_person_is_trained_on_where_their_own_coin_falls_heads(federation):
    member = federation.coins(0, "attacked")
    sizes = [site.data.train.n_subjects for site in federation.sites]
    assert len(member) == sum(sizes) == len(federation.losses(federation.train(member, 0)))
    assert len(sizes) == 2


def test_a_sum_with_other_sites_tells_a_persons_codes_worse_than_their_own_update(federation):
    first = federation.first
    alone = codes_revealed(first, first.update_of_one, seed=0, persons=3)
    summed = codes_revealed(first, federation.sum_with_one, seed=0, persons=3)
    assert summed < alone - 0.02


def test_the_released_model_of_a_federation_is_attacked(federation):
    private = PrivacyConfig(mode="dp", epsilon=4.0)
    found = attack(federation.trained_with(private), seed=0, shadows=2, persons=2)
    assert 3.5 < found.promised <= 4.0
    assert found.epsilon_at_least <= found.promised
    assert found.codes_in_sum is not None


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    wanted = [*TINY, "--epsilons", "4", "--shadows", "2", "--persons", "2"]
    assert main([*wanted, "--out", str(tmp_path)]) == 0
    table = (tmp_path / "audit.md").read_text()
    assert table in capsys.readouterr().out
    (plain, private) = json.loads((tmp_path / "audit.json").read_text())["findings"]
    assert plain["promised"] is None
    assert 3.5 < private["promised"] <= 4.0


def test_a_misspelt_override_is_one_sentence(capsys):
    assert main(["modle=tiny"]) == 2
    assert "HF-101" in capsys.readouterr().err
