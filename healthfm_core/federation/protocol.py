"""What crosses the wire, on both sides: the version, the messages' names and their records.

============  =====================================  ============================================
message       to the site                            back
============  =====================================  ============================================
`DRY_RUN`     version                                 whether the site would begin by itself
`STATISTICS`  version, tokens configuration, task     site record, statistics arrays
`PREPARE`     the study                              site record, coverage metrics
`TRAIN`       order, parameters of the groups held   site's name and node, update, weights, metrics
`KEYS`        terms of a session                      signed keys
`SHARES`      everybody's keys                        sealed shares
`UNMASK`      who sent an input and who did not       one share for each neighbour
============  =====================================  ============================================

The last three are secure aggregation's, around a `TRAIN` or `STATISTICS` whose arrays are masked.
In a deployment the first three orders carry a signed contract besides; a training order says whose
it is, has a nonce and a time, and is signed together with the parameters (`contracting`). An error
reply carries a code of `healthfm_core.error_codes.CODES` and its one sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final, Self

from healthfm_core.arrays import Float32
from healthfm_core.config import renamed
from healthfm_core.config.network import NetworkConfig
from healthfm_core.config.plan import PlanConfig
from healthfm_core.config.run import RunConfig
from healthfm_core.config.simulation import SimulationConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.tokens.vocabulary import Vocabulary

VERSION: Final = 10
"""Raised when a record changes its meaning; the server refuses a site that runs another."""
READABLE: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, VERSION})
"""Versions whose studies mean the same: a run of one goes on, a model of one can be used. Those
before `VERSION` may have a configuration's old names (`config.renamed`)."""

DRY_RUN: Final = "query.dry_run"
STATISTICS: Final = "query.statistics"
PREPARE: Final = "query.prepare"
TRAIN: Final = "train"
KEYS: Final = "query.keys"
SHARES: Final = "query.shares"
UNMASK: Final = "query.unmask"

ORDER: Final = "order"
SITE: Final = "site"
ARRAYS: Final = "arrays"
WEIGHTS: Final = "weights"
METRICS: Final = "metrics"
SECURE_MESSAGE: Final = "secure_message"
WOULD: Final = "would"
"""Names of the records in a message; no message carries any other."""

LEAVING: Final[Mapping[str, frozenset[str]]] = {
    DRY_RUN: frozenset({WOULD}),
    STATISTICS: frozenset({SITE, ARRAYS}),
    PREPARE: frozenset({SITE, METRICS}),
    TRAIN: frozenset({SITE, ARRAYS, WEIGHTS, METRICS}),
    KEYS: frozenset({SECURE_MESSAGE}),
    SHARES: frozenset({SECURE_MESSAGE}),
    UNMASK: frozenset({SECURE_MESSAGE}),
}
"""Message → the records that may go back; a site holds back a reply with any other."""
SITE_KEYS: Final = frozenset({"version", "site", "node", "modalities", "subjects"})
"""Keys that a site record may have."""
REGION_SITES: Final = "sites"
"""Key of a regional coordinator's record beside those: how many sites it speaks for."""


def for_the_wire(config: RunConfig) -> RunConfig:
    """Return `config` without what is the coordinator's own: folders, and how it simulates."""
    data = config.data.model_copy(update={"path": None, "stores": ()})
    federation = config.federation.model_copy(update={"start_from": None})
    return config.model_copy(
        update={
            "out": None,
            "resume": False,
            "data": data,
            "federation": federation,
            "simulation": SimulationConfig(),
            "network": NetworkConfig(),
            "plan": PlanConfig(),
        }
    )


@dataclass(frozen=True)
class Study:
    """What every site of a run agrees on before round 1; it never changes during the run.

    Attributes:
        version: `VERSION` of the server that made it.
        run_id: names the run in logs and ledgers.
        config: the whole configuration, less the coordinator's folders.
        vocabulary: codes, value edges, targets, score panel and wearable channels.
        modalities: modalities whose encoders the model has, sorted.
    """

    version: int
    run_id: str
    config: RunConfig
    vocabulary: Vocabulary
    modalities: tuple[str, ...]

    def to_json(self) -> str:
        """Return canonical JSON: equal studies give equal text."""
        return json.dumps(
            {
                "version": self.version,
                "run_id": self.run_id,
                "config": self.config.model_dump(mode="json"),
                "vocabulary": json.loads(self.vocabulary.to_json()),
                "modalities": list(self.modalities),
            },
            sort_keys=True,
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the study written by `to_json`.

        Raises:
            ProtocolError: Another protocol version made it (HF-401), or it cannot be read (HF-404).
        """
        try:
            raw = json.loads(text)
            version = int(raw["version"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise _unreadable() from error
        if version not in READABLE:
            check_version(version, where="study")
        try:
            config = raw["config"]
            if version != VERSION:
                config = renamed.RUN.upgrade(config)
            return cls(
                version=version,
                run_id=str(raw["run_id"]),
                config=RunConfig.model_validate(config),
                vocabulary=Vocabulary.from_json(json.dumps(raw["vocabulary"])),
                modalities=tuple(map(str, raw["modalities"])),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable() from error

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def check_version(version: int, *, where: str) -> None:
    """Refuse another protocol version.

    Raises:
        ProtocolError: `version` is not `VERSION` (HF-401).
    """
    if version != VERSION:
        raise ProtocolError(
            401,
            where=where,
            seen=f"protocol version {version}",
            wanted=f"this side speaks version {VERSION}",
        )


def _unreadable() -> ProtocolError:
    return ProtocolError(
        404,
        where="study",
        seen="text that is no study",
        wanted="the JSON a coordinator of this release sends",
    )


@dataclass(frozen=True)
class RoundOrder:
    """What one site is to do in one round.

    Attributes:
        round: 1 … rounds.
        rounds: how many there will be, for schedules.
        groups: groups whose parameters come with the order and whose updates may go back.
        evaluate: whether to score the incoming weights on the tuning split first.
        seed: seed of all the site's randomness in this round.
        train: whether to train at all. After the last round of a run that chooses among its rounds
            the sites score the last model and send zeros.
        counted: group → the last round whose update of this site is in the model, where updates
            are encoded: from there the site goes on with what its codec left out.
        reference: The round whose model the arrays are a change of; 0: they are the model.
        digests: group → SHA-256 of its parameters after that change, in hex.
        shapes: parameter → shape, where the arrays are a change of a model of zeros: the first that
            the sites get.
        most_weight: To a regional coordinator, the most weight that a group can get of all sites of
            the round: in its unit it adds its own up. 0: the order is a site's.
        held_out: Whether the site judges the model on its held-out people, after the last round,
            and tells metrics alone: no update goes back.
    """

    round: int
    rounds: int
    groups: tuple[str, ...]
    evaluate: bool
    seed: int
    train: bool = True
    counted: Mapping[str, int] = field(default_factory=dict)
    reference: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    most_weight: float = 0.0
    held_out: bool = False

    def to_json(self) -> str:
        """Return the order as JSON; what is as usual is not said, as earlier releases read it."""
        said = asdict(self)
        if self.train:
            del said["train"]
        for name in ("counted", "reference", "digests", "shapes", "most_weight", "held_out"):
            if not said[name]:
                del said[name]
        return json.dumps(said, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the order written by `to_json`.

        Raises:
            ProtocolError: It cannot be read (HF-402).
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            order = cls(**{**raw, "groups": tuple(map(str, raw["groups"]))})
            _check_types(order)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProtocolError(
                402,
                where="train message",
                seen="an order that cannot be read",
                wanted="round, rounds, groups, evaluate and seed",
            ) from error
        return order


def _check_types(order: RoundOrder) -> None:
    numbers = (order.round, order.rounds, order.seed, order.reference)
    flags = (order.evaluate, order.train, order.held_out)
    if {type(value) for value in numbers} != {int} or {type(flag) for flag in flags} != {bool}:
        raise TypeError("a number, or whether to do something, of another type")
    if type(order.most_weight) not in (int, float):
        raise TypeError("a weight of another type")
    if type(order.counted) is not dict or {*map(type, order.counted.values())} - {int}:
        raise TypeError("rounds that were counted of another type")
    if type(order.digests) is not dict or {*map(type, order.digests.values())} - {str}:
        raise TypeError("digests of another type")
    if type(order.shapes) is not dict or not all(map(_is_shape, order.shapes.values())):
        raise TypeError("shapes of another type")


def _is_shape(shape: Any) -> bool:
    return type(shape) is list and all(type(size) is int and size >= 0 for size in shape)


@dataclass(frozen=True)
class RoundResult:
    """What local training gives back.

    Attributes:
        update: parameter → float32 change (new minus received), of the groups in `weights` only.
        weights: group → training subjects that hold it, > 0; a group without any is left out.
        metrics: name → value, means over the site's people, never one person's.
        learning_rate_sum: Σ of the local steps' learning rates, for algorithms that divide by it
            (SCAFFOLD); it stays at the site.
    """

    update: Mapping[str, Float32]
    weights: Mapping[str, float]
    metrics: Mapping[str, float]
    learning_rate_sum: float = 0.0
