"""The code that the pages show, and which test runs it, or why none does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "simulations/experiments/README.md")
PROGRAMS = (
    "healthfm-client",
    "healthfm-server",
    "healthfm-simulate",
    "healthfm-tune",
    "healthfm-experiment",
)
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

RUN_BY = {
    "docs/a-store.md": "tests/test_store_page.py",
    "docs/adding-a-reader.md": "tests/test_documents.py",
    "docs/any-tables.md": "tests/ingest/test_mapped_data_sets.py",
    "docs/deployment.md": "tests/end_to_end/test_deployment.py",
    "docs/using-a-trained-model.md": "tests/test_trained.py",
    "docs/your-table.md": "tests/test_your_table_page.py",
}
"""Page → the test that takes its code from the page and runs it; the kinds are `RUN_KINDS`."""
RUN_KINDS = {
    "docs/a-store.md": {"python"},
    "docs/adding-a-reader.md": {"python"},
    "docs/any-tables.md": {"yaml"},
    "docs/deployment.md": {"console"},
    "docs/using-a-trained-model.md": {"python"},
    "docs/your-table.md": {"console", "python", "yaml"},
}
NEEDS_A_SITE = "a site's own data and study; deployment.md's commands are these, and are run"
NEEDS_ROOT = (
    "root and a machine of its own; tests/distribution/test_installer.py runs the installer"
)
NEEDS_MINUTES = "minutes, and data sets that are not in the repository"
NOT_RUN = {
    "README.md": NEEDS_MINUTES,
    "docs/any-tables.md": "a licensed data set; its mapping file is run",
    "docs/at-a-site.md": NEEDS_A_SITE,
    "docs/coordinator-page.md": NEEDS_A_SITE,
    "docs/deployment.md": "settings; each key is held against its schema",
    "docs/fhir-server.md": "a FHIR server; tests/client/fhir_export has one of its own",
    "docs/for-a-researcher.md": NEEDS_MINUTES,
    "docs/install.md": NEEDS_ROOT,
    "docs/omop-in-a-database.md": "a PostgreSQL; tests/ingest/test_omop_database.py starts one",
    "docs/using-a-trained-model.md": NEEDS_A_SITE,
    "simulations/experiments/README.md": NEEDS_MINUTES,
    "docs/site-page.md": NEEDS_A_SITE,
}
"""Page → what its other code needs that a test has not. Its commands are read by their parsers."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: From the repository's root.
        kind: What stands behind the fence; "" for none.
        text: What is inside.
    """

    page: str
    kind: str
    text: str

    @property
    def is_code(self) -> bool:
        """Whether somebody could type it: a list of layers and a program's output are not."""
        shell = re.search(
            r"^(\$ |sudo |make |podman |tar |ssh-keygen |\S*python3)", self.text, re.M
        )
        return bool(self.kind) or bool(shell)

    def commands(self) -> Iterator[list[str]]:
        """Yield each command of ours, split as a shell does, the program's name first."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if self._typed(line) else []
            for place, word in enumerate(words):
                if word.rpartition("/")[2] in PROGRAMS:
                    yield [word.rpartition("/")[2], *_until_shell(words[place + 1 :])]
                    break

    def _typed(self, line: str) -> bool:
        said = line.lstrip("$ ").partition(" ")[0].rpartition("/")[2]
        starts = said in PROGRAMS or line.startswith(("sudo ", "$ "))
        return starts and (self.kind != "console" or line.startswith("$ "))


def blocks() -> list[Block]:
    """Return every fenced block of the pages, in their order."""
    files = [file for pattern in PAGES for file in sorted(ROOT.glob(pattern))]
    return [
        Block(str(file.relative_to(ROOT)), kind, text)
        for file in files
        for kind, text in FENCE.findall(file.read_text("utf-8"))
    ]


def _until_shell(words: list[str]) -> list[str]:
    """Return the words before what is the shell's: a pipe, a redirection, another command."""
    kept: list[str] = []
    for word in words:
        if word in {"|", ">", ">>", "&&", ";", "&", "<"}:
            break
        kept.append(word)
    return kept
