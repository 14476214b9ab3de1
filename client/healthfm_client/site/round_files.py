"""Arrays that a site keeps from round to round: one file a round, at the site.

A round that is asked for again starts from the file before it, so that a resumed run gives the
same weights to the bit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import safetensors.numpy
from safetensors import SafetensorError

from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.errors import RunError
from healthfm_core.trust import files

_FILE: Final = re.compile(r"round-(\d{4,})\.safetensors")


@dataclass(frozen=True)
class RoundFiles:
    """One kind of state of one study.

    Attributes:
        folder: Where the files are; it is made when it is missing.
        what: They are, for a message.
        kept_rounds: Files kept besides the latest.
    """

    folder: Path
    what: str
    kept_rounds: int

    def rounds(self) -> list[int]:
        """Return the rounds there is a file of, ascending."""
        matches = (_FILE.fullmatch(path.name) for path in self.folder.glob("round-*"))
        return sorted(int(match[1]) for match in matches if match)

    def read(self, number: int) -> Float32Arrays:
        """Return the arrays after round `number`.

        Raises:
            RunError: The file is damaged (HF-703).
        """
        path = self._path(number)
        try:
            return safetensors.numpy.load_file(path)
        except (OSError, SafetensorError) as error:
            raise RunError(
                703,
                where=path.name,
                seen=f"the site's {self.what} cannot be read",
                wanted="they are as they were written",
                do="Delete the file: the site goes on from the round before",
            ) from error

    def keep(
        self, number: int, arrays: Mapping[str, Float32], needed: Collection[int] = ()
    ) -> None:
        """Write the arrays after round `number`, and remove what is no longer needed.

        Args:
            number: The round.
            arrays: After it.
            needed: Rounds whose files stay, however old.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.replace(self._path(number), safetensors.numpy.save(dict(arrays)))
        rounds = self.rounds()
        before = [one for one in rounds if one <= number]
        for old in (*before[: -self.kept_rounds - 1], *rounds[len(before) :]):
            if old not in needed:
                self._path(old).unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}.safetensors"
