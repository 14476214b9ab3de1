"""Small zip files from untrusted senders: read in memory, exact names only, sizes bounded."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import Final

from healthfm_core.errors import TrustError

MOST_BYTES: Final = 256 * 1024
"""Of a whole archive and of each file in it; a kit takes about 10 kB."""
_ENCRYPTED: Final = 0x1


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return `files` as a zip: equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def unpack(data: bytes, names: Collection[str], where: str) -> dict[str, bytes]:
    """Return the files of a zip that holds exactly `names`; nothing is written anywhere.

    Raises:
        TrustError: It is no zip, is too large, or holds a name twice, none, or another
            (HF-806).
    """
    if len(data) > MOST_BYTES:
        raise _unfit(where, "a file of more than 256 kB")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sorted(entry.filename for entry in entries) != sorted(names):
                raise _unfit(where, "other files inside than wanted")
            return {entry.filename: _read(archive, entry, where) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise _unfit(where, "a file that is no zip, or a damaged one") from error
    except (RuntimeError, OverflowError) as error:
        raise _unfit(where, "a zip of an unusual kind") from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> bytes:
    if entry.file_size > MOST_BYTES or entry.flag_bits & _ENCRYPTED:
        raise _unfit(where, "a file inside that is too large or encrypted")
    with archive.open(entry) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise _unfit(where, "a file inside that is larger than it says")
    return data


def _unfit(where: str, seen: str) -> TrustError:
    return TrustError(
        806,
        where=where,
        seen=seen,
        do="Send it again, as an attachment that no mail program changes",
    )
