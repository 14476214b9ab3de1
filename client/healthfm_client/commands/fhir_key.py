"""``fhir-key FILE``: make the key by which a FHIR server knows this site."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from healthfm_client.fhir_export.signing_key import Algorithm, AssertionKey
from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="where the private key is kept")
    parser.add_argument(
        "--algorithm",
        choices=get_args(Algorithm),
        default="ES384",
        help="what it signs with: RS384 for servers that know no ES384 (default: ES384)",
    )
    parser.add_argument(
        "--show", action="store_true", help="print the public half of the key that is in FILE"
    )


def run(given: Namespace) -> int:
    """Make the key, or read it; print the public half as JSON (JWKS) and nothing else."""
    if given.show:
        key = AssertionKey.load(given.file)
    else:
        key = AssertionKey.create(given.file, given.algorithm)
        sys.stderr.write(
            f"The private key is in {given.file} and never leaves this machine. "
            "Register what follows at the FHIR server:\n"
        )
    say(json.dumps(key.jwks(), indent=2))
    return 0


COMMAND = Command("make the key by which a FHIR server knows this site", run, arguments)
