"""The error codes 3xx, of turning raw data into stores; see `error_codes`."""

from __future__ import annotations

from typing import Final

from healthfm_core.error_entry import ErrorCode

INGEST_CODES: Final[dict[int, ErrorCode]] = {
    301: ErrorCode(
        "the input does not exist", wanted="a source to read is wanted", do="Check the path"
    ),
    302: ErrorCode("no reader recognises the input", do="Name the source"),
    303: ErrorCode(
        "an input file cannot be read",
        wanted="a whole file is wanted, text in UTF-8 or in the encoding named",
        do="Export or copy the file again",
    ),
    304: ErrorCode(
        "the output exists already",
        wanted="a new name is wanted, since nothing is replaced unasked",
    ),
    305: ErrorCode("an identifier is missing"),
    306: ErrorCode(
        "the input holds no usable row",
        wanted="at least one is wanted",
        do="Check the source's export",
    ),
    307: ErrorCode("a column is missing from the input", do="Check the source's export"),
    308: ErrorCode("a column of the input has the wrong type", do="Check the source's export"),
    309: ErrorCode(
        "the input has too many distinct codes",
        wanted="codes of a vocabulary are wanted, not texts or identifiers",
        do="Check which column is taken as the code",
    ),
    310: ErrorCode(
        "an archive or compressed file is not safe to unpack",
        do="Check where it comes from, or unpack it yourself and name the folder",
    ),
    311: ErrorCode(
        "the disk is nearly full",
        wanted="space for the events on their way is wanted, about 30 bytes each",
        do="Free some space, or name an output folder on another disk",
    ),
    312: ErrorCode("a package that is needed for it is not installed"),
    313: ErrorCode(
        "another ingest is writing there",
        wanted="one at a time is wanted",
        do="Wait for it to end, or name another folder",
    ),
    314: ErrorCode(
        "a process that reads the input was killed",
        wanted="all of them are wanted to the end",
        do="Give fewer --workers, or end other programs",
    ),
    315: ErrorCode(
        "most of the source would be set aside",
        do="Correct the export, or keep the rest with --max-set-aside 1",
    ),
    316: ErrorCode("a store knows nobody of the source that is to go into it"),
    317: ErrorCode("a source of several sites is to go into one store"),
    318: ErrorCode(
        "a database is described wrong, or too openly",
        wanted='[database] with url = "postgresql://USER@HOST:PORT/DATABASE" and schema',
        do="Correct the file",
    ),
    319: ErrorCode(
        "a file of the source has changed since it was read",
        wanted="new rows in a file of their own are wanted, since of a changed one nobody can tell "
        "which rows are new",
        do="Give the new rows alone, or whole people with --update people",
    ),
    320: ErrorCode("a store was not made of the source that is to update it"),
    321: ErrorCode(
        "too many people of a store are not in the source",
        do="Leave --remove-absent out where PATH is a part of the source",
    ),
    322: ErrorCode(
        "polygenic scores are standardised over the people of the source",
        wanted="scores that one person's record decides are wanted for an update (Z_norm2)",
        do="Ingest all scores again; nothing was changed",
    ),
    327: ErrorCode(
        "a FHIR server is described wrong, or too openly",
        wanted='[server] with url = "https://...", client_id and key',
        do="Correct the file (docs/fhir-server.md)",
    ),
    328: ErrorCode(
        "a FHIR server cannot be reached",
        wanted="an answer over TLS",
        do="Check the address and the way to it, then give --resume if the export had begun",
    ),
    329: ErrorCode(
        "a FHIR server's answer is not understood, or too large",
        wanted="an answer as SMART Backend Services and Bulk Data Access have it",
        do="Check url in the server file; else tell the FHIR server's administrator",
    ),
    330: ErrorCode(
        "a FHIR server gives no token, or does not take it",
        wanted="a token for this client_id and key",
        do="Have client_id and the key's public half (healthfm-client fhir-key --show) registered "
        "at the server",
    ),
    331: ErrorCode(
        "a FHIR server did not bring an export to its end",
        wanted="an export of the types asked for",
        do="Tell the FHIR server's administrator, or ask for fewer types",
    ),
    332: ErrorCode(
        "a FHIR server leads to a host that was not named",
        wanted="the server itself, or one of hosts in the server file",
    ),
    333: ErrorCode(
        "a file of a FHIR server's export is not whole",
        wanted="a resource a line (NDJSON), to the last one",
        do="Give --resume; if it stays so, tell the FHIR server's administrator",
    ),
    334: ErrorCode(
        "a folder is not that of the FHIR export meant",
        wanted="an empty or new folder",
        do="Name a new folder, or go on with --resume",
    ),
    335: ErrorCode("a mapping file cannot be read", do="Correct it (docs/any-tables.md)"),
    336: ErrorCode("an entry of a mapping file is wrong", do="Correct it (docs/any-tables.md)"),
    337: ErrorCode(
        "a mapping file's expression is not understood", do="Correct it (docs/any-tables.md)"
    ),
    338: ErrorCode("a table to be joined has several rows for one key"),
    350: ErrorCode(
        "a file of people and times cannot be used",
        wanted="Parquet with subject_id, prediction_time and, for outcomes, boolean_value, as MEDS "
        "has labels",
        do="Correct the file; `healthfm-client labels` makes one from a task's definition",
    ),
    351: ErrorCode(
        "a model can read nothing of the store",
        do="Leave --modalities out, or name another store or model",
    ),
    352: ErrorCode(
        "too few outcomes to calibrate a model",
        do="Use the probabilities as they are, or labels of more people",
    ),
    353: ErrorCode(
        "a calibration cannot be used",
        wanted="the file that predict --calibrate wrote for this model and task",
        do="Calibrate again",
    ),
    354: ErrorCode("options of a command contradict each other", do="Give one of them"),
}
"""Code → its entry."""
