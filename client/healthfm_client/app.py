"""The app that answers a coordinator: statistics, prepare, train. Nothing else is ever answered.

Every answer is either the records named in `healthfm_core.federation.protocol` or an error with a
code and one sentence. What goes out passes the site's policy last.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from healthfm_client.core_work import CoreWork
from healthfm_client.local import LocalWork, StoreSpec
from healthfm_client.policy import SitePolicy
from healthfm_client.records import parameters_of, to_record
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import HealthFMError, ProtocolError
from healthfm_core.federation import protocol
from healthfm_core.federation.groups import group_of
from healthfm_core.federation.protocol import RoundOrder, Study

_log = logging.getLogger(__name__)

_STUDY: Final = "study"
_prepared: dict[tuple[tuple[StoreSpec, ...], str], tuple[Study, Any]] = {}
"""Tokenised data by (stores, study): a cache of this process, of the last study only."""


@dataclass(frozen=True)
class Node:
    """The site as its node configuration describes it."""

    name: str
    stores: tuple[StoreSpec, ...]
    policy: SitePolicy

    @classmethod
    def of(cls, context: Context) -> Node:
        """Return the site of `context`.

        Raises:
            HealthFMError: Its policy file is unusable (HF-1xx) or permits nothing (HF-501).
        """
        config = context.node_config
        policy = SitePolicy.read(Path(str(config["policy"]))) if "policy" in config else None
        policy = policy or SitePolicy()
        stores = tuple(
            StoreSpec(Path(raw["path"]), policy.permitted(raw.get("modalities")))
            for raw in json.loads(str(config["stores"]))
        )
        return cls(str(config["site"]), stores, policy)


class Site:
    """The handlers; state lives in Flower's context and in the process's cache, not here."""

    def __init__(self, work: LocalWork) -> None:
        self._work = work

    def statistics(self, message: Message, context: Context) -> Message:
        """Answer with what the vocabulary is built from."""
        return _answer(message, lambda: self._statistics(message, Node.of(context)))

    def prepare(self, message: Message, context: Context) -> Message:
        """Take the study, tokenise for it, and answer with coverage."""
        return _answer(message, lambda: self._prepare(message, Node.of(context), context))

    def train(self, message: Message, context: Context) -> Message:
        """Train one round and answer with the update of the groups the site holds."""
        return _answer(message, lambda: self._train(message, Node.of(context), context))

    def _statistics(self, message: Message, node: Node) -> RecordDict:
        order = _order(message)
        protocol.check_version(int(str(order["version"])), where="coordinator")
        tokens = TokensConfig.model_validate_json(str(order["tokens"]))
        record = self._site_record(node)
        arrays = self._work.statistics(
            node.stores, node.policy.raise_threshold(tokens), str(order["task"]) or None
        )
        return RecordDict({protocol.SITE: record, protocol.ARRAYS: to_record(arrays)})

    def _prepare(self, message: Message, node: Node, context: Context) -> RecordDict:
        text = str(_order(message)[_STUDY])
        study = Study.from_json(text)
        record = self._site_record(node)
        self._load(node, study)
        context.state[_STUDY] = ConfigRecord({"json": text, "hash": study.hash})
        metrics = node.policy.metrics_to_send(self._work.coverage(node.stores, study))
        return RecordDict({protocol.SITE: record, protocol.METRICS: MetricRecord(dict(metrics))})

    def _train(self, message: Message, node: Node, context: Context) -> RecordDict:
        order = RoundOrder.from_json(str(_order(message)["json"]))
        study, data = self._prepared(node, str(_order(message)[_STUDY]), context)
        parameters = parameters_of(message.content.array_records[protocol.ARRAYS])
        result = self._work.run_round(parameters, data, study, order)
        weights = node.policy.groups_to_send(
            {g: w for g, w in result.weights.items() if g in order.groups}
        )
        update = {n: a for n, a in result.update.items() if group_of(n) in weights}
        return RecordDict(
            {
                protocol.ARRAYS: to_record(update),
                protocol.WEIGHTS: MetricRecord(dict(weights)),
                protocol.METRICS: MetricRecord(dict(node.policy.metrics_to_send(result.metrics))),
            }
        )

    def _site_record(self, node: Node) -> ConfigRecord:
        modalities, n_subjects = self._work.describe(node.stores)
        node.policy.check_cohort(n_subjects)
        return ConfigRecord(
            {
                "version": protocol.VERSION,
                "site": node.name,
                "modalities": json.dumps(sorted(modalities)),
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
            record = context.state.config_records.get(_STUDY)
            if record is None or record["hash"] != study_hash:
                raise _unknown_study()
            self._load(node, Study.from_json(str(record["json"])))
        return _prepared[node.stores, study_hash]


def _order(message: Message) -> ConfigRecord:
    return message.content.config_records[protocol.ORDER]


def _answer(message: Message, work: Callable[[], RecordDict]) -> Message:
    try:
        return Message(work(), reply_to=message)
    except HealthFMError as error:
        _log.warning("%s", error)
        return Message(Error(error.number, str(error)), reply_to=message)
    except Exception as error:
        _log.exception("a request failed")
        reason = f"HF-407: the site failed with {type(error).__name__}; its own log says where"
        return Message(Error(407, reason), reply_to=message)


def _unknown_study() -> ProtocolError:
    return ProtocolError(
        404,
        where="train message",
        seen="a study this site has not prepared",
        wanted="a prepare message comes before the first order of a study",
        do="Send the study again; the coordinator does so before the next round",
    )


def make_app(work: LocalWork) -> ClientApp:
    """Return the site's app over `work`."""
    site, app = Site(work), ClientApp()
    app.query("statistics")(site.statistics)
    app.query("prepare")(site.prepare)
    app.train()(site.train)
    return app


app = make_app(CoreWork())
"""The site's app, as pyproject.toml names it to Flower."""
