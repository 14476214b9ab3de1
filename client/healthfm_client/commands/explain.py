"""``explain MODEL STORE --subject ID --target CODE --out FILE``: why a person has a risk.

The page is about one person. It is written for the one who asked and for nobody else, and never
into a folder that is meant to be handed on.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Final

from healthfm_client.commands import Command, say
from healthfm_core.data.store import SiteStore
from healthfm_core.errors import PolicyError, RunError
from healthfm_core.trained import STUDY, WEIGHTS, TrainedModel

HANDED_ON: Final = {
    WEIGHTS: "a model",
    STUDY: "a model or a run",
    "history.jsonl": "a run",
    "metrics.json": "a run's report",
    ".git": "a repository",
}
"""Names that mark a folder whose content is exported, sent or pushed, and what it is."""
OWNER_ONLY: Final = 0o600


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="an exported model")
    parser.add_argument("store", type=Path, metavar="STORE", help="the site's store")
    parser.add_argument("--subject", type=int, required=True, metavar="ID", help="whose risk")
    parser.add_argument(
        "--target",
        action="append",
        required=True,
        metavar="CODE",
        help="a code the model predicts; may be given more than once",
    )
    parser.add_argument(
        "--horizon", type=float, default=365.0, metavar="DAYS", help="risk within so many [365]"
    )
    parser.add_argument(
        "--at", type=_day, metavar="DATE", help="explain the last visit up to YYYY-MM-DD [the last]"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="new HTML file")


def _day(text: str) -> int:
    """Return the end of a day, µs since 1970."""
    end = datetime.combine(date.fromisoformat(text), time.max, UTC)
    return round(end.timestamp() * 1e6)


def run(arguments: Namespace) -> int:
    """Explain, write the page, and say no more than where it is."""
    from healthfm_core.explain import explain, page  # not above: it takes a second to import

    check_stays(arguments.out)
    found = explain(
        TrainedModel.load(arguments.model),
        SiteStore.open(arguments.store),
        arguments.subject,
        targets=tuple(dict.fromkeys(arguments.target)),
        horizon_days=arguments.horizon,
        at_us=arguments.at,
    )
    write_private(arguments.out, page(found))
    say(f"{arguments.out}: about one person; only you can read it, and it stays at this site")
    return 0


def check_stays(file: Path) -> None:
    """Check that a page about a person may be written to `file`.

    Raises:
        RunError: There is something already (HF-711).
        PolicyError: The folder, or one it is in, is handed on (HF-502).
    """
    if file.is_symlink() or file.exists():
        raise _not_written(file, "something is there already")
    for folder in file.resolve().parents:
        for name, what in HANDED_ON.items():
            if (folder / name).exists():
                raise PolicyError(
                    502,
                    where=str(file),
                    seen=f"the folder belongs to {what}",
                    wanted="a page about a person stays where nothing is sent or handed on",
                    do="Name a file in a folder of your own",
                )


def write_private(file: Path, text: str) -> None:
    """Write a new file that nobody but its owner may read, whole or not at all.

    Raises:
        RunError: It is there already, or cannot be written (HF-711).
    """
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError as error:
        raise _not_written(file, "something is there already") from error
    except OSError as error:
        raise _not_written(file, error.strerror or "it cannot be written") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _not_written(file: Path, seen: str) -> RunError:
    return RunError(
        711,
        where=str(file),
        seen=seen,
        wanted="a page about a person is a new file in a folder that is there",
        do="Name another file",
    )


COMMAND = Command("explain", "show what moved one person's risk; stays here", configure, run)
