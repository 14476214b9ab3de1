"""The study that this site has prepared for: kept in Flower's context, its data in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flwr.app import ConfigRecord, Context

from healthfm_client.local_work import LocalWork, StoreSpec
from healthfm_client.site.site_node import SiteNode
from healthfm_core.data.store.store_files import MARKER_FILE
from healthfm_core.errors import ProtocolError
from healthfm_core.federation.protocol import Study
from healthfm_core.trust.contract import Contract

_RECORD: Final = "study"

_loaded: dict[tuple[tuple[StoreSpec, ...], str], PreparedStudy] = {}
"""(stores, study's hash) → the study and its tokenised data, of the last study alone: one process
may be several sites, and holds the data of one study at a time."""


@dataclass(frozen=True)
class PreparedStudy:
    """A study and this site's data as it reads them.

    Attributes:
        study: The study.
        data: The stores' people, tokenised by the study's vocabulary.
        written: When each store that they are of was written, see `_written`.
    """

    study: Study
    data: Any
    written: tuple[int, ...]


def load(work: LocalWork, node: SiteNode, study: Study) -> PreparedStudy:
    """Return the study with the site's data, tokenised now or by an earlier message.

    A store that was written anew meanwhile is read again: nobody who was taken out is trained on.

    Raises:
        StoreError: A store is there no more, or cannot be used (HF-2xx).
    """
    key, written = (node.stores, study.hash), _written(node.stores)
    if key in _loaded and _loaded[key].written != written:
        del _loaded[key]
    if key not in _loaded:
        for other in [k for k in _loaded if k[1] != study.hash]:
            del _loaded[other]
        _loaded[key] = PreparedStudy(study, work.load(node.stores, study), written)
    return _loaded[key]


def remember(context: Context, study: Study, text: str, contract: Contract | None) -> None:
    """Keep the study and its contract in the context, for a process that has not loaded it."""
    agreed = "" if contract is None else contract.to_json()
    context.state[_RECORD] = ConfigRecord({"json": text, "hash": study.hash, "contract": agreed})


def prepared(work: LocalWork, node: SiteNode, context: Context, study_hash: str) -> PreparedStudy:
    """Return the study that this site prepared for under `study_hash`.

    Raises:
        ProtocolError: It did not (HF-404).
    """
    if (node.stores, study_hash) in _loaded:
        return load(work, node, _loaded[node.stores, study_hash].study)
    return load(work, node, Study.from_json(str(_remembered(study_hash, context)["json"])))


def agreed_contract(node: SiteNode, context: Context, study_hash: str) -> Contract | None:
    """Return the contract under which the site prepared for a study; None in a simulation.

    Raises:
        ProtocolError: The site did not prepare for it (HF-404).
    """
    if node.home is None:
        return None
    return Contract.from_json(str(_remembered(study_hash, context)["contract"]))


def _written(stores: tuple[StoreSpec, ...]) -> tuple[int, ...]:
    """Return when each store's dataset.json, which is written last, was; 0 where there is none."""
    files = (spec.path / MARKER_FILE for spec in stores)
    return tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in files)


def _remembered(study_hash: str, context: Context) -> ConfigRecord:
    record = context.state.config_records.get(_RECORD)
    if record is None or record["hash"] != study_hash:
        raise ProtocolError(404, where="train message", seen="a study this site has not prepared")
    return record
