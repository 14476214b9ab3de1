"""Before round 1: the sites' statistics → vocabulary → study → prepared sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from flwr.app import ConfigRecord, Message, RecordDict

from healthfm_core.config.run import RunConfig
from healthfm_core.errors import HealthFMError
from healthfm_core.federation import protocol
from healthfm_core.federation.code_overlap import ROLLED_UP, CodeOverlap, too_little
from healthfm_core.federation.contracting import terms_before, terms_of
from healthfm_core.federation.input_overlap import INPUTS, InputOverlap
from healthfm_core.federation.parameter_groups import agree_on_modalities, nothing_let_out
from healthfm_core.federation.protocol import Study, for_the_wire
from healthfm_core.federation.secure.contracted_sums import agreement_of
from healthfm_core.flower.message_internals import ErrorCode
from healthfm_core.tokens.common_ancestors import rolled_up
from healthfm_core.tokens.shared_channels import device_use
from healthfm_core.tokens.statistics import SiteStatistics, merge
from healthfm_core.tokens.vocabulary import SEVERAL
from healthfm_core.trust.contract import ContractTerms
from healthfm_server.run_folder.people_told import note_people
from healthfm_server.run_folder.run_progress import Phase, ProgressEvent, ProgressListener
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.run_folder.run_waiting import WaitingNote
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.study_setup.model_setup import ModelSetup
from healthfm_server.study_setup.region_statistics import statistics_by_site
from healthfm_server.study_setup.registered_sites import RegisteredSite, read_site
from healthfm_server.transport.array_records import read
from healthfm_server.transport.exchange import Exchange, Timeouts, too_few
from healthfm_server.transport.secure_session import secure_exchange
from healthfm_server.transport.secure_statistics import SecureStatistics

FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 60.0
"""Pauses before a site that waits for a person's approval is asked again; each doubles."""
LONGEST_AWAY_PAUSE_S: Final = 8.0
"""The same where a site has lost its connection: it comes back within seconds, or not soon."""
WAITS_FOR_APPROVAL: Final = 503
"""Code of a site at which a person has not approved the run yet."""
ASKED_AGAIN: Final = {
    WAITS_FOR_APPROVAL: "waits for approval",
    ErrorCode.NODE_UNAVAILABLE: "waits for a connection",
}
"""Code of an answer after which a site is asked again → the event that says so."""


@dataclass(frozen=True)
class StudySetup:
    """Sets the study up with the sites, before round 1; one object per run.

    Attributes:
        exchange: Sends and receives.
        store: Takes the study and the events.
        timeouts: Deadline and life of messages.
        listener: Called after every reply.
        model_setup: Builds the vocabulary.
        signer: Signs the contracts and knows the admitted sites.
    """

    exchange: Exchange
    store: RunStore
    timeouts: Timeouts
    listener: ProgressListener
    model_setup: ModelSetup
    signer: ContractSigner = field(default_factory=ContractSigner)

    def study(self, nodes: list[int], config: RunConfig) -> Study:
        """Return the study that `nodes` can agree on, and write it to the run folder.

        Raises:
            ProtocolError: Too few sites answered (HF-403), or nobody has what the model needs
                (HF-406).
        """

        def terms() -> ContractTerms:
            return terms_before(self.store.run_id(), config)

        def ask(more: Mapping[str, Any] = MappingProxyType({})) -> ConfigRecord:
            contract = self.signer.sign(terms, config)
            return ConfigRecord(self.signer.to_ask({**_question(config), **more, **contract}))

        if config.federation.aggregation.secure.enabled:
            return self._secure_study(nodes, config, ask, agreement_of(terms()))
        answers: dict[int, tuple[RegisteredSite, dict[str, SiteStatistics]]] = {}

        def take(site: RegisteredSite, reply: Message) -> None:
            arrays = dict(read(reply.content.array_records[protocol.ARRAYS]))
            found = statistics_by_site(site, arrays)
            for statistics in found.values():
                statistics.check_people(site.n_subjects)
            answers[site.node_id] = site, found

        self._ask(nodes, protocol.STATISTICS, ask, take, "statistics", config)
        sites = self._register([site for site, _ in answers.values()])
        modalities = agree_on_modalities(
            [site.modalities for site in sites.values()], config.federation.aggregation.groups
        )
        each: dict[str, SiteStatistics] = {}
        for site in sites.values():
            each |= answers[site.node_id][1]
        with_codes = sum(bool(found.codes) for found in each.values())
        return self._write(merge(list(each.values())), with_codes, modalities, config, each)

    def _secure_study(
        self, nodes: list[int], config: RunConfig, ask: Callable[..., ConfigRecord], agreement: str
    ) -> Study:
        answered: list[RegisteredSite] = []

        def take(site: RegisteredSite, reply: Message) -> None:
            answered.append(site)

        self._ask(nodes, protocol.STATISTICS, ask, take, "statistics", config)
        sites = self._register(answered)
        exchange = secure_exchange(self.exchange, self.timeouts, config, self.signer)
        masked = SecureStatistics(exchange, self.store, config, agreement)
        merged, with_codes, modalities = masked.sum(sites, ask)
        note_people(self.store, merged, sum(site.n_subjects for site in sites.values()))
        return self._write(merged, with_codes, modalities, config)

    def _write(
        self,
        merged: SiteStatistics,
        with_codes: int,
        modalities: tuple[str, ...],
        config: RunConfig,
        each: Mapping[str, SiteStatistics] = MappingProxyType({}),
    ) -> Study:
        vocabulary = self.model_setup.vocabulary(merged, config)
        if with_codes > 1:
            overlap = CodeOverlap.of(merged)
            if vocabulary.become is not None:
                overlap = self._rolled_up(overlap, rolled_up(merged, vocabulary.become))
            self.store.note("code overlap", **overlap.to_event())
            overlap.check(config.federation.min_shared_codes)
        learnable = self.model_setup.learnable(vocabulary, modalities)
        if not learnable:
            raise nothing_let_out(config.tokens.k_min)
        if learnable != modalities:
            left_out = sorted(set(modalities) - set(learnable))
            self.store.note("modalities left out", modalities=left_out, k_min=config.tokens.k_min)
        use = device_use(merged, vocabulary.wearable, config.tokens)
        if use.sentence():
            self.store.note("devices", **asdict(use))
        inputs = InputOverlap.of(merged, each, vocabulary.wearable)
        if len(each) != 1 and not inputs.is_empty():
            self.store.note(INPUTS, **inputs.to_event())
        study = Study(
            version=protocol.VERSION,
            run_id=self.store.run_id(),
            config=for_the_wire(config),
            vocabulary=vocabulary,
            modalities=learnable,
        )
        self.store.save_study(study)
        return study

    def _rolled_up(self, before: CodeOverlap, rolled: SiteStatistics) -> CodeOverlap:
        """Note what rolling codes up changed, and return what the sites share after it."""
        after = CodeOverlap.of(rolled)
        self.store.note(ROLLED_UP, **after.rolled_up(before))
        return after

    def sites(self, nodes: list[int], study: Study) -> dict[str, RegisteredSite]:
        """Send the study to `nodes` and return the sites that prepared for it, by name.

        Raises:
            ProtocolError: Too few sites answered (HF-403).
        """
        prepared: list[RegisteredSite] = []
        least = study.config.federation.min_shared_codes
        shares_codes = len(nodes) > 1 and SEVERAL in study.vocabulary.sites

        def take(site: RegisteredSite, reply: Message) -> None:
            answer = reply.content.metric_records[protocol.METRICS]
            coverage = {name: _number(share) for name, share in answer.items()}
            self.store.note(
                "prepared",
                site=site.name,
                modalities=sorted(site.modalities),
                subjects=site.n_subjects,
                coverage=coverage,
            )
            reason = too_little(coverage, least) if shares_codes else None
            if reason is not None:
                raise ValueError(reason)
            prepared.append(site)

        def ask() -> ConfigRecord:
            contract = self.signer.sign(partial(terms_of, study), study.config)
            return ConfigRecord({"study": study.to_json(), **contract})

        self._ask(nodes, protocol.PREPARE, ask, take, "prepare", study.config)
        return self._register(prepared)

    def _ask(
        self,
        nodes: list[int],
        kind: str,
        order: Callable[[], ConfigRecord],
        take: Callable[[RegisteredSite, Message], None],
        phase: Phase,
        config: RunConfig,
    ) -> None:
        started, answered = self.exchange.clock.monotonic(), 0
        reasons: dict[str, str] = {}
        for reply in self._replies(nodes, kind, order, phase, config.federation.gather_s):
            name = ""
            try:
                site = self._site_of(reply)
                name = site.name
                take(site, reply)
                answered += 1
            except (HealthFMError, KeyError, ValueError, TypeError) as error:
                name = name or self.signer.name_of(reply.metadata.src_node_id)
                reasons[name] = str(error)[:300]
                self.store.note("set aside", phase=phase, site=name, reason=reasons[name])
            self.listener(
                ProgressEvent(
                    phase=phase,
                    round=0,
                    rounds=config.federation.rounds,
                    seconds=self.exchange.clock.monotonic() - started,
                    done=answered + len(reasons),
                    sites=len(nodes),
                    site=name,
                )
            )
        if answered < max(1, config.federation.quorum * len(nodes)):
            raise too_few(phase, len(nodes), answered, reasons)

    def _replies(
        self,
        nodes: list[int],
        kind: str,
        order: Callable[[], ConfigRecord],
        phase: Phase,
        gather_s: float,
    ) -> Iterator[Message]:
        """Yield each node's reply.

        A site that waits for approval is asked again until the deadline, and one whose connection
        was lost just now for `gather_s`, as a run waits for its sites in the first place. Each time
        with a new contract, because a site accepts a contract only once.
        """
        clock, pause_s = self.exchange.clock, FIRST_PAUSE_S
        begun, until = clock.monotonic(), clock.monotonic() + self.timeouts.deadline_s
        ends = {WAITS_FOR_APPROVAL: until, ErrorCode.NODE_UNAVAILABLE: begun + gather_s}
        asked, noted, folder = tuple(nodes), set[int](), self.store.folder
        approval = WaitingNote(folder, "approval", phase, len(asked), asked)
        connections = WaitingNote(folder, "connections", phase, len(asked))
        while nodes:
            record, waiting = order(), dict[int, int]()
            contents = {node: RecordDict({protocol.ORDER: record}) for node in nodes}
            timeouts = Timeouts(max(until - clock.monotonic(), 0.0), self.timeouts.ttl_s)
            for reply in self.exchange(contents, kind, phase, timeouts):
                code = reply.error.code if reply.has_error() else None
                if code in ends and clock.monotonic() + pause_s < ends[code]:
                    waiting[reply.metadata.src_node_id] = code
                else:
                    yield reply
            for code in sorted({*waiting.values()} - noted):
                self.store.note(ASKED_AGAIN[code], phase=phase, nodes=len(waiting))
            noted |= {*waiting.values()}
            persons = [node for node, code in waiting.items() if code == WAITS_FOR_APPROVAL]
            if persons:
                approval.at_once(persons)
            elif waiting:
                connections.at_once(set(asked) - waiting.keys())
            if waiting:
                self.exchange.rest(pause_s)
            is_away = ErrorCode.NODE_UNAVAILABLE in waiting.values()
            longest_s = LONGEST_AWAY_PAUSE_S if is_away else LONGEST_PAUSE_S
            nodes, pause_s = list(waiting), min(2 * pause_s, longest_s)
        approval.over()

    def _register(self, answered: list[RegisteredSite]) -> dict[str, RegisteredSite]:
        """Return the sites by name, sorted; one whose name another node has already is set aside.

        Of several nodes with one name the lowest node number is kept: two nodes may be one site's
        store served twice, and its people must not count twice.
        """
        sites: dict[str, RegisteredSite] = {}
        for site in sorted(answered, key=lambda s: (s.name, s.node_id)):
            if site.name in sites:
                self.store.note("set aside", site=site.name, reason="another node has its name")
            else:
                sites[site.name] = site
        return sites

    def _site_of(self, reply: Message) -> RegisteredSite:
        """Return the site that answered.

        Raises:
            ValueError: The reply is an error; the message is its reason.
            ProtocolError: The record does not fit (HF-401, HF-402).
            TrustError: The site may not answer from this node (HF-811, HF-820).
        """
        if reply.has_error():
            raise ValueError(reply.error.reason or f"the node failed with code {reply.error.code}")
        record = reply.content.config_records[protocol.SITE]
        return self.signer.check(read_site(record, reply.metadata.src_node_id))


def _number(share: float | list[int] | list[float]) -> float:
    if isinstance(share, list):
        raise TypeError("a share of events is a list")
    return float(share)


def _question(config: RunConfig) -> dict[str, str | int]:
    """Return the question that every site gets before round 1."""
    secure = config.federation.aggregation.secure
    plain: dict[str, str | int] = {
        "version": protocol.VERSION,
        "tokens": config.tokens.model_dump_json(),
        "task": config.label_task or "",
    }
    masked = {"secure": 1, "hide": int(secure.hide_modalities)} if secure.enabled else {}
    return {**plain, **masked}
