"""Makes docs/readers.md from the readers: python -m tests.readers_page > docs/readers.md."""

from __future__ import annotations

import sys

from healthfm_client.ingest.reader_interface import Reader
from healthfm_client.ingest.reader_registry import readers

HEAD = """# What is read

Made from the readers of `healthfm-client ingest` by `python -m tests.readers_page >
docs/readers.md`; a test fails when the two differ. `healthfm-client ingest SOURCE --help` says the
same of one. What cannot be true (later than today, before birth, beyond a variable's limits) is
set aside with its reason by every reader and counted ([how](adding-a-reader.md)). Sex, race,
ethnicity, visits and death have one spelling, whatever the source's
([why](decisions/0052-the-same-words.md)).

| source | what it reads | what it does not | tried on |
|---|---|---|---|
"""

TAIL = """
## What no reader reads

| source | what to use |
|---|---|
"""

NO_READER = {
    "clinical notes, reports as text": "a tool that finds concepts in text (cTAKES, medspaCy), "
    "inside the site; its codes as an `event_table`",
    "HL7 version 2 messages, C-CDA documents": "the interface engine's export as FHIR R4, or "
    "Microsoft's FHIR-Converter; then `fhir`",
    "ECG and other waveforms (WFDB, DICOM, EDF)": "what the device or a cardiologist found in them "
    "(intervals, rhythm) as LOINC codes in an `event_table`",
    "images (DICOM)": "findings as codes, likewise",
    "a FHIR server": "its bulk export by `fhir-export` ([how](fhir-server.md)); then `fhir`",
    "a database that is not OMOP's": "a table each exported as Parquet or CSV; then `tables`",
    "OMOP in SQL Server, Oracle, Snowflake, BigQuery, Databricks": "each table unloaded as Parquet "
    "([how](omop-in-a-database.md)); then `omop`",
    "raw accelerometers of other makers": "the minutes of the maker's or GGIR's epochs",
}
"""Kind of data → the way in that there is."""


def row(reader: Reader) -> str:
    """Return a reader's line of the table."""
    cells = (f"`{reader.name}`: {reader.summary}", reader.reads, reader.not_read, reader.tried_on)
    return "| " + " | ".join(cells) + " |\n"


def page() -> str:
    """Return docs/readers.md."""
    others = "".join(f"| {kind} | {way} |\n" for kind, way in NO_READER.items())
    return HEAD + "".join(row(reader) for reader in readers().values()) + TAIL + others


if __name__ == "__main__":
    sys.stdout.write(page())
