"""One source in, one checked store per site out, or nothing: `ingest`, and `write_site` of each."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from healthfm_client.ingest.codes.code_mapping import CodeMapping
from healthfm_client.ingest.codes.code_table import CodeTable, describe_codes, read_codes
from healthfm_client.ingest.codes.site_recoding import SiteRecoding
from healthfm_client.ingest.interrupted import (
    WORK,
    output_lock,
    remove_leftovers,
    work_folders,
)
from healthfm_client.ingest.reader_interface import (
    Reader,
    ReaderOptions,
    Site,
    SitesInOneStream,
    WearingStream,
)
from healthfm_client.ingest.reader_registry import find, opened_as_it_is, pointed
from healthfm_client.ingest.site_relinking import relinked
from healthfm_client.ingest.site_splitting import SitePiles, pile_up
from healthfm_client.ingest.source_record import SourceRecord, as_json
from healthfm_client.ingest.tables.archives import SUFFIXES, scratch_folder, unpack
from healthfm_client.ingest.without_forgotten import without_forgotten
from healthfm_core.data.store.draft_folder import draft_beside, publish, refuse_existing
from healthfm_core.data.store.event_spool import EventSpool
from healthfm_core.data.store.event_stream import EventStream
from healthfm_core.data.store.events import ids, sort_events
from healthfm_core.data.store.forgotten_people import ForgottenPeople
from healthfm_core.data.store.genetics import score_events
from healthfm_core.data.store.integrity import read_splits
from healthfm_core.data.store.schemas import EVENTS, SPLITS, WEARABLE, conform
from healthfm_core.data.store.store_draft import StoreDraft
from healthfm_core.data.store.store_files import SPLITS_FILE, WEARABLE_FOLDER, keep_quality
from healthfm_core.data.store.stream_stages import read_into, sorted_and_cleaned
from healthfm_core.data.store.wearables import sort_wearable
from healthfm_core.errors import ConfigError, IngestError

SPLIT_UP: Final = ".by-site"
SPOOL: Final = ".spool"
ShowProgress: TypeAlias = Callable[[str, int, int], None]
"""Shows (what is being done, rows done, rows in all, about)."""
Notify: TypeAlias = Callable[[str], None]
"""Shows a sentence that a person should read."""


def ignore_progress(what: str, done: int, total: int) -> None:
    """Show no progress."""


def ignore_notice(sentence: str) -> None:
    """Show nothing."""


def ingest(
    source: str,
    path: Path,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    show_progress: ShowProgress = ignore_progress,
    notify: Notify = ignore_notice,
    forgotten: ForgottenPeople | None = None,
    **options: object,
) -> list[Path]:
    """Turn raw data into site stores.

    Args:
        source: A reader's name, or ``auto``; ``event_table`` with the option ``preset`` is the
            reader of that name.
        path: File or folder of the raw data.
        out: New folder: ``out/<site>`` for each site, or the store itself for a source that is one
            site. It appears when every store has passed its check, or not at all.
        overwrite: Replace stores that are there.
        resume: After an interruption keep what was read whole of a source that comes as a stream,
            and go on from it where the source and the options are the same.
        show_progress: Shows the rows of a stream as they are read and written.
        notify: Shows what was found of an ingest that was killed.
        forgotten: Whom to leave out; None is whom the store that is replaced has forgotten.
        options: The reader's options by name.

    Returns:
        The stores' folders, by site.

    Raises:
        ConfigError: HF-101, HF-102 for the options.
        IngestError: HF-3xx.
        StoreError: HF-2xx, where what was read would not be a sound store.
    """
    path, out = Path(path), Path(out)
    path = path if path.name else path.resolve()  # errors name it
    with output_lock(out) as locked:
        for notice in remove_leftovers(out) if locked else []:
            notify(notice)
        if not resume and work_folders(out):
            notify("What an interrupted ingest had read is still there; with --resume it is used.")
        with scratch_folder(out) as scratch:
            reader, raw, parsed = opened_source(source, path, scratch, options)
            work = _work_folder(path, out, parsed) if resume else None
            codes = None if parsed.codes is None else read_codes(parsed.codes)
            splits = None if parsed.splits_of is None else read_splits(parsed.splits_of)
            refuse_existing(out, overwrite)
            with draft_beside(out) as draft:
                names: list[str | None] = []
                for site, site_work in read_sites(
                    reader, raw, parsed, draft, work, show_progress, notify
                ):
                    if site.name in names:
                        raise _second(site.name)
                    folder = draft if site.name is None else draft / site.name
                    before = out if site.name is None else out / site.name
                    people = forgotten or ForgottenPeople.of(before)
                    record = SourceRecord.of(reader, parsed, site, path)
                    site = replace(site, splits=joined_splits(splits, site.splits))
                    site = without_forgotten(site, people)
                    write_site(
                        site,
                        folder,
                        site.name or out.name,
                        site_work,
                        codes,
                        show_progress,
                        parsed.max_set_aside,
                        [record],
                    )
                    people.write(folder)
                    keep_quality(before, folder)
                    names.append(site.name)
                if not names:
                    raise IngestError(306, where=out.name, seen="the source gives no site")
                publish(draft, out)
        for folder in work_folders(out):
            shutil.rmtree(folder, ignore_errors=True)
    return [out] if names == [None] else [out / name for name in sorted(filter(None, names))]


def opened_source(
    source: str, path: Path, scratch: Path, options: Mapping[str, object]
) -> tuple[Reader, Path, ReaderOptions]:
    """Return (what reads a source, the source unpacked, the reader's options).

    Raises:
        ConfigError: HF-101, HF-102 for the options.
        IngestError: HF-301, HF-302, HF-310.
    """
    given = dict(options)
    preset = given.pop("preset", None) if source == "event_table" else None
    name = str(preset or source)
    is_archive = path.is_file() and path.name.lower().endswith(SUFFIXES)
    raw = unpack(path, scratch) if is_archive and not opened_as_it_is(name, path) else path
    reader = find(name, raw)
    return reader, raw, parse_options(reader, given)


def read_sites(
    reader: Reader,
    raw: Path,
    options: ReaderOptions,
    draft: Path,
    work: Path | None,
    show_progress: ShowProgress,
    notify: Notify = ignore_notice,
) -> Iterator[tuple[Site, Path | None]]:
    """Yield each site of a source, and where its stream outlasts an interruption.

    A stream of several sites is read to its end and taken apart first. What it is taken apart into
    is kept as a whole; a site of it is written from there again.

    Args:
        reader: What reads the source.
        raw: File or folder, unpacked.
        options: The reader's.
        draft: Where rows wait that need not outlast anything.
        work: Where those wait that shall; None is nowhere.
        show_progress: Shows the rows read.
        notify: Shows what the reader has to say.
    """
    codes = SiteRecoding(CodeMapping(options.map, raw) if options.map else None)
    for given in _given(reader, raw, options):
        for sentence in given.notices:
            notify(sentence)
        linked = given if reader.links else relinked(given, options)
        if isinstance(linked, Site):
            yield codes.recoded(linked), None if work is None else work / (linked.name or "store")
            continue
        piles = SitePiles((work or draft) / SPLIT_UP, resume=work is not None)
        for rows in pile_up(linked, piles, keep=work is not None):
            show_progress("reading", rows, linked.stream.rows)
        for site in piles.sites(linked):
            yield codes.recoded(site), None
        if work is None:
            piles.remove()


def _given(reader: Reader, raw: Path, options: ReaderOptions) -> Iterator[Site | SitesInOneStream]:
    """Yield what a reader gives; where it was pointed at the wrong thing, say what is the right."""
    try:
        yield from reader.read(raw, options)
    except IngestError as error:
        raise pointed(error, reader, raw) from error


def joined_splits(first: pa.Table | None, second: pa.Table | None) -> pa.Table | None:
    """Return two tables of splits as one; whoever is in both keeps the split of the first."""
    if first is None or second is None:
        return second if first is None else first
    own = conform(second, SPLITS, SPLITS_FILE)
    return pa.concat_tables([first, own.filter(pa.array(~np.isin(ids(own), ids(first))))])


def write_site(
    site: Site,
    folder: Path,
    name: str,
    work: Path | None = None,
    codes: CodeTable | None = None,
    show_progress: ShowProgress = ignore_progress,
    max_set_aside: float = 1.0,
    sources: Sequence[SourceRecord] = (),
) -> None:
    """Write one site's store: events are read, sorted, cleaned and written, then all about them.

    Args:
        site: What a reader gives.
        folder: The store in the making.
        name: The store's, unless the site has a title.
        work: Where what was read of a stream outlasts an interruption; None is nowhere.
        codes: What the site's own file says of codes.
        show_progress: Shows the rows of a stream.
        max_set_aside: Share of the rows that may be set aside.
        sources: What is noted of where the rows are from.

    Raises:
        IngestError: HF-306, HF-309, HF-311, HF-315, and what reading a stream raises.
        StoreError: HF-2xx.
    """
    with closing(StoreDraft(folder, site.title or name, site.splits)) as draft:
        at = draft.name
        scores = []
        if site.scores is not None:
            scores = [score_events(site.scores, f"{at}: polygenic scores")]
        texts: dict[str, str] = {}
        source_codes: Mapping[tuple[str, str], int] = {}
        draft.note_not_read(site.not_read)
        if site.stream is not None:
            texts, source_codes = write_stream(site.stream, scores, draft, work, show_progress)
        else:
            events = EVENTS.empty_table() if site.events is None else site.events
            events = conform(events, EVENTS, f"{at}: events")
            draft.write_events(sort_events(pa.concat_tables([events, *scores])))
        for reason, rows in site.rejected.items():
            draft.write_rejected(reason, rows)
        for device, table in site.wearables.items():
            rows = conform(table, WEARABLE, f"{at}: {WEARABLE_FOLDER}/{device}")
            draft.write_wearable(device, sort_wearable(rows))
        if site.wearing is not None:
            write_wearing(site.wearing, draft, show_progress)
        draft.close()
        refuse_emptied(draft, max_set_aside)
        draft.write_splits()
        for task, labels in site.labels.items():
            draft.write_labels(task, labels, of_anyone=site.stream is not None)
        normalisation = site.normalisation if scores else ""
        draft.write_codes(describe_codes(site, draft.codes, texts, codes), normalisation)
        draft.write_source_codes({**site.source_codes, **source_codes})
        draft.check_and_mark(normalisation, as_json(sources))


def write_wearing(wearing: WearingStream, draft: StoreDraft, show_progress: ShowProgress) -> None:
    """Write wearables part by part, of which a few are in memory at a time."""
    for done, part in enumerate(wearing.parts, 1):
        for device, table in part.wearables.items():
            rows = conform(table, WEARABLE, f"{draft.name}: {WEARABLE_FOLDER}/{device}")
            draft.add_wearable(device, rows)
        for reason, rejected in part.rejected.items():
            draft.write_rejected(reason, rejected)
        draft.note_not_read(part.not_read)
        show_progress("reading people", done, wearing.people)
    draft.end_wearables()


def write_stream(
    stream: EventStream,
    scores: list[pa.Table],
    draft: StoreDraft,
    work: Path | None,
    show_progress: ShowProgress,
) -> tuple[dict[str, str], Mapping[tuple[str, str], int]]:
    """Write the events of a stream by way of a spool.

    Returns:
        (what the source says codes mean, what a mapping replaced).
    """
    place, keep = work or draft.folder / SPOOL, work is not None
    spool = EventSpool(place, draft.name, resume=keep, expected=stream.rows)
    for rows_read in read_into(spool, stream, keep=keep):
        show_progress("reading", rows_read, stream.rows)
    for table in scores:
        spool.add(table)
    draft.note_not_read(spool.not_read)
    for rejected in spool.rejected():
        draft.write_rejected(rejected.reason, rejected.rows)
    rows_written = 0
    for group in sorted_and_cleaned(spool, stream):
        draft.write_group(group.events, texts=spool.has_text)
        rows_written += group.events.num_rows
        for reason, rows in group.rejected.items():
            draft.write_rejected(reason, rows)
            rows_written += rows.num_rows
        show_progress("writing", rows_written, spool.rows)
    draft.close()
    if not keep:
        spool.remove()
    return spool.texts, spool.source_codes


def refuse_emptied(draft: StoreDraft, most: float, known: Collection[str] = ()) -> None:
    """Raise HF-315 where too many rows are set aside, or all of a domain of codes.

    Args:
        draft: With every event written.
        most: Share of the rows that may be set aside.
        known: Codes of the source beside those that were written.
    """
    aside = draft.set_aside
    lost = aside.lost_domains({code.partition("//")[0] for code in (*draft.codes, *known)})
    if most >= 1 or not (aside.is_much(most) or lost):
        return
    whole = f"; of {', '.join(lost)} nothing is left" if lost else ""
    shifted = "" if not aside.latest else _SHIFTED.format(year=int(aside.latest[:4]))
    raise IngestError(
        315,
        where=draft.name,
        seen=aside.sentence() + whole,
        wanted=f"at most {100 * most:g} %, and something of each kind",
        do=f"{shifted}Correct the export, or keep the rest with --max-set-aside 1",
    )


_SHIFTED: Final = (
    "If the source shifts its dates into the future, as MIMIC does, give --today {year}-12-31. "
)


def parse_options(reader: Reader, options: dict[str, object]) -> ReaderOptions:
    """Return the options, checked.

    Raises:
        ConfigError: HF-101 for an unknown one, HF-102 for a wrong value.
    """
    try:
        return reader.options.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        unknown = first["type"] == "extra_forbidden"
        known = ", ".join(reader.options.model_fields)
        raise ConfigError(
            101 if unknown else 102,
            where=f"{reader.name}, option {'.'.join(map(str, first['loc']))}",
            seen="it is unknown" if unknown else str(first["msg"]).removeprefix("Value error, "),
            wanted=f"the options are {known}",
            do="Correct the option",
        ) from error


def _work_folder(path: Path, out: Path, options: ReaderOptions) -> Path:
    """Return the folder that outlasts an interruption; those of other sources to `out` go."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    files += [file for path in options.files_beside() for file in (path, *path.glob("*"))]
    facts = [(f.as_posix(), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    said = f"{facts}{options.model_dump_json(exclude={'workers'})}{version('healthfm')}"
    work = out.parent / f".{out.name}{WORK}{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    for other in work_folders(out):
        if other != work:
            shutil.rmtree(other, ignore_errors=True)
    return work


def _second(name: str | None) -> IngestError:
    return IngestError(
        304,
        where=str(name),
        seen="two sites of the source take this folder name",
        wanted="names are wanted that differ in their letters and digits",
        do="Rename the sites in the source",
    )
