"""The app that answers a coordinator: dry runs, statistics, prepare, train, secure aggregation.

Nothing else is ever answered. Every answer is either the records named in
`healthfm_core.federation.protocol` or an error with a code and one sentence. What goes out passes
the site's policy last.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from healthfm_client import prepared_study
from healthfm_client.core_local_work import CoreLocalWork
from healthfm_client.egress import egress_filter
from healthfm_client.local_work import LocalWork
from healthfm_client.privacy_accounting.study_budget import StudyBudget
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_node import HOME_KEY, SiteNode
from healthfm_client.training_round import train_one_round
from healthfm_client.transport import sum_messages
from healthfm_client.transport.masked_statistics import statistics_arrays
from healthfm_client.transport.masking import Masking
from healthfm_client.transport.site_array_records import to_record
from healthfm_core.errors import HealthFMError
from healthfm_core.federation import contracting, protocol
from healthfm_core.federation.protocol import Study
from healthfm_core.federation.request_checks import check_request, read_tokens
from healthfm_core.federation.secure.contracted_sums import STATISTICS, agreement_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SiteHandlers:
    """The handlers; state lives in Flower's context and in the process's cache, not here.

    Attributes:
        work: What a site does with its people's records.
    """

    work: LocalWork

    def dry_run(self, message: Message, node: SiteNode, context: Context) -> RecordDict:
        """Say whether the site would begin; what its policy refuses is refused here as in a run."""
        order = message.content.config_records[protocol.ORDER]
        protocol.check_version(int(str(order["version"])), where="coordinator")
        begins = node.would_begin(order)
        _, n_subjects = self.work.describe(node.stores)
        node.policy.check_cohort(n_subjects)
        return RecordDict({protocol.WOULD: ConfigRecord({"begin": int(begins)})})

    def statistics(self, message: Message, node: SiteNode, context: Context) -> RecordDict:
        """Answer with what the vocabulary is built from."""
        order = message.content.config_records[protocol.ORDER]
        protocol.check_version(int(str(order["version"])), where="coordinator")
        tokens = read_tokens(str(order["tokens"]))
        task = str(order["task"])
        contract = node.accept_contract(order)
        wanted = contracting.SumsWanted(bool(order.get("secure")), bool(order.get("hide")))
        if contract is not None:
            wanted = contracting.check_statistics(contract, tokens, task)
            node.check_question(order)
        record = self._site_record(node, hide=wanted.hide)
        tokens = node.policy.raise_threshold(tokens)
        if not wanted.secure:
            arrays = self.work.statistics(node.stores, tokens, task or None)
            return RecordDict({protocol.SITE: record, protocol.ARRAYS: to_record(arrays)})
        if order.get("step") is None:
            sum_messages.remember_contract(context, contract)
            return RecordDict({protocol.SITE: record})
        masking = Masking.of(node, context)
        secure_message = sum_messages.received(message, node, masking)
        agreed = str(order["study"]) if contract is None else agreement_of(contract.terms)
        masking.check_sum(STATISTICS, agreed, int(str(order["number"])))
        modalities, _ = self.work.describe(node.stores)
        masked = statistics_arrays(
            order,
            modalities,
            (node.stores, tokens.model_dump_json(), task),
            lambda: self.work.statistics(node.stores, tokens, task or None),
        )
        capacity = int(str(secure_message["capacity"]))
        masking.mask(str(secure_message["json"]), masked, capacity=capacity)
        return RecordDict({protocol.ARRAYS: to_record(masked)})

    def prepare(self, message: Message, node: SiteNode, context: Context) -> RecordDict:
        """Take the study, tokenise for it, and answer with coverage."""
        order = message.content.config_records[protocol.ORDER]
        text = str(order["study"])
        study = Study.from_json(text)
        contract = node.accept_contract(order)
        if contract is not None:
            contracting.check_study(contract, study)
        secure = study.config.federation.aggregation.secure
        hide = secure.enabled and secure.hide_modalities
        record = self._site_record(node, hide=hide)
        data = prepared_study.load(self.work, node, study).data
        budget = StudyBudget.of(self.work, node, context, study, data)
        budget.check_whole_study()
        prepared_study.remember(context, study, text, contract)
        k_min = node.policy.raise_threshold(study.config.tokens).k_min
        coverage = self.work.coverage(node.stores, study, k_min)
        wanted = ("*",) if contract is None else contract.terms.metrics
        metrics = node.policy.metrics_to_send(coverage, wanted)
        if hide:  # a site without clinical events has no coverage, which would tell
            _log.info("coverage of this site's record: %s", metrics)
            metrics = {}
        return RecordDict({protocol.SITE: record, protocol.METRICS: MetricRecord(dict(metrics))})

    def _site_record(self, node: SiteNode, *, hide: bool = False) -> ConfigRecord:
        modalities, n_subjects = self.work.describe(node.stores)
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


def _begin_sum(message: Message, node: SiteNode, context: Context) -> RecordDict:
    return _said(Masking.of(node, context).keys(sum_messages.begun(message, node, context)))


def _letter(
    step: Callable[[Masking, str], str], message: Message, node: SiteNode, context: Context
) -> RecordDict:
    masking = Masking.of(node, context)
    return _said(step(masking, str(sum_messages.received(message, node, masking)["json"])))


def _said(text: str) -> RecordDict:
    return RecordDict({protocol.SECURE_MESSAGE: ConfigRecord({"json": text})})


Handler = Callable[[Message, SiteNode, Context], RecordDict]


def _answer(handler: Handler, message: Message, context: Context) -> Message:
    """Return the reply to a message, which is in the egress log by then."""
    kind = message.metadata.message_type
    try:
        check_request(kind, message.content)
        content = handler(message, SiteNode.of(context), context)
        egress_filter.check_reply(kind, content)
        reply = Message(content, reply_to=message)
    except HealthFMError as error:
        reply = _refused(message, error)
    except Exception as error:
        _log.error("a request failed with %s\n%s", type(error).__name__, _where(error))
        reason = f"HF-407: the site failed with {type(error).__name__}; its own log says where"
        reply = Message(Error(407, reason), reply_to=message)
    return _on_record(reply, message, context) if HOME_KEY in context.node_config else reply


def _where(error: Exception) -> str:
    """Return the lines of code on the way to an error, and not what it says: that may be data."""
    return "".join(traceback.format_tb(error.__traceback__))


def _on_record(reply: Message, message: Message, context: Context) -> Message:
    """Return `reply` once the log of an enrolled site has it; without that nothing leaves."""
    metadata = message.metadata
    try:
        home = SiteHome(Path(str(context.node_config[HOME_KEY])))
        facts = egress_filter.log_facts(reply, str(metadata.run_id), metadata.group_id)
        unlogged = home.repeated_refusals().repeats(metadata.message_type, facts)
        if unlogged is not None:
            more = {"unlogged": unlogged} if unlogged else {}
            home.log().append(metadata.message_type, {**facts, **more})
    except HealthFMError as error:
        return _refused(message, error)
    return reply


def _refused(message: Message, error: HealthFMError) -> Message:
    _log.warning("%s", error)
    return Message(Error(error.number, str(error)), reply_to=message)


def make_app(work: LocalWork) -> ClientApp:
    """Return the site's app over `work`."""
    site, app = SiteHandlers(work), ClientApp()
    app.query("dry_run")(partial(_answer, site.dry_run))
    app.query("statistics")(partial(_answer, site.statistics))
    app.query("prepare")(partial(_answer, site.prepare))
    app.query("keys")(partial(_answer, _begin_sum))
    app.query("shares")(partial(_answer, partial(_letter, Masking.shares)))
    app.query("unmask")(partial(_answer, partial(_letter, Masking.unmask)))
    app.train()(partial(_answer, partial(train_one_round, work)))
    return app


app = make_app(CoreLocalWork())
"""The site's app, as pyproject.toml names it to Flower."""
