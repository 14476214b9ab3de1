"""``dry-run.json`` of a run folder: what each site would do, and what the run would take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from healthfm_server.run_folder.checkpoints import damaged
from healthfm_server.run_folder.durable_files import replace_file

DRY_RUN_FILE: Final = "dry-run.json"

Would = Literal["begin", "ask a person", "refuse", "not connected", "no answer"]
WOULD: Final = get_args(Would)


@dataclass(frozen=True)
class SiteWould:
    """What a site would do, were the run real.

    Attributes:
        would: Which of the five.
        reason: Why it would refuse, or why nothing is known.
    """

    would: Would
    reason: str = ""


@dataclass(frozen=True)
class DryRunTold:
    """What came of a dry run.

    Attributes:
        at: When, ISO 8601 in UTC.
        sites: By name.
        expected: What the run would take (`expected_cost.ExpectedCost`); None: not known.
        said: The same for a person.
    """

    at: str
    sites: Mapping[str, SiteWould] = field(default_factory=dict)
    expected: Mapping[str, Any] | None = None
    said: str = ""

    def save(self, folder: Path) -> None:
        """Write it to a run's folder."""
        replace_file(folder / DRY_RUN_FILE, [json.dumps(asdict(self), indent=1).encode()])

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what stands in a run's folder; None where it is no dry run, or not done yet.

        Raises:
            RunError: The file is damaged (HF-703).
        """
        path = folder / DRY_RUN_FILE
        if not path.is_file():
            return None
        try:
            raw = json.loads(path.read_text("utf-8"))
            sites = {str(name): SiteWould(**would) for name, would in raw["sites"].items()}
            return cls(str(raw["at"]), sites, raw["expected"], str(raw["said"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, "it is not what sites told of a dry run") from error
