"""A site's own state of an algorithm that has some (SCAFFOLD): one file a round, at the site.

A round that is asked for again starts from the state before it, so that a resumed run gives the
same weights to the bit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.errors import RunError
from healthfm_core.federation.aggregation.aggregator import ControlVariates, put_in_slot
from healthfm_core.federation.protocol import RoundResult
from healthfm_core.trust import files

_FILE: Final = re.compile(r"round-(\d{4,})\.safetensors")


@dataclass(frozen=True)
class ControlState:
    """One study's control variates at this site, in one round.

    Attributes:
        folder: Where they are kept between rounds.
        algorithm: Whose they are.
        server: The server's, as they came with the order.
        round: Which round.
        kept_rounds: States kept, the latest: as many as the coordinator keeps checkpoints.
    """

    folder: Path
    algorithm: ControlVariates
    server: Mapping[str, Float32]
    round: int
    kept_rounds: int

    def correction(self, parameters: Collection[str]) -> Float32Arrays:
        """Return what every local step adds to its direction, of those `parameters`."""
        values = self.algorithm.correction(self.server, self._before())
        return {name: value for name, value in values.items() if name in parameters}

    def finish(self, result: RoundResult) -> RoundResult:
        """Keep the state after the round, and return `result` with its change beside the update.

        Args:
            result: What leaves of the round.
        """
        before = self._before()
        after = self.algorithm.site_state(
            self.server, before, result.update, result.learning_rate_sum
        )
        changes = {
            name: np.asarray(value - before.get(name, np.float32(0)), np.float32)
            for name, value in after.items()
        }
        self._keep({**before, **after})
        sent = put_in_slot(self.algorithm.slot, changes)
        return replace(result, update={**result.update, **sent})

    def _rounds(self) -> list[int]:
        matches = (_FILE.fullmatch(path.name) for path in self.folder.glob("round-*"))
        return sorted(int(match[1]) for match in matches if match)

    def _before(self) -> Float32Arrays:
        """Return the state after the last round before this one; nothing is at zero."""
        earlier = [number for number in self._rounds() if number < self.round]
        if not earlier:
            return {}
        path = self._path(earlier[-1])
        try:
            return safetensors.numpy.load_file(path)
        except (OSError, SafetensorError) as error:
            raise RunError(
                703,
                where=path.name,
                seen="the site's control variates cannot be read",
                wanted="they are as they were written",
                do="Delete the file: the site goes on from the round before",
            ) from error

    def _keep(self, state: Float32Arrays) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.replace(self._path(self.round), safetensors.numpy.save(state))
        rounds = self._rounds()
        before = [number for number in rounds if number <= self.round]
        for number in (*before[: -self.kept_rounds - 1], *rounds[len(before) :]):
            self._path(number).unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}.safetensors"
