"""A round's masked sum on disk before the sites are asked to open it.

A coordinator that is killed after it asked goes on with this sum: the sites answer the same request
once more, and need not open a second sum of the same numbers, which they would refuse unless it
were of exactly the same sites.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from healthfm_core.privacy import secure_aggregation as secure
from healthfm_server.run_folder.durable_files import replace_file

KEPT_FILE: Final = "masked-sum.bin"
"""In the run folder: a line of JSON, then the arrays' bytes. Without the sites' shares it is noise
to whoever reads it."""


@dataclass(frozen=True)
class KeptSum:
    """A session whose inputs are all there.

    Attributes:
        server: The session.
        people: Site → training subjects.
    """

    server: secure.ServerSession
    people: Mapping[str, int]

    @property
    def capacity(self) -> int:
        """Training subjects of its sites together."""
        return sum(self.people.values())

    def senders(self) -> int:
        """Return the training subjects of the sites that are in the sum."""
        return sum(self.people[site] for site in self.server.survivors)

    def save(self, folder: Path) -> None:
        """Write it, over the one of an earlier round.

        Raises:
            RunError: The disk does not take it (HF-725).
        """
        header, arrays = self.server.to_state()
        sizes = [[name, array.size, array.dtype.name] for name, array in sorted(arrays.items())]
        text = json.dumps({"session": header, "sizes": sizes, "people": dict(self.people)})
        bodies = [array.data.cast("B") for _, array in sorted(arrays.items()) if array.size]
        replace_file(folder / KEPT_FILE, [text.encode() + b"\n", *bodies])

    @classmethod
    def load(cls, folder: Path, study: str, number: int, known: Mapping[str, bytes]) -> Self | None:
        """Return the sum of a round, None where there is none that can be opened.

        Args:
            folder: The run's.
            study: Hash of the study.
            number: The round.
            known: Site → signing key under which it is known.
        """
        path = folder / KEPT_FILE
        if not path.is_file():
            return None
        with path.open("rb") as file:
            header = json.loads(file.readline())
            arrays: dict[str, Any] = {
                name: np.fromfile(file, dtype, size) for name, size, dtype in header["sizes"]
            }
        server = secure.ServerSession.from_state(header["session"], arrays, known)
        terms = server.terms
        if (terms.study, terms.number) != (study, number):
            return None
        return cls(server, {site: int(n) for site, n in header["people"].items()})
