"""A coordinator's messages of a sum, held against its signature and the contract of this site.

A simulated site has neither: there a message is of the current session, and that is all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flwr.app import ConfigRecord, Context, Message

from healthfm_client.prepared_study import agreed_contract
from healthfm_client.site.site_node import SiteNode
from healthfm_client.transport.masking import Masking
from healthfm_core.federation.request_checks import secure_message
from healthfm_core.federation.secure import contracted_sums
from healthfm_core.federation.secure.contracted_sums import SESSION, STATISTICS
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.trust.contract import Contract, altered

_CONTRACT: Final = "statistics_contract"


def remember_contract(context: Context, contract: Contract | None) -> None:
    """Keep the contract under which this site is asked for statistics."""
    if contract is not None:
        context.state[_CONTRACT] = ConfigRecord({"contract": contract.to_json()})


def begun(message: Message, node: SiteNode, context: Context) -> str:
    """Return the terms of a session that this site may begin, as JSON.

    Raises:
        TrustError: The study's signer did not sign the message, or its terms are not those of a
            contract that the site took (HF-814), or that has expired (HF-816).
        ProtocolError: The site has not prepared for the study (HF-404).
        PrivacyError: The terms cannot be read (HF-610).
    """
    record = _signed_record(message, node)
    terms = secure.Terms.from_json(str(record["json"]))
    if record.get(SESSION) != terms.session.hex():
        raise altered("a message whose session is not that of its terms")
    if node.home is not None:
        contracted_sums.check_session(_contract_of(terms, node, context), terms)
    return str(record["json"])


def received(message: Message, node: SiteNode, masking: Masking) -> Mapping[str, Any]:
    """Return the record of a message of the current session.

    Raises:
        TrustError: The study's signer did not sign it for this site and step (HF-814).
        PrivacyError: It is of another session (HF-612).
    """
    record = _signed_record(message, node)
    masking.check_session(str(record.get(SESSION, "")))
    return record


def _signed_record(message: Message, node: SiteNode) -> Mapping[str, Any]:
    kind = message.metadata.message_type
    record = secure_message(kind, message.content)
    if node.kit is not None:
        contracted_sums.check_message(node.kit.signer_key, node.name, kind, record)
    return record


def _contract_of(terms: secure.Terms, node: SiteNode, context: Context) -> Contract:
    if terms.purpose != STATISTICS:
        contract = agreed_contract(node, context, terms.study)
    else:
        record = context.state.config_records.get(_CONTRACT)
        contract = None if record is None else Contract.from_json(str(record["contract"]))
    if contract is None:
        raise altered("a sum that no contract which this site took is about")
    return contract
