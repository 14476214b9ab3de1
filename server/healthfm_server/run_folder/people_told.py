"""How many people the sites of a run have, of each modality, as the sum of round 0 told.

Where sites hide their modalities no later sum says it again: one more sum of weights, with a site
missing, would tell what that site has. So it is kept in the run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from healthfm_core.errors import RunError
from healthfm_core.modalities.registry import modality_names
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_server.run_folder.run_store import RunStore

EVENT: Final = "people by modality"


@dataclass(frozen=True)
class PeopleTold:
    """Training subjects of all sites in round 0.

    Attributes:
        total: As the sites registered.
        by_modality: Modality → those who have it, where a site has enough to tell.
    """

    total: int
    by_modality: Mapping[str, float]

    def share(self, people: int) -> float:
        """Return the share of everybody that some `people` are."""
        return people / max(1, self.total)


def note_people(store: RunStore, merged: SiteStatistics, total: int) -> None:
    """Write to the run folder what round 0 told."""
    counts = merged.modality_subjects.tolist()
    store.note(EVENT, total=total, counts=dict(zip(modality_names(), counts, strict=True)))


def told_people(store: RunStore) -> PeopleTold:
    """Return what round 0 told.

    Raises:
        RunError: Nothing is written, as in runs before study protocol 7 (HF-702).
    """
    told = [event for event in store.events() if event["event"] == EVENT]
    if not told:
        raise RunError(
            702,
            where=str(store.folder),
            seen="its round 0 did not keep how many people have each modality",
            wanted="a run with secure sums of version 0.7 or later",
            do="Begin again in another folder",
        )
    counts = {name: float(count) for name, count in told[-1]["counts"].items()}
    return PeopleTold(int(told[-1]["total"]), counts)
