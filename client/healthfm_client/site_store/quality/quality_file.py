"""What the last check found, kept in the store: for doctor, and to see what drifts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from healthfm_client.site_store.quality.checks import CodeFacts, QualityCheck, check_quality
from healthfm_client.site_store.quality.limits import QualityLimits
from healthfm_core.data.store.store_files import MARKER_FILE, QUALITY_FILE
from healthfm_core.trust import files


@dataclass(frozen=True)
class QualityReport:
    """The quality of a store as it was found.

    Attributes:
        store: The store's folder.
        checked: When, ISO 8601 in UTC.
        written: When the store was written, in ns of its dataset.json.
        checks: What was found.
        facts: What the next time is compared with.
        before: What this time was compared with; None where there was no earlier one.
    """

    store: Path
    checked: str
    written: int
    checks: Sequence[QualityCheck]
    facts: CodeFacts
    before: CodeFacts | None

    @property
    def failed(self) -> list[QualityCheck]:
        """The checks that found more than they may."""
        return [check for check in self.checks if check.failed]

    @property
    def is_of_this_store(self) -> bool:
        """Whether the store is as it was checked."""
        return self.written == _written(self.store)

    def sentence(self) -> str:
        """Return it in words."""
        return f"{len(self.failed)} of {len(self.checks)} checks of quality fail"

    def as_json(self) -> dict[str, Any]:
        """Return it for people and programs, without what is kept for the next time."""
        return {
            "store": self.store.name,
            "checked": self.checked,
            "checks": [check.as_row() for check in self.checks],
        }


def check_and_keep(path: Path, limits: QualityLimits) -> QualityReport:
    """Check a store's quality, and keep what was found beside its other metadata.

    Where the store was written anew since the last check, what has drifted is looked at too.

    Raises:
        StoreError: HF-2xx where it is no sound store.
    """
    last = last_report(path)
    before = None
    if last is not None:
        before = last.before if last.is_of_this_store else last.facts
    checks, facts = check_quality(path, limits, before)
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    report = QualityReport(path, now, _written(path), checks, facts, before)
    kept = {
        "checked": report.checked,
        "written": report.written,
        "checks": [asdict(check) for check in report.checks],
        "facts": asdict(facts),
        "before": None if before is None else asdict(before),
    }
    files.replace(path / QUALITY_FILE, (json.dumps(kept, indent=1) + "\n").encode(), files.PRIVATE)
    return report


def last_report(path: Path) -> QualityReport | None:
    """Return what was found last; None where nobody looked, or it cannot be read."""
    try:
        said = json.loads((path / QUALITY_FILE).read_text("utf-8"))
        before = said["before"]
        return QualityReport(
            path,
            str(said["checked"]),
            int(said["written"]),
            [QualityCheck(**check) for check in said["checks"]],
            _facts(said["facts"]),
            None if before is None else _facts(before),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _facts(said: dict[str, Any]) -> CodeFacts:
    quartiles = {code: (cuts[0], cuts[1], cuts[2]) for code, cuts in said["quartiles"].items()}
    return CodeFacts(said["people"], said["rows"], quartiles)


def _written(path: Path) -> int:
    return (path / MARKER_FILE).stat().st_mtime_ns
