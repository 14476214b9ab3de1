"""``held-out.json`` of a run folder: what the sites told of the model on their held-out people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from healthfm_core.config.run import RunConfig
from healthfm_server.run_folder.checkpoints import damaged
from healthfm_server.run_folder.durable_files import replace_file

HELD_OUT_FILE: Final = "held-out.json"


@dataclass(frozen=True)
class HeldOutTold:
    """What came of asking the sites to judge a run's model.

    Attributes:
        round: After which round the model was the one that was judged.
        asked: Sites that were.
        metrics: Site → metric → number, of those that answered.
        set_aside: Site → why it told nothing.
    """

    round: int
    asked: tuple[str, ...] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    set_aside: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it to a run's folder."""
        replace_file(folder / HELD_OUT_FILE, [json.dumps(asdict(self), indent=1).encode()])

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what stands in a run's folder; None where nobody was asked yet.

        Raises:
            RunError: The file is damaged (HF-703).
        """
        path = folder / HELD_OUT_FILE
        if not path.is_file():
            return None
        try:
            raw = json.loads(path.read_text("utf-8"))
            return cls(**{**raw, "asked": tuple(raw["asked"])})
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(path, "it is not what sites told of a model") from error


def is_judged_at_sites(config: RunConfig) -> bool:
    """Whether a deployment's run ends with the sites' judgement of its model.

    Where sums are secure the coordinator sees no site's own figures, and asks for none.
    """
    return config.evaluation.at_sites and not config.federation.aggregation.secure.enabled
