"""One source in, one checked store per site out, or nothing."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from healthfm_client.ingest.codes.code_table import CodeTable, read_codes, with_codes
from healthfm_client.ingest.interrupted import WORK, Tell, claimed, untold, work_folders
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site, SitesInOneStream
from healthfm_client.ingest.site_relinking import relinked
from healthfm_client.ingest.site_splitting import split_up
from healthfm_client.ingest.tables.archives import unpacked
from healthfm_core.data.store.event_stream import Progress, unseen
from healthfm_core.data.store.writer import Replacing, StoreWriter
from healthfm_core.errors import ConfigError, IngestError

SPLIT_UP: Final = ".by-site"


def ingest(
    source: str,
    path: Path,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = unseen,
    tell: Tell = untold,
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
        progress: Told of the rows of a stream as they are read and written.
        tell: Told what was found of an ingest that was killed, in a sentence.
        options: The reader's options by name.

    Returns:
        The stores' folders, by site.

    Raises:
        ConfigError: HF-101, HF-102 for the options.
        IngestError: HF-3xx.
        StoreError: HF-2xx, where what was read would not be a sound store.
    """
    with claimed(Path(out), tell):
        if not resume and work_folders(Path(out)):
            tell("What an interrupted ingest had read is still there; with --resume it is used.")
        done = _ingest(source, Path(path), Path(out), overwrite, resume, progress, options)
        for folder in work_folders(Path(out)):
            shutil.rmtree(folder, ignore_errors=True)
        return done


def _ingest(
    source: str,
    path: Path,
    out: Path,
    overwrite: bool,
    resume: bool,
    progress: Progress,
    options: dict[str, object],
) -> list[Path]:
    from healthfm_client.ingest.reader_registry import find

    preset = options.pop("preset", None) if source == "event_table" else None
    with unpacked(path, out) as place:
        reader = find(str(preset or source), place)
        parsed = parse_options(reader, options)
        sites: Iterator[Site | SitesInOneStream] = iter(reader.read(place, parsed))
        if not reader.links:
            sites = relinked(sites, parsed)
        work = _work(path, out, parsed) if resume else None
        codes = None if parsed.codes is None else read_codes(parsed.codes)
        return write_sites(
            sites, out, overwrite=overwrite, work=work, progress=progress, codes=codes
        )


def _work(path: Path, out: Path, options: ReaderOptions) -> Path:
    """Return the folder that outlasts an interruption; those of other sources to `out` go."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    facts = [(f.as_posix(), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    said = f"{facts}{options.model_dump_json(exclude={'workers'})}{version('healthfm')}"
    work = out.parent / f".{out.name}{WORK}{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    for other in work_folders(out):
        if other != work:
            shutil.rmtree(other, ignore_errors=True)
    return work


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
            seen="it is unknown" if unknown else str(first["msg"]),
            wanted=f"the options are {known}",
            do="Correct the option.",
        ) from error


def write_sites(
    sites: Iterable[Site | SitesInOneStream],
    out: Path,
    *,
    overwrite: bool,
    work: Path | None = None,
    progress: Progress = unseen,
    codes: CodeTable | None = None,
) -> list[Path]:
    """Write one store per site, all of them or none.

    Args:
        sites: What a reader gives.
        out: See `ingest`.
        overwrite: Replace stores that are there.
        work: Where what was read of a stream outlasts an interruption; None is nowhere.
        progress: Told of the rows of streams.
        codes: What the site's own file says of codes.

    Raises:
        IngestError: HF-304 where `out` exists, HF-306 where there is no site.
        StoreError: HF-2xx.
    """
    names: list[str] = []
    with Replacing(out, overwrite=overwrite) as folder:
        for one, place in _one_by_one(sites, folder, work, progress):
            site = with_codes(one, codes)
            if site.name is None:
                folder.rmdir()
                _write(site, folder, out.name, place, progress)
                return [out]
            if site.name in names:
                raise _two_of_a_name(site.name)
            _write(site, folder / site.name, site.name, place, progress)
            names.append(site.name)
        if not names:
            raise IngestError(
                306,
                where=out.name,
                seen="the source gives no site",
                wanted="at least one with people is wanted",
                do="Check the source's export.",
            )
    return [out / name for name in sorted(names)]


def _two_of_a_name(name: str) -> IngestError:
    return IngestError(
        304,
        where=name,
        seen="two sites of the source take this folder name",
        wanted="names are wanted that differ in their letters and digits",
        do="Rename the sites in the source.",
    )


def _one_by_one(
    sites: Iterable[Site | SitesInOneStream], folder: Path, work: Path | None, progress: Progress
) -> Iterator[tuple[Site, Path | None]]:
    """Yield each site and where its stream outlasts an interruption.

    What was taken apart by site is kept as a whole; a site of it is written from there again.
    """
    for site in sites:
        if isinstance(site, Site):
            yield site, None if work is None else work / (site.name or "store")
        else:
            place = (folder if work is None else work) / SPLIT_UP
            for one in split_up(site, place, progress, keep=work is not None):
                yield one, None


def _write(site: Site, folder: Path, name: str, work: Path | None, progress: Progress) -> None:
    title = site.title or name
    with StoreWriter(folder, dataset_name=title, work=work, progress=progress) as writer:
        if site.events is not None:
            writer.events(site.events)
        if site.stream is not None:
            writer.stream(site.stream)
        for device, table in site.wearables.items():
            writer.wearable(device, table)
        if site.scores is not None:
            writer.scores(site.scores, normalisation=site.normalisation)
        for task, table in site.labels.items():
            writer.labels(task, table, of_anyone=site.stream is not None)
        for reason, table in site.rejected.items():
            writer.rejected(reason, table)
        if site.codes is not None:
            writer.codes(site.codes)
        writer.splits(site.splits)
