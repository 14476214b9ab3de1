"""A contract is taken as it was signed, once, in its time; anything else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from healthfm_core.errors import TrustError
from healthfm_core.federation.contracting import check_dry_run
from healthfm_core.trust import signed
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.contract import (
    Contract,
    ContractTerms,
    SignedContract,
    StudySigner,
    open_contract,
)
from healthfm_core.trust.nonces import UsedNonces, is_nonce, new_nonce

DAY = timedelta(days=1)
SIGNER = StudySigner("heart", Ed25519PrivateKey.generate())


def terms(**change: object) -> ContractTerms:
    return replace(
        ContractTerms(
            step="prepare",
            run="0123456789abcdef",
            config={"name": "größer", "train": {"lr": 3e-4}, "sites": ["a", "b"]},
            agreement="aa",
            vocabulary="bb",
            panel=("PGS000018",),
            channels=("hr_bpm",),
            modalities=("ehr",),
            k_min=20,
            privacy={"mode": "dp", "epsilon": 3.0},
            rounds=3,
            metrics=("loss_*",),
        ),
        **change,
    )


@pytest.fixture
def used(tmp_path: Path) -> UsedNonces:
    return UsedNonces(tmp_path / "contracts")


def take(
    sent: SignedContract | None,
    used: UsedNonces,
    study: str = "heart",
    later=timedelta(0),
):
    return open_contract(
        sent,
        study=study,
        signer=SIGNER.key.public_key(),
        used=used,
        now=now_utc() + later,
    )


def test_a_contract_says_at_the_site_what_was_signed(used):
    contract = take(SIGNER.sign(terms(), DAY), used)
    assert contract.terms == terms()
    assert contract.expires - contract.issued == DAY


def test_a_contract_is_taken_once_also_by_another_process(used, tmp_path):
    sent = SIGNER.sign(terms(), DAY)
    take(sent, used)
    with pytest.raises(TrustError, match="HF-818"):
        take(sent, UsedNonces(tmp_path / "contracts"))
    take(SIGNER.sign(terms(), DAY), used)


def test_an_unsigned_request_is_refused(used):
    with pytest.raises(TrustError, match="HF-813"):
        take(None, used)
    with pytest.raises(TrustError, match="HF-813"):
        take(replace(SIGNER.sign(terms(), DAY), signature=""), used)


def test_another_signer_is_refused_even_under_the_right_name(used):
    other = StudySigner("heart", Ed25519PrivateKey.generate())
    with pytest.raises(TrustError, match="HF-815"):
        take(other.sign(terms(), DAY), used)
    posing = replace(other.sign(terms(), DAY), signer=SIGNER.sign(terms(), DAY).signer)
    with pytest.raises(TrustError, match="HF-814"):
        take(posing, used)


def test_another_studys_contract_is_refused(used):
    sent = SIGNER.sign(terms(), DAY)
    with pytest.raises(TrustError, match="HF-819"):
        take(sent, used, study="lungs")
    take(sent, used)


def test_a_contract_is_refused_before_and_after_its_time_and_then_is_not_used_up(used):
    sent = SIGNER.sign(terms(), DAY)
    with pytest.raises(TrustError, match="HF-816"):
        take(sent, used, later=DAY + timedelta(seconds=2))
    with pytest.raises(TrustError, match="HF-817"):
        take(sent, used, later=-timedelta(minutes=3))
    take(sent, used, later=-timedelta(minutes=1))


def test_not_one_letter_of_a_contract_can_be_changed(used):
    sent = SIGNER.sign(terms(), DAY)
    for at in range(0, len(sent.contract), 7):
        other = "0" if sent.contract[at] != "0" else "1"
        text = sent.contract[:at] + other + sent.contract[at + 1 :]
        with pytest.raises(TrustError, match="HF-814"):
            take(replace(sent, contract=text), used)
    take(sent, used)


def _signed_text(raw: object) -> SignedContract:
    text = signed.canonical(raw)
    return replace(
        SIGNER.sign(terms(), DAY), contract=text.decode(), signature=signed.sign(SIGNER.key, text)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: [],
        lambda raw: {**raw, "format": 2},
        lambda raw: {**raw, "nonce": "../../x"},
        lambda raw: {**raw, "more": 1},
        lambda raw: {**raw, "terms": {**raw["terms"], "config_hash": "00"}},
        lambda raw: {**raw, "terms": {**raw["terms"], "more": 1}},
        lambda raw: {**raw, "expires": "tomorrow"},
        lambda raw: {k: v for k, v in raw.items() if k != "expires"},
    ],
)
def test_what_is_signed_but_no_contract_is_refused(used, change):
    raw = json.loads(SIGNER.sign(terms(), DAY).contract)
    with pytest.raises(TrustError, match="HF-814"):
        take(_signed_text(change(raw)), used)


def test_the_same_words_in_another_order_are_not_the_contract(used):
    raw = json.loads(SIGNER.sign(terms(), DAY).contract)
    text = json.dumps(dict(reversed(raw.items())))
    sent = SignedContract(
        text, signed.sign(SIGNER.key, text.encode()), SIGNER.sign(terms(), DAY).signer
    )
    with pytest.raises(TrustError, match="HF-814"):
        take(sent, used)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('abä"\\\n\u2028'), inner),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text('abcé\u0000"', max_size=4), JSON, max_size=5))
def test_any_configuration_survives_the_canonical_form(config):
    now = now_utc().replace(microsecond=0)
    contract = Contract("heart", terms(config=config), now, now + DAY)
    again = Contract.from_json(contract.to_json())
    assert again == contract
    assert again.to_json() == contract.to_json()
    shuffled = dict(reversed(config.items()))
    assert replace(contract, terms=terms(config=shuffled)).to_json() == contract.to_json()


@given(st.text() | JSON.map(lambda value: json.dumps(value)))
def test_no_text_from_a_stranger_is_a_contract_or_raises_anything_else(text):
    with pytest.raises(TrustError, match="HF-814"):
        Contract.from_json(text)


def test_a_nonce_is_remembered_a_day_longer_than_it_could_be_used(tmp_path):
    used, now, nonce = UsedNonces(tmp_path), now_utc(), new_nonce()
    assert is_nonce(nonce)
    assert used.spend(nonce, now + DAY, now)
    assert not used.spend(nonce, now + DAY, now + 1.5 * DAY)
    assert used.spend(new_nonce(), now + 5 * DAY, now + 3 * DAY)
    assert [nonce in path.name for path in tmp_path.iterdir()] == [False]


def test_a_dry_run_is_asked_with_the_contract_of_a_first_step_alone(used):
    check_dry_run(take(SIGNER.sign(terms(step="statistics"), DAY), used))
    with pytest.raises(TrustError, match="HF-814"):
        check_dry_run(take(SIGNER.sign(terms(step="prepare"), DAY), used))
