"""A run's terms, as the coordinator signs them and as a site holds a request against them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from healthfm_core.config.run import RunConfig
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import TrustError
from healthfm_core.federation.protocol import RoundOrder, Study, for_the_wire
from healthfm_core.trust import signed
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.contract import (
    CLOCK_TOLERANCE,
    Contract,
    ContractTerms,
    SignedContract,
    StudySigner,
    altered,
    read_time,
    write_time,
)
from healthfm_core.trust.nonces import UsedNonces, is_nonce, new_nonce

METRICS_WANTED: Final = (
    "loss_*",
    "tuning_*",
    "coverage_*",
    "grad_norm/*",
    "update_norm",
    "layer*/*",
    "steps",
    "privacy_*",
    "held_out/*",
)
"""What the round loop and its report read; a site sends what its own policy lets out of these."""

CONTRACT: Final = "contract"
SIGNATURE: Final = "signature"
SIGNER: Final = "signer"
"""Keys of the order record under which a contract travels; absent in a simulation."""
ORDER_SIGNATURE: Final = "order_signature"
"""Key of a statistics order's own signature, beside its contract's."""

FOR_SITE: Final = "site"
NONCE: Final = "nonce"
EXPIRES: Final = "expires"
"""Keys of a signed order record: whom it is for, 128 random bits, and until when it holds."""


def terms_before(run: str, config: RunConfig) -> ContractTerms:
    """Return the terms of asking for statistics, when there is no vocabulary yet."""
    config = for_the_wire(config)
    raw = config.model_dump(mode="json")
    return ContractTerms(
        step="statistics",
        run=run,
        config=raw,
        agreement="",
        vocabulary="",
        panel=(),
        channels=(),
        modalities=(),
        k_min=config.tokens.k_min,
        privacy=raw.get("privacy", {}),
        rounds=config.federation.rounds,
        metrics=METRICS_WANTED,
    )


def terms_of(study: Study) -> ContractTerms:
    """Return the terms of taking part in `study`."""
    raw = study.config.model_dump(mode="json")
    vocabulary = study.vocabulary
    return ContractTerms(
        step="prepare",
        run=study.run_id,
        config=raw,
        agreement=study.hash,
        vocabulary=hashlib.sha256(vocabulary.to_json().encode()).hexdigest(),
        panel=vocabulary.panel,
        channels=() if vocabulary.wearable is None else tuple(vocabulary.wearable.channels),
        modalities=study.modalities,
        k_min=study.config.tokens.k_min,
        privacy=raw.get("privacy", {}),
        rounds=study.config.federation.rounds,
        metrics=METRICS_WANTED,
    )


def to_fields(sent: SignedContract) -> dict[str, str]:
    """Return what goes into a message's order record."""
    return {
        CONTRACT: sent.contract,
        SIGNATURE: sent.signature,
        SIGNER: sent.signer,
    }


def from_fields(record: Mapping[str, Any]) -> SignedContract | None:
    """Return the contract of an order record, None where it carries none."""
    if CONTRACT not in record:
        return None
    return SignedContract(*(str(record.get(key, "")) for key in (CONTRACT, SIGNATURE, SIGNER)))


@dataclass(frozen=True)
class SumsWanted:
    """How statistics are to be sent.

    Attributes:
        secure: As masked sums.
        hide: Without saying which modalities a site has.
    """

    secure: bool
    hide: bool


def check_statistics(contract: Contract, tokens: TokensConfig, task: str) -> SumsWanted:
    """Refuse a request for statistics that is not the contract's, and return how they are sent.

    Raises:
        TrustError: It asks for something else (HF-814).
    """
    config = RunConfig.model_validate(contract.terms.config)
    same = (config.tokens, config.label_task or "") == (tokens, task)
    if contract.terms.step != "statistics" or not same:
        raise altered("a request for other statistics than the contract says")
    secure = config.federation.aggregation.secure
    return SumsWanted(secure.enabled, secure.enabled and secure.hide_modalities)


def check_dry_run(contract: Contract) -> None:
    """Refuse a dry run that comes with a contract of something else.

    Raises:
        TrustError: It does (HF-814).
    """
    if contract.terms.step != "statistics":
        raise altered("a dry run with a contract of another step")


def sign_statistics(signer: StudySigner, record: Mapping[str, Any]) -> str:
    """Return the signature of a statistics order, its contract's nonce in it."""
    return signed.sign(signer.key, signed.canonical(_statistics_said(record)))


def check_statistics_signature(record: Mapping[str, Any], key: Ed25519PublicKey) -> None:
    """Refuse a statistics order that the study's signer did not sign.

    Raises:
        TrustError: It did not (HF-814).
    """
    if not signed.is_signed(key, _statistics_said(record), str(record.get(ORDER_SIGNATURE, ""))):
        raise altered("a request for statistics that the study's signer did not sign")


def _statistics_said(record: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in record.items() if name != ORDER_SIGNATURE}
    return {"a statistics order": said}


def check_study(contract: Contract, study: Study) -> None:
    """Refuse a study that is not the contract's.

    Raises:
        TrustError: It is another one (HF-814).
    """
    if contract.terms != terms_of(study):
        raise altered("a study that is not the contract's")


def check_order(contract: Contract, order: RoundOrder, study: str) -> None:
    """Refuse an order that the contract does not cover.

    Args:
        contract: The one taken for the study.
        order: What is asked.
        study: Hash of the study that the order belongs to.

    Raises:
        TrustError: It has expired (HF-816), or the order is of another study or of a round that
            the contract does not have (HF-814).
    """
    contract.check_time()
    terms = contract.terms
    if terms.agreement != study or order.rounds != terms.rounds:
        raise altered("an order of another study than the contract's")
    if order.held_out:
        is_agreed = RunConfig.model_validate(terms.config).evaluation.at_sites
        if order.train or order.round != held_out_round(terms.rounds) or not is_agreed:
            raise altered("an order of a judgement that the contract does not have")
        return
    last = terms.rounds if order.train else terms.rounds + 1  # the last model is scored after it
    if not 1 <= order.round <= last:
        raise altered("an order of a round that the contract does not have")


def held_out_round(rounds: int) -> int:
    """Return the number under which held-out people are judged: after all that trains or scores."""
    return rounds + 2


def sign_order(
    signer: StudySigner,
    record: Mapping[str, str],
    digests: Mapping[str, str],
    *,
    site: str,
    lasts: timedelta,
) -> dict[str, str]:
    """Return an order record for one site, to be taken once and for a time, with its signature.

    Args:
        signer: The study's.
        record: The order and its study.
        digests: SHA-256 of each piece of parameters that travels with it, in hex.
        site: Whose order it is.
        lasts: How long the coordinator waits for the answer.
    """
    until = write_time(now_utc() + lasts)
    addressed = {**record, FOR_SITE: site, NONCE: new_nonce(), EXPIRES: until}
    return {**addressed, SIGNATURE: signed.sign(signer.key, _order_text(addressed, digests))}


def accept_order(
    record: Mapping[str, Any],
    digests: Mapping[str, str],
    key: Ed25519PublicKey,
    *,
    site: str,
    used: UsedNonces,
) -> None:
    """Refuse an order that is not the signer's for this site and this time, or was taken before.

    That it was taken is on disk before this returns: what an order costs is paid once.

    Args:
        record: The order record as it came.
        digests: SHA-256 of each piece of parameters that came with it, in hex.
        key: The study's signer's.
        site: This site's name.
        used: The orders that this site has taken.

    Raises:
        TrustError: The study's signer did not sign it, or the parameters with it (HF-814); it is
            another site's (HF-823), was taken before (HF-824) or is too late (HF-825).
    """
    if not signed.verified(key, _order_text(record, digests), str(record.get(SIGNATURE, ""))):
        raise altered("an order, or parameters with it, that the study's signer did not sign")
    nonce, until = _taken_once(record)
    if record[FOR_SITE] != site:
        raise TrustError(823, where="order", seen="an order for another site")
    now = now_utc()
    if now > until + CLOCK_TOLERANCE:
        raise TrustError(825, where="order", seen=f"it held until {until:%Y-%m-%d %H:%M} UTC")
    if not used.spend(nonce, until + CLOCK_TOLERANCE, now):
        raise TrustError(824, where="order", seen="an order that this site has taken before")


def _taken_once(record: Mapping[str, Any]) -> tuple[str, datetime]:
    """Return an order's nonce and until when it holds."""
    nonce = str(record.get(NONCE, ""))
    try:
        until = read_time(str(record.get(EXPIRES, "")))
    except ValueError as error:
        raise altered("an order without a time") from error
    if not is_nonce(nonce):
        raise altered("an order without a nonce")
    return nonce, until


def _order_text(record: Mapping[str, Any], digests: Mapping[str, str]) -> bytes:
    said = {str(key): str(value) for key, value in record.items() if key != SIGNATURE}
    return signed.canonical({"an order": said, "with": dict(digests)})
