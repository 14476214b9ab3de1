"""The sites of a run: what each said of itself, and how its later replies are checked by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from healthfm_core.errors import ProtocolError, TrustError
from healthfm_core.federation import protocol
from healthfm_core.modalities.registry import modality_names
from healthfm_core.trust.request import MOST_SUBJECTS

MOST_SITES: Final = 100_000
"""Behind one regional coordinator."""


@dataclass(frozen=True)
class RegisteredSite:
    """A site as it registered; its sizes bound what its later replies may claim.

    Attributes:
        name: Unique in the run.
        node_id: Flower's number of the node it answers from.
        modalities: What it holds and its policy permits.
        n_subjects: Its training subjects.
        sites: How many sites it speaks for, where it is a regional coordinator; 0: it is a site.
    """

    name: str
    node_id: int
    modalities: frozenset[str]
    n_subjects: int
    sites: int = 0


def read_site(record: Mapping[str, Any], node_id: int) -> RegisteredSite:
    """Return the site that a reply's record describes.

    Raises:
        ProtocolError: Another protocol version (HF-401), or a record that does not fit (HF-402).
        TrustError: It comes from another node than it says (HF-820).
    """
    try:
        name, version = str(record["site"]), int(record["version"])
        modalities = frozenset(map(str, json.loads(str(record["modalities"]))))
        n_subjects = int(record["subjects"])
        sites = int(record.get(protocol.REGION_SITES, 0))
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _unfit(f"node {node_id}", "a site record that cannot be read") from error
    protocol.check_version(version, where=f"site {name[:64]}")
    if not name.isprintable() or not 0 < len(name) <= 64:
        raise _unfit(f"node {node_id}", "a site name that is empty, too long or not printable")
    if str(record.get("node")) != str(node_id):
        raise not_its_node(name, "a reply that names another node than it comes from")
    if not modalities <= set(modality_names()):
        raise _unfit(f"site {name}", "a modality that does not exist")
    if not 0 < n_subjects < MOST_SUBJECTS:
        raise _unfit(f"site {name}", "no training subject, or an impossible number of them")
    if not 0 <= sites < MOST_SITES:
        raise _unfit(f"site {name}", "an impossible number of sites behind it")
    return RegisteredSite(name, node_id, modalities, n_subjects, sites)


def check_sender(record: Mapping[str, Any], site: RegisteredSite) -> None:
    """Refuse a reply to an order that says it is another site's or another node's.

    Raises:
        TrustError: It does (HF-820).
    """
    if (record.get("site"), record.get("node")) != (site.name, str(site.node_id)):
        raise not_its_node(site.name, "a reply that names another site or node")


def not_its_node(site: str, seen: str) -> TrustError:
    """Return the error for a site that answers from a node that is not its own (HF-820)."""
    return TrustError(
        820,
        where=f"site {site[:64]}",
        seen=seen,
        do="Ask the site whose installation it is; revoke the site if nobody knows",
    )


def _unfit(where: str, seen: str) -> ProtocolError:
    return ProtocolError(
        402,
        where=where,
        seen=seen,
        wanted="name, version, modalities and number of training subjects",
    )
