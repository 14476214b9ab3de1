"""Which encoding the updates of a study have in secure sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from healthfm_core.config.secure_aggregation import COARSE_BITS, SecureAggregationConfig
from healthfm_core.federation.declared_metrics import declared_metrics
from healthfm_core.federation.parameter_groups import is_trainable
from healthfm_core.federation.protocol import Study
from healthfm_core.federation.secure.clipped_sum_codec import ClippedSumCodec
from healthfm_core.federation.secure.group_layout import GroupLayout, TurnedGroup
from healthfm_core.federation.secure.noisy_update_codec import NoisySumCodec
from healthfm_core.federation.secure.rotation import Rotation
from healthfm_core.federation.secure.update_codec import HiddenWeights, SumCodec, UpdateCodec
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.privacy.distributed import noise_for
from healthfm_core.privacy.secure_aggregation import FixedPoint, KeyBook
from healthfm_core.seeding import numpy_generator, seed_for

FEWEST_NUMBERS: Final = 4096
"""A smaller group would have coarse steps, and takes few bytes as it is."""
MOST_SITES: Final = 4096
"""A site's rounding takes up to one unit of the ring's 32,767."""


def codec_for(
    study: Study,
    schema: UpdateSchema,
    book: KeyBook,
    capacity: int,
    people: Mapping[str, float] = MappingProxyType({}),
    rounding: int | None = None,
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
        rounding: Seed of a site's rounding in a ring of 16 bits; the coordinator rounds nothing.
    """
    config, privacy = study.config.federation.aggregation.secure, study.config.privacy
    sites, rounds, bits = len(book.adverts), study.config.federation.rounds, config.fine_bits
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
    plain = sum_codec(schema, declared_metrics(study), capacity, sites, config, hidden)
    if config.ring_bits != COARSE_BITS:
        return plain
    seed = seed_for(study.config.seed, "rotation", book.terms.number)
    return replace(plain, turned=turned_groups(plain, config, seed, rounding))


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
        return FixedPoint(config.fine_bits, clip, capacity, sites)

    layout, bits = GroupLayout(schema), config.fine_bits
    return SumCodec(layout, metrics, capacity, sites, fixed_point, bits, hidden)


def turned_groups(
    plain: SumCodec, config: SecureAggregationConfig, seed: int, rounding: int | None
) -> dict[str, TurnedGroup]:
    """Return how the groups stand in 16 bits whose bound allows it.

    That is a group of so many numbers that none of them, turned, is more than a tenth of the clip,
    in a sum of so few sites that their rounding leaves most of the ring.

    Args:
        plain: The encoding in a finer ring.
        config: Clips.
        seed: Of the rotation, the same at every site.
        rounding: Seed of a site's rounding; None at the coordinator.
    """
    turned = {}
    for group in plain.layout.schema.groups:
        length, clip = plain.layout.size(group), config.clips.get(group, config.clip)
        if length < FEWEST_NUMBERS or plain.sites > MOST_SITES:
            continue
        rotation = Rotation(length, seed_for(seed, group))
        fixed = FixedPoint(COARSE_BITS, rotation.bound(clip), plain.capacity, plain.sites)
        generator = None if rounding is None else numpy_generator(rounding, "ring", group)
        turned[group] = TurnedGroup(clip, rotation, fixed, generator)
    return turned
