"""How much of a site's record the study's vocabulary covers, and how much of it others have too.

A vocabulary holds what any site let out, so that a site whose codes nobody else uses is covered
whole and learns nothing from the others. What it shares is said beside what is covered, by domain
(what stands before a code's first ``//``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from meds import birth_code

from healthfm_core.arrays import Int64
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.data.store.people_blocks import PeopleBlocks
from healthfm_core.modalities.registry import is_panel_code
from healthfm_core.tokens.records import Events, read_events, read_parents
from healthfm_core.tokens.vocabulary import (
    ANCESTOR,
    DOMAIN,
    EXACT,
    SEVERAL,
    UNKNOWN,
    Vocabulary,
    domain_of,
)

SHARED: Final = "coverage_shared"
EVENTS: Final = "coverage_events"
DEVICES: Final = "coverage_devices"
OTHER_DOMAINS: Final = "other"
"""Domains that the study does not have, together."""
_HOW: Final = {"exact": EXACT, "ancestor": ANCESTOR, "domain": DOMAIN, "unknown": UNKNOWN}


def coverage(
    stores: Sequence[StoreView],
    vocabulary: Vocabulary,
    split: str | None = "train",
    domains: Collection[str] = (),
    k_min: int = 1,
) -> dict[str, float]:
    """Return shares of a site's clinical events by how the vocabulary covers them.

    Args:
        stores: The site's, of which no two share a person.
        vocabulary: The study's.
        split: Whose events.
        domains: Those of the study; () is all.
        k_min: The site's threshold, by which it let its codes out; a domain of fewer people is
            not told.

    Returns:
        ``coverage_exact``, ``coverage_ancestor``, ``coverage_domain`` and ``coverage_unknown``,
        which sum to 1. Where the vocabulary says how many sites let a code out, also
        ``coverage_shared``, the share of the events under a code that another site let out, and
        for each domain ``coverage_events/DOMAIN``, its share of all events, and
        ``coverage_shared/DOMAIN``, the share of its events under such a code; none of these where
        the site has no clinical event. ``coverage_devices``, the share of its wearable devices
        that the study reads, where it does not read all.
    """
    unread = _devices_read(stores, vocabulary)
    held = _Held(vocabulary)
    for store in stores:
        with PeopleBlocks(store, split) as blocks:
            for people in blocks:
                held.add(read_events(people, None, domains), people)
    if not held.by_entry.sum():
        return unread
    total = held.by_entry.sum()
    found = {
        f"coverage_{name}": float(held.by_entry[how].sum() / total) for name, how in _HOW.items()
    }
    return found | unread | (held.shared(k_min) if vocabulary.sites else {})


def _devices_read(stores: Sequence[StoreView], vocabulary: Vocabulary) -> dict[str, float]:
    """Return the share of a site's wearable devices that the study reads, nothing where all."""
    held = {device for store in stores for device in store.devices}
    spec = vocabulary.wearable
    read = {device for device in held if spec is not None and spec.of_device(device)}
    return {} if read == held else {DEVICES: len(read) / len(held)}


class _Held:
    """Events of a site by how they were found, domain and vocabulary entry.

    Attributes:
        by_entry: [4, D + 1, V] events; D domains of the vocabulary, then all others.
        people: [V] subjects with an event under each entry.
        of_domain: [D + 1] subjects with an event of each domain.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._place = {name: i for i, name in enumerate(vocabulary.domains)}
        shape = (len(vocabulary.domains) + 1, vocabulary.n_codes)
        self.by_entry = np.zeros((len(_HOW), *shape), np.int64)
        self.people = np.zeros(vocabulary.n_codes, np.int64)
        self.of_domain = np.zeros(shape[0], np.int64)

    def add(self, events: Events, store: StoreView) -> None:
        """Count a store's events, births and the values of panels left out."""
        own = np.array([c != birth_code and not is_panel_code(c) for c in events.codes], np.bool_)
        events = events.where(own[events.code]) if len(own) else events
        entry, how = self._vocabulary.look_up(events.codes, read_parents(store))
        other = len(self._place)
        domain = np.array(
            [self._place.get(domain_of(code) or "", other) for code in events.codes], np.int64
        )
        rows = np.bincount(events.code, minlength=len(events.codes))
        np.add.at(self.by_entry, (how, domain, entry), rows)
        self.people += _people(entry[events.code], events.subject, len(self.people))
        self.of_domain += _people(domain[events.code], events.subject, len(self.of_domain))

    def shared(self, k_min: int) -> dict[str, float]:
        """Return what another site let out too, of all events and by domain."""
        first = self._vocabulary.n_codes - len(self._vocabulary.codes)
        sites = np.zeros(self._vocabulary.n_codes, np.int64)
        sites[first:] = self._vocabulary.sites
        elsewhere = (sites == SEVERAL) | ((sites == 1) & (self.people < k_min))
        events = self.by_entry.sum(axis=(0, 2))
        ours = (self.by_entry[[EXACT, ANCESTOR]].sum(axis=0) * elsewhere).sum(axis=1)
        found = {SHARED: float(ours.sum() / events.sum())}
        for at, name in enumerate((*self._vocabulary.domains, OTHER_DOMAINS)):
            if self.of_domain[at] >= max(1, k_min):
                found[f"{EVENTS}/{name}"] = float(events[at] / events.sum())
                found[f"{SHARED}/{name}"] = float(ours[at] / events[at])
        return found


def _people(key: Int64, subject: Int64, size: int) -> Int64:
    """Return [size] how many distinct subjects stand beside each key."""
    width = int(subject.max()) + 1 if len(subject) else 1
    pairs = np.unique(key * width + subject)
    return np.bincount(pairs // width, minlength=size).astype(np.int64)
