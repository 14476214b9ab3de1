"""The app that answers a coordinator: statistics, prepare, train, and the letters of secure sums.

Nothing else is ever answered. Every answer is either the records named in
`healthfm_core.federation.protocol` or an error with a code and one sentence. What goes out passes
the site's policy last.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from healthfm_client.array_records import parameters_of, to_record
from healthfm_client.core_local_work import CoreWork
from healthfm_client.egress import egress_filter
from healthfm_client.local_work import LocalWork, StoreSpec
from healthfm_client.privacy_accounting import study_budget
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_node import HOME, Node
from healthfm_client.transport.masked_statistics import statistics_arrays
from healthfm_client.transport.masking import Masking
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import HealthFMError, ProtocolError
from healthfm_core.federation import contracting, protocol
from healthfm_core.federation.parameter_groups import BACKBONE, group_of, groups_held
from healthfm_core.federation.protocol import RoundOrder, Study
from healthfm_core.federation.secure.codecs import codec_for
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.trust.contract import Contract

_log = logging.getLogger(__name__)

_STUDY: Final = "study"
_prepared: dict[tuple[tuple[StoreSpec, ...], str], tuple[Study, Any]] = {}
"""Tokenised data by (stores, study): a cache of this process, of the last study only."""


class Site:
    """The handlers; state lives in Flower's context and in the process's cache, not here."""

    def __init__(self, work: LocalWork) -> None:
        self._work = work

    def statistics(self, message: Message, context: Context) -> Message:
        """Answer with what the vocabulary is built from."""
        return _answer(message, context, self._statistics)

    def prepare(self, message: Message, context: Context) -> Message:
        """Take the study, tokenise for it, and answer with coverage."""
        return _answer(message, context, self._prepare)

    def train(self, message: Message, context: Context) -> Message:
        """Train one round and answer with the update of the groups the site holds."""
        return _answer(message, context, self._train)

    def keys(self, message: Message, context: Context) -> Message:
        """Begin a session of secure aggregation and answer with signed keys."""
        return _answer(message, context, partial(_letter, Masking.keys))

    def shares(self, message: Message, context: Context) -> Message:
        """Answer everybody's keys with sealed shares."""
        return _answer(message, context, partial(_letter, Masking.shares))

    def unmask(self, message: Message, context: Context) -> Message:
        """Give the shares that open the sum, and end the session."""
        return _answer(message, context, partial(_letter, Masking.unmask))

    def _statistics(self, message: Message, node: Node, context: Context) -> RecordDict:
        order = _order(message)
        protocol.check_version(int(str(order["version"])), where="coordinator")
        tokens = TokensConfig.model_validate_json(str(order["tokens"]))
        task = str(order["task"])
        contract = node.agree(order)
        if contract is not None:
            contracting.check_statistics(contract, tokens, task)
        tokens = node.policy.raise_threshold(tokens)
        if not order.get("secure"):
            record = self._site_record(node)
            arrays = self._work.statistics(node.stores, tokens, task or None)
            return RecordDict({protocol.SITE: record, protocol.ARRAYS: to_record(arrays)})
        hidden = self._site_record(node, hide=bool(order["hide"]))
        if order.get("step") is None:
            return RecordDict({protocol.SITE: hidden})
        modalities, _ = self._work.describe(node.stores)
        masked = statistics_arrays(
            order,
            modalities,
            (node.stores, tokens.model_dump_json(), task),
            lambda: self._work.statistics(node.stores, tokens, task or None),
        )
        letter = message.content.config_records[protocol.LETTER]
        Masking(node.name, context, node.policy.peers).mask(str(letter["json"]), masked)
        return RecordDict({protocol.ARRAYS: to_record(masked)})

    def _prepare(self, message: Message, node: Node, context: Context) -> RecordDict:
        text = str(_order(message)[_STUDY])
        study = Study.from_json(text)
        contract = node.agree(_order(message))
        if contract is not None:
            contracting.check_study(contract, study)
        secure = study.config.federation.aggregation.secure
        hide = secure.enabled and secure.hide_modalities
        record = self._site_record(node, hide=hide)
        data = self._load(node, study)
        study_budget.admit(self._work, node.policy.privacy, context, study, data)
        agreed = "" if contract is None else contract.to_json()
        context.state[_STUDY] = ConfigRecord({"json": text, "hash": study.hash, "contract": agreed})
        coverage = self._work.coverage(node.stores, study)
        metrics = node.policy.metrics_to_send(coverage, _wanted(contract))
        if hide:  # a site without clinical events has no coverage, which would tell
            _log.info("coverage of this site's record: %s", metrics)
            metrics = {}
        return RecordDict({protocol.SITE: record, protocol.METRICS: MetricRecord(dict(metrics))})

    def _train(self, message: Message, node: Node, context: Context) -> RecordDict:
        order = RoundOrder.from_json(str(_order(message)["json"]))
        study_hash = str(_order(message)[_STUDY])
        contract = _agreed(node, study_hash, context)
        if contract is not None:
            contracting.check_order(contract, order, study_hash)
            node.check_signature(_order(message), message.content.array_records[protocol.ARRAYS])
        study, data = self._prepared(node, study_hash, context)
        parameters = parameters_of(message.content.array_records[protocol.ARRAYS])
        if study.config.federation.aggregation.secure.enabled:
            return self._masked_round(message, node, context, study, data, order, parameters)
        rules = node.policy.privacy
        result = study_budget.train(self._work, rules, context, parameters, data, study, order)
        weights = node.policy.groups_to_send(
            {g: w for g, w in result.weights.items() if g in order.groups}
        )
        update = {n: a for n, a in result.update.items() if group_of(n) in weights}
        metrics = node.policy.metrics_to_send(result.metrics, _wanted(contract))
        return RecordDict(
            {
                protocol.SITE: ConfigRecord({"site": node.name, "node": str(node.node_id)}),
                protocol.ARRAYS: to_record(update),
                protocol.WEIGHTS: MetricRecord(dict(weights)),
                protocol.METRICS: MetricRecord(dict(metrics)),
            }
        )

    def _masked_round(
        self,
        message: Message,
        node: Node,
        context: Context,
        study: Study,
        data: Any,
        order: RoundOrder,
        parameters: Mapping[str, Any],
    ) -> RecordDict:
        """Train on the groups the site holds and answer with masked arrays of all of them."""
        letter = message.content.config_records[protocol.LETTER]
        contract = _agreed(node, study.hash, context)
        masking = Masking(node.name, context, node.policy.peers)
        modalities, n_subjects = self._work.describe(node.stores)
        codec = codec_for(
            study,
            UpdateSchema.of(parameters, study.config.federation.aggregation.max_update_norm),
            masking.book,
            int(str(letter["capacity"])),
        )
        held = groups_held(modalities, order.groups)
        own = {name: array for name, array in parameters.items() if group_of(name) in held}
        ordered, rules = replace(order, groups=held), node.policy.privacy
        result = study_budget.train(self._work, rules, context, own, data, study, ordered)
        weights = node.policy.groups_to_send({g: result.weights.get(g, 0.0) for g in held})
        arrays = codec.encode(
            result.update,
            weights,
            node.policy.metrics_to_send(result.metrics, _wanted(contract)),
            weights.get(BACKBONE, float(n_subjects)),
        )
        masking.mask(str(letter["json"]), arrays)
        return RecordDict({protocol.ARRAYS: to_record(arrays)})

    def _site_record(self, node: Node, *, hide: bool = False) -> ConfigRecord:
        modalities, n_subjects = self._work.describe(node.stores)
        node.policy.check_cohort(n_subjects)
        return ConfigRecord(
            {
                "version": protocol.VERSION,
                "site": node.name,
                "node": str(node.node_id),
                "modalities": json.dumps([] if hide else sorted(modalities)),
                "subjects": n_subjects,
            }
        )

    def _load(self, node: Node, study: Study) -> Any:
        key = (node.stores, study.hash)
        if key not in _prepared:
            for other in [k for k in _prepared if k[1] != study.hash]:
                del _prepared[other]
            _prepared[key] = (study, self._work.load(node.stores, study))
        return _prepared[key][1]

    def _prepared(self, node: Node, study_hash: str, context: Context) -> tuple[Study, Any]:
        if (node.stores, study_hash) not in _prepared:
            self._load(node, Study.from_json(str(_remembered(study_hash, context)["json"])))
        return _prepared[node.stores, study_hash]


def _letter(
    step: Callable[[Masking, str], str], message: Message, node: Node, context: Context
) -> RecordDict:
    text = str(message.content.config_records[protocol.LETTER]["json"])
    answer = step(Masking(node.name, context, node.policy.peers), text)
    return RecordDict({protocol.LETTER: ConfigRecord({"json": answer})})


def _order(message: Message) -> ConfigRecord:
    return message.content.config_records[protocol.ORDER]


def _remembered(study_hash: str, context: Context) -> ConfigRecord:
    record = context.state.config_records.get(_STUDY)
    if record is None or record["hash"] != study_hash:
        raise _unknown_study()
    return record


def _agreed(node: Node, study_hash: str, context: Context) -> Contract | None:
    """Return the contract under which the site prepared for a study; None in a simulation."""
    if node.home is None:
        return None
    return Contract.from_json(str(_remembered(study_hash, context)["contract"]))


def _wanted(contract: Contract | None) -> tuple[str, ...]:
    return ("*",) if contract is None else contract.terms.metrics


Work = Callable[[Message, Node, Context], RecordDict]


def _answer(message: Message, context: Context, work: Work) -> Message:
    """Return the reply to a message, which is in the egress log by then."""
    kind = message.metadata.message_type
    try:
        content = work(message, Node.of(context), context)
        egress_filter.check(kind, content)
        reply = Message(content, reply_to=message)
    except HealthFMError as error:
        reply = _refused(message, error)
    except Exception as error:
        _log.error("a request failed with %s\n%s", type(error).__name__, _where(error))
        reason = f"HF-407: the site failed with {type(error).__name__}; its own log says where"
        reply = Message(Error(407, reason), reply_to=message)
    return _on_record(reply, message, context)


def _where(error: Exception) -> str:
    """Return the lines of code on the way to an error, and not what it says: that may be data."""
    return "".join(traceback.format_tb(error.__traceback__))


def _on_record(reply: Message, message: Message, context: Context) -> Message:
    """Return `reply` once the log of an enrolled site has it; without that nothing leaves."""
    if HOME not in context.node_config:
        return reply
    metadata = message.metadata
    try:
        log = SiteHome(Path(str(context.node_config[HOME]))).log()
        facts = egress_filter.described(reply, str(metadata.run_id), metadata.group_id)
        log.append(metadata.message_type, facts)
    except HealthFMError as error:
        return _refused(message, error)
    return reply


def _refused(message: Message, error: HealthFMError) -> Message:
    _log.warning("%s", error)
    return Message(Error(error.number, str(error)), reply_to=message)


def _unknown_study() -> ProtocolError:
    return ProtocolError(404, where="train message", seen="a study this site has not prepared")


def make_app(work: LocalWork) -> ClientApp:
    """Return the site's app over `work`."""
    site, app = Site(work), ClientApp()
    app.query("statistics")(site.statistics)
    app.query("prepare")(site.prepare)
    app.query("keys")(site.keys)
    app.query("shares")(site.shares)
    app.query("unmask")(site.unmask)
    app.train()(site.train)
    return app


app = make_app(CoreWork())
"""The site's app, as pyproject.toml names it to Flower."""
