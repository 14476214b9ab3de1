"""Medications of earlier exports, beside those of an export of what changed since.

A prescription names its drug by a reference to a Medication. One that has not changed is not
exported again, and without it a new prescription would have no code.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from healthfm_core.errors import IngestError

CARRIED: Final = "Medication.0000.ndjson"
"""Sorts before the export's own files, so that of two versions of a drug theirs is the later."""


def carry_medications(earlier: Path, folder: Path) -> int:
    """Put the Medications of an earlier export into one file of another; return how many bytes.

    The file is there even with nothing in it, so that ``ingest`` takes a folder in which nothing
    has changed for what it is.

    Raises:
        IngestError: HF-334 where the earlier folder is gone.
    """
    if not earlier.is_dir():
        raise IngestError(
            334,
            where=str(earlier),
            seen="the folder given with --since is gone, and with it the names of its drugs",
            wanted="the folder of the export before",
            do="Put it back, or cancel with --cancel and begin anew",
        )
    files = sorted(earlier.glob("Medication.*.ndjson"))
    part = folder / f"{CARRIED}.part"
    with part.open("wb") as out:
        for file in files:
            with file.open("rb") as lines:
                shutil.copyfileobj(lines, out)
    part.replace(folder / CARRIED)
    return (folder / CARRIED).stat().st_size
