"""One training round at this site: reserve its privacy cost, train, commit, filter, answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, Self

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict

from healthfm_client.egress import egress_filter
from healthfm_client.held_out_reply import HeldOutAsked, held_out_reply, site_of
from healthfm_client.local_work import LocalWork
from healthfm_client.prepared_study import agreed_contract, prepared
from healthfm_client.privacy_accounting.study_budget import StudyBudget
from healthfm_client.site.control_variates import ControlState
from healthfm_client.site.held_models import HeldModels
from healthfm_client.site.residuals import SiteResiduals
from healthfm_client.site.round_files import RoundFiles
from healthfm_client.site.site_node import SiteNode
from healthfm_client.transport import sum_messages
from healthfm_client.transport.masking import Masking
from healthfm_client.transport.site_array_records import parameters_of, to_record
from healthfm_core.arrays import Float32
from healthfm_core.federation import contracting, protocol
from healthfm_core.federation.aggregation.method_registry import methods
from healthfm_core.federation.compression.error_feedback import uplink_compressor
from healthfm_core.federation.compression.reference_model import downlink_compressor
from healthfm_core.federation.parameter_groups import BACKBONE, group_of, groups_held
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.federation.secure.codecs import codec_for
from healthfm_core.federation.secure.contracted_sums import ROUND
from healthfm_core.federation.secure.update_codec import UpdateCodec
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.training import DriftCorrection

RESIDUALS: Final = "residuals"
"""Folder of what codecs left out of updates, in the site's state."""
MODELS: Final = "models"
"""Folder of the models that changes are of, in the site's state."""


@dataclass(frozen=True)
class TrainingRound:
    """What one training order asks of this site, held against its contract.

    Attributes:
        order: Which round, which groups, which seed.
        study: The study it belongs to.
        data: The site's people, tokenised for it.
        parameters: The global parameters that came with it.
        control: The algorithm's state here; None for an algorithm without.
        metrics_wanted: Patterns of the metrics that the contract names.
        run_name: What the coordinator's people call the run; empty in a simulation.
    """

    order: RoundOrder
    study: Study
    data: Any
    parameters: Mapping[str, Float32]
    control: ControlState | None
    metrics_wanted: tuple[str, ...]
    run_name: str = ""

    @classmethod
    def received(cls, work: LocalWork, message: Message, node: SiteNode, context: Context) -> Self:
        """Read and check a training order.

        Raises:
            ProtocolError: It or its parameters cannot be read (HF-402), or it is of a study that
                this site has not prepared for (HF-404).
            TrustError: Its contract does not cover it (HF-814), or it is no order for this site to
                take now (HF-823 to HF-825).
        """
        record = message.content.config_records[protocol.ORDER]
        arrays = message.content.array_records[protocol.ARRAYS]
        order, study_hash = RoundOrder.from_json(str(record["json"])), str(record["study"])
        contract = agreed_contract(node, context, study_hash)
        if contract is not None:
            contracting.check_order(contract, order, study_hash)
            node.accept_order(record, arrays)
        known = prepared(work, node, context, study_hash)
        wanted = ("*",) if contract is None else contract.terms.metrics
        compressor = downlink_compressor(known.study.config.federation.codec)
        if compressor is None:
            received = parameters_of(arrays)
        else:
            files = round_files(node, known.study, MODELS, "models", 1)
            received = HeldModels(files, compressor).receive(order, arrays)
        parameters = {name: array for name, array in received.items() if "/" not in name}
        control = None
        method = known.study.config.federation.aggregation.method
        algorithm = methods()[method].control_variates
        if algorithm is not None:
            prefix = f"{algorithm.slot}/"
            server = {
                n.removeprefix(prefix): a for n, a in received.items() if n.startswith(prefix)
            }
            files = round_files(node, known.study, algorithm.slot, "control variates")
            control = ControlState(files, algorithm, server, order.round)
        name = "" if contract is None else str(contract.statement.get("run", ""))
        return cls(order, known.study, known.data, parameters, control, wanted, name)


def round_files(
    node: SiteNode, study: Study, name: str, what: str, kept: int | None = None
) -> RoundFiles:
    """Return the files of a study's state `name`.

    Args:
        node: The site.
        study: Whose.
        name: Of their folder.
        what: They are.
        kept: Besides the latest; None: as many as the coordinator keeps checkpoints.

    Raises:
        ConfigError: The node has no folder for them (HF-102).
    """
    folder = node.state_folder() / name / study.hash
    return RoundFiles(folder, what, kept or study.config.federation.keep_checkpoints)


class RoundReply(Protocol):
    """How a site's update travels: `ClearReply` or `MaskedReply`."""

    def to_train(self, current: TrainingRound) -> TrainingRound:
        """Return the round with the groups that this site trains."""

    def records(self, result: RoundResult) -> RecordDict:
        """Return the records of the reply to a round that the egress filter has passed."""


def train_one_round(
    work: LocalWork, message: Message, node: SiteNode, context: Context
) -> RecordDict:
    """Train one round and return what leaves: the update of the groups that the site holds.

    Raises:
        PrivacyError: The round would cost more than the site permits (HF-601), or the ledger is
            damaged or cannot be written (HF-602, HF-603); nothing was read of anybody.
        RunError: Training diverged (HF-726); its update stays here.
    """
    received = TrainingRound.received(work, message, node, context)
    study, data = received.study, received.data
    if received.order.held_out:
        plan = StudyBudget.of(work, node, context, study, data).plan
        asked = HeldOutAsked(study, data, received.parameters, received.metrics_wanted, plan)
        return held_out_reply(work, node, asked, name=received.run_name)
    reply = _reply(work, message, node, context, received)
    current = reply.to_train(received)
    budget = StudyBudget.of(work, node, context, study, data)

    is_training = current.order.train
    reservation = budget.reserve(current.order.round) if is_training else None
    parameters, control = current.parameters, current.control
    drift = (
        None
        if control is None or not is_training
        else DriftCorrection(control.correction(parameters))
    )
    result = work.train_round(parameters, data, study, current.order, budget.plan, drift)
    budget.commit(reservation)

    permitted_result = egress_filter.permitted_result(
        result, node.policy, groups=current.order.groups, metrics=received.metrics_wanted
    )
    if control is not None:
        permitted_result = control.finish(permitted_result)
    return reply.records(permitted_result)


def _reply(
    work: LocalWork, message: Message, node: SiteNode, context: Context, received: TrainingRound
) -> RoundReply:
    if not received.study.config.federation.aggregation.secure.enabled:
        compressor = uplink_compressor(received.study.config.federation.codec)
        if compressor is None:
            return ClearReply(node)
        files = round_files(node, received.study, RESIDUALS, "residuals of its updates")
        return ClearReply(node, SiteResiduals(files, compressor, received.order))
    masking = Masking.of(node, context)
    record = sum_messages.received(message, node, masking)
    masking.check_sum(ROUND, received.study.hash, received.order.round)
    most = received.study.config.federation.aggregation.max_update_norm
    schema = UpdateSchema.of(received.parameters, most)
    capacity = int(str(record["capacity"]))
    rounding = received.order.seed
    codec = codec_for(received.study, schema, masking.book, capacity, rounding=rounding)
    modalities, n_subjects = work.describe(node.stores)
    inputs = inputs_of(received.order, received.parameters)
    mailbox = MaskingOrder(str(record["json"]), capacity, inputs)
    return MaskedReply(masking, mailbox, codec, modalities, n_subjects)


def inputs_of(order: RoundOrder, parameters: Mapping[str, Float32]) -> tuple[str, ...]:
    """Return hashes of what an update and its scores follow from, beside the site's records.

    Training follows from parameters and seed, the scores of a model from its parameters alone.
    """
    digest = hashlib.sha256()
    for name, array in sorted(parameters.items()):
        digest.update(f"{name} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    model = digest.hexdigest()
    trained = hashlib.sha256(f"{model} {order.seed}".encode()).hexdigest()
    return (f"trained {trained}",) * order.train + (f"scored {model}",) * order.evaluate


@dataclass(frozen=True)
class MaskingOrder:
    """What comes with an order for a masked update.

    Attributes:
        letters: The other sites' sealed shares, as JSON.
        capacity: Training subjects of all sites.
        inputs: From `inputs_of`.
    """

    letters: str
    capacity: int
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class ClearReply:
    """The update as it is, or encoded, which the coordinator sees.

    Attributes:
        node: The site.
        residuals: Encode it; None: it travels as float32.
    """

    node: SiteNode
    residuals: SiteResiduals | None = None

    def to_train(self, current: TrainingRound) -> TrainingRound:
        """Return the round: the coordinator asks a site for the groups it holds."""
        return current

    def records(self, result: RoundResult) -> RecordDict:
        """Return the site's name, update, weights and metrics."""
        kept = self.residuals
        update = result.update if kept is None else kept.encode(result)
        return RecordDict(
            {
                protocol.SITE: site_of(self.node),
                protocol.ARRAYS: to_record(update),
                protocol.WEIGHTS: MetricRecord(dict(result.weights)),
                protocol.METRICS: MetricRecord(dict(result.metrics)),
            }
        )


@dataclass(frozen=True)
class MaskedReply:
    """Masked arrays of all groups, of which the coordinator sees the sum over sites alone.

    Attributes:
        masking: This site's session.
        mailbox: What came with the order.
        codec: How the update stands in the ring.
        modalities: What the site holds.
        n_subjects: Its training subjects.
    """

    masking: Masking
    mailbox: MaskingOrder
    codec: UpdateCodec
    modalities: frozenset[str]
    n_subjects: int

    def to_train(self, current: TrainingRound) -> TrainingRound:
        """Return the round with the groups this site holds; it was asked for all of them."""
        held = groups_held(self.modalities, current.order.groups)
        parameters = {n: a for n, a in current.parameters.items() if group_of(n) in held}
        return replace(current, order=replace(current.order, groups=held), parameters=parameters)

    def records(self, result: RoundResult) -> RecordDict:
        """Return the masked arrays, and nothing beside them."""
        metric_weight = result.weights.get(BACKBONE, float(self.n_subjects))
        arrays = self.codec.encode(result.update, result.weights, result.metrics, metric_weight)
        box = self.mailbox
        self.masking.mask(box.letters, arrays, capacity=box.capacity, inputs=box.inputs)
        return RecordDict({protocol.ARRAYS: to_record(arrays)})
