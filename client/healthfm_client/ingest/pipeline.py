"""One source in, one checked store per site out, or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from healthfm_client.ingest.reader import Reader, ReaderOptions, Site
from healthfm_core.data.writer import Replacing, StoreWriter
from healthfm_core.errors import ConfigError, IngestError


def ingest(
    source: str, path: Path, out: Path, *, overwrite: bool = False, **options: object
) -> list[Path]:
    """Turn raw data into site stores.

    Args:
        source: A reader's name, or ``auto``; ``event_table`` with the option ``preset`` is the
            reader of that name.
        path: File or folder of the raw data.
        out: New folder: ``out/<site>`` for each site, or the store itself for a source that is one
            site. It appears when every store has passed its check, or not at all.
        overwrite: Replace stores that are there.
        options: The reader's options by name.

    Returns:
        The stores' folders, by site.

    Raises:
        ConfigError: HF-101, HF-102 for the options.
        IngestError: HF-3xx.
        StoreError: HF-2xx, where what was read would not be a sound store.
    """
    from healthfm_client.ingest.registry import find

    preset = options.pop("preset", None) if source == "event_table" else None
    reader = find(str(preset or source), Path(path))
    parsed = parse_options(reader, options)
    return write_sites(reader.read(Path(path), parsed), Path(out), overwrite=overwrite)


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


def write_sites(sites: Iterable[Site], out: Path, *, overwrite: bool) -> list[Path]:
    """Write one store per site, all of them or none.

    Raises:
        IngestError: HF-304 where `out` exists, HF-306 where there is no site.
        StoreError: HF-2xx.
    """
    names: list[str] = []
    with Replacing(out, overwrite=overwrite) as folder:
        for site in sites:
            if site.name is None:
                folder.rmdir()
                _write(site, folder, out.name)
                return [out]
            if site.name in names:
                raise IngestError(
                    304,
                    where=site.name,
                    seen="two sites of the source take this folder name",
                    wanted="names are wanted that differ in their letters and digits",
                    do="Rename the sites in the source.",
                )
            _write(site, folder / site.name, site.name)
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


def _write(site: Site, folder: Path, name: str) -> None:
    with StoreWriter(folder, dataset_name=site.title or name) as writer:
        if site.events is not None:
            writer.events(site.events)
        for device, table in site.wearables.items():
            writer.wearable(device, table)
        if site.scores is not None:
            writer.scores(site.scores, normalisation=site.normalisation)
        for task, table in site.labels.items():
            writer.labels(task, table)
        for reason, table in site.rejected.items():
            writer.rejected(reason, table)
        if site.codes is not None:
            writer.codes(site.codes)
        writer.splits(site.splits)
