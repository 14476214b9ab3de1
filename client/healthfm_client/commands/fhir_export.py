"""``fhir-export FILE --out DIR``: download a FHIR server's export into a private folder."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import datetime
from pathlib import Path

from healthfm_client.fhir_export.export_run import BulkExport
from healthfm_client.fhir_export.export_state import ExportState
from healthfm_client.fhir_export.http_calls import HttpCalls, new_client
from healthfm_client.fhir_export.server_file import server_file
from healthfm_client.fhir_export.signing_key import AssertionKey
from healthfm_core.command_line import Command
from healthfm_core.errors import ConfigError, IngestError
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "server", type=Path, metavar="FILE", help="the server file, fhir.toml (docs/fhir-server.md)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument(
        "--since",
        metavar="TIME|DIR",
        help="only what changed since a time, as 2026-11-23T02:00:00Z, or since the export in DIR",
    )
    parser.add_argument(
        "--resume", action="store_true", help="after an interruption, go on from what is in DIR"
    )
    parser.add_argument(
        "--cancel",
        action="store_true",
        help="have the server drop an interrupted export, and remove what is in DIR of it",
    )
    parser.add_argument(
        "--hours",
        type=_hours,
        default=24.0,
        help="how long all of it may take; longer, it can be resumed (default: 24)",
    )


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= 24 * 365:
        raise ArgumentTypeError("a number of hours above 0 is wanted")
    return hours


def run(given: Namespace) -> int:
    """Export, and say what to type next."""
    server = server_file(given.server)
    since, earlier = (None, None) if given.since is None else _since(given.since)
    key = AssertionKey.load(server.key)
    with new_client(server.ca) as client:
        calls = HttpCalls(client, server.origins, given.hours)
        export = BulkExport(server, key, calls, given.out, say)
        if given.cancel:
            export.cancel()
            say("The export is cancelled, and nothing of it is left here.")
            return 0
        try:
            state = export.run(since, earlier=earlier, resume=given.resume)
        except KeyboardInterrupt:
            sys.stderr.write("What was downloaded stays; go on with --resume.\n")
            raise
    _report(state, given)
    return 0


def _since(text: str) -> tuple[str, Path | None]:
    """Return the instant that is meant, given or that of an export before, and that one's folder.

    Raises:
        ConfigError: HF-102 where it is no time with a zone.
        IngestError: HF-334 where the folder has no whole export.
    """
    folder = Path(text)
    if folder.is_dir():
        state = ExportState.read(folder)
        if state is None or state.phase != "whole" or state.transaction_time is None:
            raise IngestError(
                334,
                where=folder.name,
                seen="it has no whole export to begin from",
                wanted="a folder that fhir-export wrote to its end",
                do="Name another one, or a time",
            )
        return state.transaction_time, folder
    try:
        has_zone = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        has_zone = False
    if not has_zone or "T" not in text:
        raise ConfigError(
            102,
            where="--since",
            seen="it is neither a time with its zone nor a folder",
            wanted="a time as 2026-11-23T02:00:00Z, or the folder of an export",
            do="Correct it",
        )
    return text, None


def _report(state: ExportState, given: Namespace) -> None:
    read = {name: one for name, one in state.fetched.items() if name.endswith(".ndjson")}
    lines, size = sum(f.lines for f in read.values()), sum(f.size for f in read.values())
    say(
        f"{given.out}: {lines:,} resources in {len(read)} files, {size / 1e6:,.1f} MB, as of "
        f"{state.transaction_time}"
    )
    folder = shlex.quote(str(given.out))
    if not lines and state.earlier is None:
        say("There is nothing in it to ingest.")
        return
    update = "" if state.since is None else " --update rows"
    say(f"Next: healthfm-client ingest fhir {folder} --out STORE{update}")
    say(f"And what changes from now on: --since {folder}")


COMMAND = Command("download a FHIR server's export, to be read by ingest fhir", run, arguments)
