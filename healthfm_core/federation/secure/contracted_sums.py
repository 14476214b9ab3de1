"""What a sum may be by the run's signed contract, and the signatures of the messages of a sum.

A site derives the terms of a session from the contract that it took and refuses others, so that a
coordinator cannot ask for a sum of fewer sites than it signed for. Each message of a session is
signed for one site, one session and one step: who has the wire, and not the study's signing key,
moves no session on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from healthfm_core.config.run import RunConfig
from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.federation.contracting import SIGNATURE
from healthfm_core.privacy.secure_aggregation import Terms
from healthfm_core.trust import signed
from healthfm_core.trust.contract import Contract, ContractTerms, StudySigner, altered

STATISTICS: Final = "statistics"
ROUND: Final = "round"
"""Purposes of a sum."""
MOST_TRIES: Final = 3
"""How often the statistics of round 0 are asked for in two sums each."""
SESSION: Final = "session"
"""Key of a message's record: the session it belongs to, in hex."""
_EVERYBODY: Final = 10_000
"""Degree of a statistics session: every site masks with every other, so that its sum can be opened
again over the same sites."""


def agreement_of(terms: ContractTerms) -> str:
    """Return what the sums under a contract name as their study.

    Returns:
        The study's hash; before there is one, a hash of the run and its configuration.
    """
    text = signed.canonical({"statistics of": [terms.run, terms.config_hash]})
    return terms.agreement or hashlib.sha256(text).hexdigest()


def session_terms(
    config: SecureAggregationConfig, study: str, purpose: str, number: int, nonce: str
) -> Terms:
    """Return the terms that a configuration gives a session.

    Args:
        config: The run's.
        study: From `agreement_of`.
        purpose: `STATISTICS` or `ROUND`.
        number: Of the sum; the round's number.
        nonce: Hex of random bytes: no two sessions are the same.
    """
    return Terms(
        study=study,
        purpose=purpose,
        number=number,
        nonce=nonce,
        threshold=config.threshold,
        min_sites=config.min_sites,
        degree=_EVERYBODY if purpose == STATISTICS else config.degree,
        colluding_fraction=config.colluding_fraction,
        dropout_fraction=config.dropout_fraction,
    )


def check_session(contract: Contract, terms: Terms) -> None:
    """Refuse terms of a session that are not those of the contract.

    Raises:
        TrustError: The contract has expired (HF-816), or a field is not what follows from it
            (HF-814).
    """
    contract.check_time()
    agreed = contract.terms
    purpose = STATISTICS if agreed.step == "statistics" else ROUND
    secure = RunConfig.model_validate(agreed.config).federation.aggregation.secure
    if not secure.enabled:
        raise altered("a sum under a contract without secure aggregation")
    study = agreement_of(agreed)
    wanted = session_terms(secure, study, purpose, terms.number, terms.nonce)
    for name, value in asdict(wanted).items():
        if getattr(terms, name) != value:
            raise altered(f"a sum with {name} {getattr(terms, name)}; the contract says {value}")
    first, last = (0, 2 * MOST_TRIES - 1) if purpose == STATISTICS else (1, agreed.rounds + 1)
    if not first <= terms.number <= last:
        raise altered(f"a sum with number {terms.number}; the contract has {first} to {last}")


def sign_message(signer: StudySigner, site: str, kind: str, record: Mapping[str, Any]) -> str:
    """Return the signature of one message of a sum to one site.

    Args:
        signer: The study's.
        site: Whom it is for.
        kind: The message's name.
        record: Its record as it travels.
    """
    return signed.sign(signer.key, signed.canonical(_message_said(site, kind, record)))


def check_message(key: Ed25519PublicKey, site: str, kind: str, record: Mapping[str, Any]) -> None:
    """Refuse a message of a sum that the study's signer did not sign for this site and step.

    Raises:
        TrustError: It did not (HF-814).
    """
    said = _message_said(site, kind, record)
    if not signed.is_signed(key, said, str(record.get(SIGNATURE, ""))):
        raise altered(f"a {kind} message that the study's signer did not sign for this site")


def _message_said(site: str, kind: str, record: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in record.items() if name != SIGNATURE}
    return {"a message of a sum": [site, kind, said]}
