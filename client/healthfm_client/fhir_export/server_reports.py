"""What a server says beside the resources of an export: what went wrong, and what is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from healthfm_client.fhir_export.bulk_request import outcome_issues
from healthfm_client.fhir_export.http_calls import plain


class BundleRequest(msgspec.Struct):
    """What a bundle asks to be done with a resource."""

    url: str = ""
    method: str = ""


class DeletedEntry(msgspec.Struct):
    """One entry of a bundle of deletions."""

    request: BundleRequest = msgspec.field(default_factory=BundleRequest)


class DeletionBundle(msgspec.Struct):
    """Resources that are gone."""

    entry: list[DeletedEntry] = []


def issues_in(files: Iterable[Path]) -> Counter[str]:
    """Count the issues of files of OperationOutcomes by severity and code."""
    return _counted(files, _issues)


def deletions_in(files: Iterable[Path]) -> Counter[str]:
    """Count the resources that files of bundles say are gone, by type."""
    return _counted(files, _deletions)


def _counted(files: Iterable[Path], of_line: Callable[[bytes], Iterator[str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                found.update(of_line(line))
    return found


def _issues(line: bytes) -> Iterator[str]:
    for issue in outcome_issues(line):
        yield f"{plain(issue.severity, 20)} {plain(issue.code, 40)}".strip()


def _deletions(line: bytes) -> Iterator[str]:
    """Yield the type of each resource that is gone, and nothing of its id."""
    try:
        bundle = msgspec.json.decode(line, type=DeletionBundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    for entry in bundle.entry:
        if entry.request.method.upper() == "DELETE":
            kind = entry.request.url.rstrip("/").rsplit("/", 2)[-2:][0]
            yield kind if kind.isascii() and kind.isalpha() and "/" in entry.request.url else "?"
