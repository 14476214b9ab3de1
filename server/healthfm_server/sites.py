"""Who takes part: what each site said of itself, and what the coordinator holds it to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from healthfm_core.errors import ProtocolError
from healthfm_core.federation import protocol
from healthfm_core.federation.groups import MODALITIES

_MOST_SUBJECTS = 2**40


@dataclass(frozen=True)
class Site:
    """A site as it registered; its sizes bound what its later replies may claim.

    Attributes:
        name: Unique in the run.
        node_id: Flower's number of the node it answers from.
        modalities: What it holds and its policy permits.
        n_subjects: Its training subjects.
    """

    name: str
    node_id: int
    modalities: frozenset[str]
    n_subjects: int


def read_site(record: Mapping[str, Any], node_id: int) -> Site:
    """Return the site that a reply's record describes.

    Raises:
        ProtocolError: Another protocol version (HF-401), or a record that does not fit (HF-402).
    """
    try:
        name, version = str(record["site"]), int(record["version"])
        modalities = frozenset(map(str, json.loads(str(record["modalities"]))))
        n_subjects = int(record["subjects"])
    except (KeyError, ValueError, TypeError) as error:
        raise _unfit(f"node {node_id}", "a site record that cannot be read") from error
    protocol.check_version(version, where=f"site {name[:64]}")
    if not name.isprintable() or not 0 < len(name) <= 64:
        raise _unfit(f"node {node_id}", "a site name that is empty, too long or not printable")
    if not modalities <= set(MODALITIES):
        raise _unfit(f"site {name}", "a modality that does not exist")
    if not 0 < n_subjects < _MOST_SUBJECTS:
        raise _unfit(f"site {name}", "no training subject, or more than there are people")
    return Site(name, node_id, modalities, n_subjects)


def register(found: list[Site]) -> tuple[dict[str, Site], list[Site]]:
    """Return the sites by name, sorted, and those whose name another node has already.

    Of several nodes with one name the lowest node number is kept: two nodes may be one site's
    store served twice, and its people must not count twice.
    """
    sites: dict[str, Site] = {}
    doubles = []
    for site in sorted(found, key=lambda s: (s.name, s.node_id)):
        if site.name in sites:
            doubles.append(site)
        else:
            sites[site.name] = site
    return sites, doubles


def _unfit(where: str, seen: str) -> ProtocolError:
    return ProtocolError(
        402,
        where=where,
        seen=seen,
        wanted="name, version, modalities and number of training subjects",
        do="Install the same release of healthfm on both sides",
    )
