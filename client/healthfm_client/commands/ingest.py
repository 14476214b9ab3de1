"""``ingest SOURCE PATH --out DIR``: raw data in, checked site stores out, or nothing.

``--into STORE`` adds what another source has of a store's people to it; ``--update`` what is new in
the source that the store was made of.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args, get_origin

from healthfm_client.commands.describe import as_text
from healthfm_client.ingest import ingest, ingest_into, update_store
from healthfm_client.ingest.interrupted import output_lock, remove_leftovers
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions
from healthfm_client.ingest.reader_registry import AUTO, readers
from healthfm_client.ingest.update_writing import PEOPLE, ROWS
from healthfm_client.progress_bar import progress_bar
from healthfm_client.site_store.description.facts import describe
from healthfm_core.command_line import Command
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_core.stdout import say

SHOWN = 12
"""Stores that get a line of their own."""
THRESHOLD = 20
"""Counts under it are not printed."""


def arguments(parser: ArgumentParser) -> None:
    """Add a parser per reader, with the reader's options as flags."""
    sources = parser.add_subparsers(metavar="SOURCE", required=True, dest="source")
    known = {
        reader.name: (reader.summary, _about(reader), reader.options)
        for reader in readers().values()
    }
    whichever = "whichever reader recognises the path"
    known |= {AUTO: (whichever, whichever, ReaderOptions)}
    for name, (summary, about, options) in known.items():
        its = sources.add_parser(name, help=summary, description=about)
        its.add_argument("path", type=Path, metavar="PATH", help="file or folder of the raw data")
        where = its.add_mutually_exclusive_group(required=True)
        where.add_argument("--out", type=Path, metavar="DIR", help="new folder")
        where.add_argument(
            "--into", type=Path, metavar="STORE", help="store whose people these are, added to it"
        )
        its.add_argument("--overwrite", action="store_true", help="replace stores that are there")
        its.add_argument(
            "--resume", action="store_true", help="after an interruption, go on from what was read"
        )
        its.add_argument(
            "--update",
            choices=(ROWS, PEOPLE),
            help="add to the store --out what is new: PATH has new rows, or people with all of "
            "their rows, in place of those before",
        )
        its.add_argument(
            "--remove-absent",
            action="store_true",
            help="with --update people: take out who is not in PATH, which is the whole source",
        )
        its.add_argument(
            "--dry-run", action="store_true", help="do it all, say what came of it, keep nothing"
        )
        for option in options.model_fields:
            _add_flag(its, options, option)


def _about(reader: Reader) -> str:
    """Return what ``ingest SOURCE --help`` says of a source."""
    parts = {"Reads": reader.reads, "Not read": reader.not_read, "Tried on": reader.tried_on}
    said = [f"{what}: {text}." for what, text in parts.items() if text]
    return " ".join([f"{reader.summary}.", *said]).replace("%", "%%")


def _add_flag(parser: ArgumentParser, options: type[ReaderOptions], name: str) -> None:
    field = options.model_fields[name]
    said: dict[str, Any] = {"dest": f"option_{name}", "default": SUPPRESS}
    said["help"] = (field.description or "").replace("%", "%%")
    if field.annotation is bool:
        said["action"] = BooleanOptionalAction
    elif get_origin(field.annotation) is tuple:
        said |= {"nargs": "+", "metavar": name.upper()}
    elif get_origin(field.annotation) is Literal:
        said["choices"] = get_args(field.annotation)
    else:
        said["metavar"] = name.upper()
    parser.add_argument(f"--{name.replace('_', '-')}", **said)


def run(given: Namespace) -> int:
    """Ingest, and print a line per store (a few of many) and one of all."""
    out: Path = given.out or given.into
    _refuse_output_flags(given)
    if not given.dry_run:
        _report([SiteStore.open(path) for path in _ingested(given, out)], given.update is None)
        return 0
    with output_lock(out) as locked:
        for notice in remove_leftovers(out) if locked else []:
            say(notice)
        with TemporaryDirectory(prefix=f".{out.name}.dry-run-", dir=out.parent) as folder:
            paths = _ingested(given, Path(folder) / out.name)
            stores = [SiteStore.open(path) for path in paths]
            _report(stores, given.update is None)
            for store in stores[:SHOWN]:
                say(as_text(describe(store, THRESHOLD)))
    say("Nothing was kept: this was a dry run.")
    return 0


def _refuse_output_flags(given: Namespace) -> None:
    """Raise HF-102 for flags that do not go with another."""
    about_output = [name for name in ("overwrite", "resume") if getattr(given, name)]
    if given.update is not None and given.into is not None:
        raise _refused("update", "--into adds another source to a store", _TO_ITS_OWN)
    if given.into is not None and about_output:
        raise _refused(about_output[0], "--into adds to a store", _WHOLE)
    if given.update is not None and about_output:
        raise _refused(about_output[0], "--update adds to a store", _WHOLE)
    if given.remove_absent and given.update != PEOPLE:
        raise _refused("remove-absent", "it is no update of people", _WHOLE_SOURCE)


_WHOLE = "the store is replaced by the whole, or stays as it is"
_TO_ITS_OWN = "an update goes to the store that was made of the source, with --out"
_WHOLE_SOURCE = "only of a whole source can be told who is gone from it: --update people"


def _refused(flag: str, seen: str, wanted: str) -> ConfigError:
    return ConfigError(102, where=f"--{flag}", seen=seen, wanted=wanted, do="Leave the flag out")


def _ingested(given: Namespace, out: Path) -> list[Path]:
    named = vars(given).items()
    options = {k.removeprefix("option_"): v for k, v in named if k.startswith("option_")}
    with progress_bar() as progress:
        if given.into is not None:
            whole = ingest_into(
                given.source,
                given.path,
                given.into,
                out=out,
                show_progress=progress,
                notify=say,
                **options,
            )
            return [whole]
        if given.update is not None:
            updated = update_store(
                given.source,
                given.path,
                given.out,
                given.update,
                remove_absent=given.remove_absent,
                out=out,
                show_progress=progress,
                notify=say,
                **options,
            )
            return [updated]
        return ingest(
            given.source,
            given.path,
            out,
            overwrite=given.overwrite,
            resume=given.resume and not given.dry_run,
            show_progress=progress,
            notify=say,
            **options,
        )


def _report(stores: list[SiteStore], whole: bool) -> None:
    """Print what stores hold; their modalities, told by every row, not after an update."""
    people = [len(store.subjects()) for store in stores]
    held = [", ".join(["", *sorted(store.modalities)]) if whole else "" for store in stores[:SHOWN]]
    rejected: Counter[str] = Counter()
    not_read: Counter[str] = Counter()
    for store in stores:
        rejected.update(store.rejected)
        not_read.update(store.not_read)
    for store, subjects, modalities in zip(stores, people, held, strict=False):
        say(f"{store.path}: {_count(subjects)} subjects{modalities}")
    if len(stores) > SHOWN:
        say(f"… and {len(stores) - SHOWN} more")
    say(f"{len(stores)} store{'s' * (len(stores) != 1)}, {_count(sum(people))} subjects")
    mapped = [store.mapped for store in stores]
    if any(rows for rows, _ in mapped):
        rows, codes = (sum(counts) for counts in zip(*mapped, strict=True))
        say(f"mapped: {_count(rows)} rows of {codes:,} codes of the source")
    if rejected:
        say(f"set aside in rejected/: {_counts(rejected)}")
    if not_read:
        say(f"not read: {_counts(not_read)}")


def _counts(of: Counter[str]) -> str:
    return ", ".join(f"{_count(n)} {what}" for what, n in sorted(of.items()))


def _count(number: int) -> str:
    return f"<{THRESHOLD}" if 0 < number < THRESHOLD else f"{number:,}"


COMMAND = Command("convert raw data to site stores", run, arguments)
