"""Which encoding the updates of a study have in secure sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.federation.declared_metrics import declared_metrics
from healthfm_core.federation.parameter_groups import is_trainable
from healthfm_core.federation.protocol import Study
from healthfm_core.federation.secure.clipped_sum_codec import ClippedSumCodec
from healthfm_core.federation.secure.group_layout import GroupLayout
from healthfm_core.federation.secure.noisy_update_codec import NoisySumCodec
from healthfm_core.federation.secure.update_codec import HiddenWeights, SumCodec, UpdateCodec
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.privacy.distributed import noise_for
from healthfm_core.privacy.secure_aggregation import FixedPoint, KeyBook


def codec_for(
    study: Study,
    schema: UpdateSchema,
    book: KeyBook,
    capacity: int,
    people: Mapping[str, float] = MappingProxyType({}),
) -> UpdateCodec:
    """Return how a round's updates stand in the ring, the same at every site and the coordinator.

    With gradients (`privacy.mode=distributed`) it holds the parameters that are trained, and no
    others.

    Args:
        study: Whose configuration says clips, ring and noise.
        schema: Names and shapes of what is summed.
        book: The session's keys, from which the number of sites follows.
        capacity: Training subjects of all its sites together.
        people: Modality → training subjects of all sites in round 0, which the coordinator knows.
    """
    config, privacy = study.config.federation.aggregation.secure, study.config.privacy
    sites, rounds, bits = len(book.adverts), study.config.federation.rounds, config.ring_bits
    honest = max(1, book.least - math.ceil(config.colluding_fraction * sites))
    if privacy.mechanism.noise_in_sum:
        trained = [n for n in schema.shapes if is_trainable(n, study.config.train.trainable)]
        layout, norm = GroupLayout(schema.only(trained)), privacy.max_grad_norm
        multiplier = noise_for(privacy.epsilon or 0.0, privacy.delta, rounds)
        return ClippedSumCodec(layout, capacity, sites, bits, norm, multiplier, honest)
    if config.epsilon is not None:
        multiplier = noise_for(config.epsilon, config.delta, rounds)
        return NoisySumCodec(GroupLayout(schema), sites, config, multiplier, honest)
    hidden = None
    if config.hide_modalities:
        hidden = HiddenWeights(study.config.tokens.k_min, people)
    return sum_codec(schema, declared_metrics(study), capacity, sites, config, hidden)


def sum_codec(
    schema: UpdateSchema,
    metrics: tuple[str, ...],
    capacity: int,
    sites: int,
    config: SecureAggregationConfig,
    hidden: HiddenWeights | None = None,
) -> SumCodec:
    """Return the encoding without noise."""

    def fixed_point(group: str) -> FixedPoint:
        clip = config.clips.get(group, config.clip)
        return FixedPoint(config.ring_bits, clip, capacity, sites)

    layout, bits = GroupLayout(schema), config.ring_bits
    return SumCodec(layout, metrics, capacity, sites, fixed_point, bits, hidden)
