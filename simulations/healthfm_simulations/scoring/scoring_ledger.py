"""How many runs on this machine have scored the same test people, so that their reader knows.

A file beside the runs, ``test-scorings.json``: a fingerprint of task, protocol and test people →
the runs that scored them. It holds hashes and names of run folders, nothing of anybody. It knows
this machine's runs alone, and counts runs, not looks at a report.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from healthfm_core.config import RunConfig
from healthfm_core.errors import RunError
from healthfm_server.run_folder.durable_files import replace_file
from healthfm_simulations.cross_validation import CrossValidationFold

LEDGER_FILE: Final = "test-scorings.json"
RUNS: Final = "runs"
"""Folder of runs, by default: the ledger is in the nearest one of that name above a run."""


def note_scoring(config: RunConfig, folds: Sequence[CrossValidationFold], out: Path) -> str:
    """Write down that the run in `out` scored the folds' test people; return what to say of it.

    A run that is resumed is the same run; one with other settings in the same folder is another.

    Raises:
        RunError: The ledger is damaged (HF-703) or cannot be written (HF-725).
    """
    path = ledger_of(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    run = hashed(f"{out.resolve()} {config.model_dump_json(exclude={'out', 'resume'})}")
    key = fingerprint(config, folds)
    with (path.parent / f".{LEDGER_FILE}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ledger = _read(path)
        runs = ledger.setdefault(key, [])
        if run not in runs:
            runs.append(run)
            replace_file(path, [json.dumps(ledger, indent=1).encode()])
    return sentence(len(runs))


def sentence(count: int) -> str:
    """Return what a reader of the figures has to know."""
    if count == 1:
        return "These test people have been scored once on this machine, by this run."
    return (
        f"These test people have been scored by {count} runs on this machine: if a setting was "
        "chosen by what those showed, this is no longer a fair test of it (healthfm-tune "
        "chooses without them)."
    )


def ledger_of(out: Path) -> Path:
    """Return the ledger of the runs that `out` is among."""
    above = [folder for folder in out.resolve().parents if folder.name == RUNS]
    return (above[0] if above else out.resolve().parent) / LEDGER_FILE


def fingerprint(config: RunConfig, folds: Sequence[CrossValidationFold]) -> str:
    """Return a hash of task, protocol and test people, whatever the fold or site they are in."""
    people = sorted(
        {
            hashed(f"{site.name}/{subject}")
            for fold in folds
            for site in fold.test
            for subject in site.view().subjects(fold.split).tolist()
        }
    )
    evaluation = config.evaluation
    late = f"{evaluation.late_days:g}" if evaluation.protocol == "late" else ""
    return hashed("\n".join([config.data.source, evaluation.task, late, *people]))


def hashed(text: str) -> str:
    """Return the first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        return {}
    try:
        ledger = json.loads(path.read_text("utf-8"))
        return {str(key): [str(run) for run in runs] for key, runs in ledger.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise RunError(
            703,
            where=path.name,
            seen="it is not a ledger of scorings",
            wanted="the file as it was written",
            do="Put it back from a backup, or delete it: the count then begins anew",
        ) from error
