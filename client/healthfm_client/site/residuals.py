"""What a codec left out of a site's updates, kept at the site and added to the next (`compressor`).

It is as much about the site's people as the update is, and never leaves but as part of one.
"""

from __future__ import annotations

from dataclasses import dataclass

from healthfm_client.site.round_files import RoundFiles
from healthfm_core.arrays import ArrayDict, Float32Arrays
from healthfm_core.federation.compression.compressor import Compressor
from healthfm_core.federation.parameter_groups import group_names, group_of
from healthfm_core.federation.protocol import RoundOrder, RoundResult
from healthfm_core.training.divergence import refuse_divergence


@dataclass(frozen=True)
class SiteResiduals:
    """One study's residuals at this site, in one round.

    Attributes:
        files: Of the study: after each round, what was left out.
        compressor: How updates travel.
        order: Says which round it is and which of the site's updates are in the model.
    """

    files: RoundFiles
    compressor: Compressor
    order: RoundOrder

    def encode(self, result: RoundResult) -> ArrayDict:
        """Return an update as it travels, once what is left out of it is on disk.

        Without training there is nothing to correct: zeros travel, and nothing is kept.

        Args:
            result: What leaves of the round: clipping and noise are in it, so that what is made of
                it here has the same guarantee (post-processing).

        Raises:
            RunError: The update is not finite (HF-726), or a residual is damaged (HF-703).
        """
        refuse_divergence(self.order.round, result.update, {})
        groups, seed = group_names(result.update), self.order.seed
        if not self.order.train:
            return self.compressor.encode(groups, result.update, {}, seed).arrays
        before = self._before()
        encoded = self.compressor.encode(groups, result.update, before, seed)
        after = {**before, **encoded.residual}
        self.files.keep(self.order.round, after, needed=self.order.counted.values())
        return encoded.arrays

    def _before(self) -> Float32Arrays:
        """Return the residual that each group goes on from; a group without one has none."""
        there, counted = set(self.files.rounds()), self.order.counted
        before: Float32Arrays = {}
        for number in sorted(there & {*counted.values()}):
            residual = self.files.read(number)
            before |= {n: a for n, a in residual.items() if counted.get(group_of(n)) == number}
        return before
