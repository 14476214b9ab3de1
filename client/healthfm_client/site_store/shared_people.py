"""What a site is told of people who are in more than one of its stores."""

from __future__ import annotations

from collections.abc import Sequence

from healthfm_client.site_store.description.withholding import counted
from healthfm_core.data.store.joined_stores import join_stores, people_shared
from healthfm_core.data.store.site_store import SiteStore

SHOWN_FROM = 20
"""Smaller counts are not printed where a command is given no threshold."""


def of_shared_people(stores: Sequence[SiteStore], k: int = SHOWN_FROM) -> str:
    """Return a sentence about those who are in several stores, "" where nobody is.

    Raises:
        StoreError: Two stores contradict each other about a person (HF-212).
    """
    join_stores(stores)
    people = people_shared(stores)
    shown = counted(people, k)
    count = f"fewer than {k}" if shown is None else f"{shown:,}"
    return f"{count} people are in more than one store; each counts once" if people else ""
