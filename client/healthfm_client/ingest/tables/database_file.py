"""The file that says where a database is.

    [database]
    url = "postgresql://reader@db.hospital:5432/warehouse"
    schema = "cdm"
    vocabulary = "vocabulary"    # the schema of CONCEPT and the like, where it is another one

The password comes from PGPASSWORD or from PostgreSQL's own password file (PGPASSFILE, ~/.pgpass);
in the URL it is taken only where nobody but the owner may read the file.
"""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from healthfm_core.config.base import Schema
from healthfm_core.errors import IngestError


class DatabaseFile(Schema):
    """Where a database is.

    Attributes:
        url: ``postgresql://USER@HOST:PORT/DATABASE``.
        schema_: Of the tables.
        vocabulary: Of the vocabulary's tables; None: the same.
    """

    url: str = Field(pattern=r"^postgres(ql)?://")
    schema_: str = Field("public", alias="schema", min_length=1)
    vocabulary: str | None = Field(None, min_length=1)


def database_file(path: Path) -> DatabaseFile:
    """Return what a file says of a database.

    Raises:
        IngestError: HF-318.
    """
    try:
        said = DatabaseFile.model_validate(tomllib.loads(path.read_text("utf-8"))["database"])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, ValidationError) as error:
        what = error.errors()[0]["loc"] if isinstance(error, ValidationError) else ("database",)
        raise IngestError(
            318, where=path.name, seen=f"{'.'.join(map(str, what))} is missing or does not fit"
        ) from error
    try:
        has_password = urlsplit(said.url).password is not None
    except ValueError as error:
        raise IngestError(318, where=path.name, seen="url is no address") from error
    if has_password and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise IngestError(
            318,
            where=path.name,
            seen="it holds a password and others may read it",
            do=f"chmod 600 {path.name}, or leave the password to PGPASSWORD or ~/.pgpass",
        )
    return said
