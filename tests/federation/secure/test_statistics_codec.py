"""Round 0 as sums: the vocabulary of eight sites, whose codes the coordinator can't attribute."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.config import RunConfig
from healthfm_core.data.batch.segments import offsets_of
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ProtocolError
from healthfm_core.federation.secure.statistics_codec import (
    CODES,
    SKETCH,
    StatisticsLayout,
    mark_sizes,
    marks,
)
from healthfm_core.tokens import values
from healthfm_core.tokens.records import Events, read_events
from healthfm_core.tokens.statistics import SiteStatistics, merge, site_statistics
from healthfm_core.tokens.vocabulary import Vocabulary, build_vocabulary
from healthfm_simulations.sites import prepare_sites

CONFIG = RunConfig.model_validate(
    {
        "seed": 1,
        "data": {"cohort": {"subjects": 2400, "sites": 8, "wearable_hours": 2, "worn_hours": 2}},
        "tokens": {"k_min": 5},
    }
)


def pool(parts: Sequence[Events]) -> Events:
    """Return the events of several stores of one site as one; no subject is in two of them."""
    codes = tuple(sorted({code for part in parts for code in part.codes}))
    index = {code: i for i, code in enumerate(codes)}
    before = offsets_of(np.array([len(part.subjects) for part in parts], np.int64))
    moved = [
        Events(
            part.subjects,
            codes,
            part.subject + shift,
            np.array([index[code] for code in part.codes], np.int32)[part.code],
            part.time_us,
            part.static,
            part.value,
        )
        for part, shift in zip(parts, before[:-1], strict=True)
    ]
    return Events(
        np.concatenate([part.subjects for part in moved]),
        codes,
        np.concatenate([part.subject for part in moved]),
        np.concatenate([part.code for part in moved]),
        np.concatenate([part.time_us for part in moved]),
        np.concatenate([part.static for part in moved]),
        np.concatenate([part.value for part in moved]),
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[SiteStore]:
    return [site.view() for site in prepare_sites(CONFIG, tmp_path_factory.mktemp("cohort"))]


@pytest.fixture(scope="module")
def sites(stores: list[SiteStore]) -> list[SiteStatistics]:
    return [site_statistics([store], CONFIG.tokens) for store in stores]


def federated(sites: list[SiteStatistics], salt: int = 7) -> SiteStatistics:
    """What the two sums say, added up in the ring as the masked ones are."""
    totals = {name: sum(marks(site, salt)[name] for site in sites) for name in mark_sizes()}
    layout = StatisticsLayout.for_totals(totals, salt)
    arrays = [layout.encode(site, ("ehr",)) for site in sites]
    found, holders, n = layout.decode({k: sum(a[k] for a in arrays) for k in arrays[0]})
    assert holders == {"ehr": len(sites), "wearable": 0, "genomics": 0}
    assert n == len(sites)
    return found


def test_the_sums_are_the_merge_of_the_sites_statistics(sites: list[SiteStatistics]) -> None:
    one, other = federated(sites).to_arrays(), merge(sites).to_arrays()
    assert one.keys() == other.keys()
    for name, array in other.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(one[name], array, rtol=1e-12)
        else:
            np.testing.assert_array_equal(one[name], array)


def test_the_vocabulary_is_the_pooled_one_for_codes_over_the_threshold(
    stores: list[SiteStore], sites: list[SiteStatistics]
) -> None:
    found, pooled = federated(sites), site_statistics(stores, CONFIG.tokens)
    held = [set(read_events(store, "train").codes) for store in stores]
    over = [
        code
        for code in pooled.codes
        if all(code in site.codes or code not in own for site, own in zip(sites, held, strict=True))
    ]
    assert len(over) >= 40
    for name in ("subjects", "timed_subjects", "visits"):
        one, other = (dict(zip(s.codes, getattr(s, name), strict=True)) for s in (found, pooled))
        assert {code: one[code] for code in over} == {code: other[code] for code in over}
    one, other = (build_vocabulary(s, CONFIG.tokens) for s in (found, merge(sites)))
    assert replace(one, wearable=None) == replace(other, wearable=None)
    assert one.wearable is not None
    assert other.wearable is not None
    assert one.wearable.mean == pytest.approx(other.wearable.mean, rel=1e-12)
    assert one.wearable.sd == pytest.approx(other.wearable.sd, rel=1e-9)


def test_deciles_lie_within_a_hundredth_of_the_pooled_ranks(
    stores: list[SiteStore], sites: list[SiteStatistics]
) -> None:
    vocabulary = build_vocabulary(federated(sites), CONFIG.tokens)
    events = pool([read_events(store, "train") for store in stores])
    errors = {code: rank_error(events, code, vocabulary) for code in vocabulary.percentiles}
    assert len(errors) >= 5
    assert max(errors.values()) <= 0.01


def rank_error(events: Events, code: str, vocabulary: Vocabulary) -> float:
    """Return by how much the worst decile edge misses its rank among all people's values."""
    own = events.where((events.code == events.codes.index(code)) & ~np.isnan(events.value))
    keys = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in own.codes]
    rows = values.one_per_subject(
        own.subjects[own.subject],
        own.code.astype(np.int64),
        np.frombuffer(b"".join(keys), np.int64),
    )
    drawn = own.value[rows]
    worst = 0.0
    for i, edge in enumerate(vocabulary.edges(code), start=1):
        below = (drawn < edge - abs(edge) * values.RELATIVE_WIDTH).mean()
        up_to = (drawn <= edge + abs(edge) * values.RELATIVE_WIDTH).mean()
        worst = max(worst, below - i / 10, i / 10 - up_to)
    return worst


def test_deciles_of_large_sites_are_as_near_under_the_default_threshold() -> None:
    """Merging buckets to k = 20 costs ranks where sites are small: 600 people, a hundredth."""
    rng = np.random.default_rng(0)
    drawn = [rng.lognormal(rng.normal(0, 0.2), 0.4, 600) for _ in range(8)]
    buckets = values.quantile_buckets(
        values.add([withheld(x, 20) for x in drawn]), np.zeros(1, np.int64), DECILES
    )
    everyone = np.sort(np.concatenate(drawn))
    ranks = np.searchsorted(everyone, values.upper_edge(buckets[0])) / len(everyone)
    assert np.abs(ranks - DECILES).max() <= 0.01


DECILES = np.arange(1, 10) / 10


def withheld(value: np.ndarray, k: int) -> values.Sketch:
    found = values.sketch(np.zeros(len(value), int), value)
    merged = values.merge_small(found, k)
    return values.spread(merged, values.stands_alone(merged, found, k))


def test_a_code_of_one_site_and_names_of_every_kind_and_length_come_back(
    sites: list[SiteStatistics],
) -> None:
    odd = replace(
        sites[0],
        codes=("Ä//" + "x" * 300, *sorted(sites[0].codes[1:])),
        panel=("",),
        panel_subjects=np.array([7]),
    )
    order = np.argsort(np.array(odd.codes))
    odd = replace(odd, codes=tuple(odd.codes[i] for i in order))
    found = federated([odd, sites[1], sites[2]])
    assert "Ä//" + "x" * 300 in found.codes
    assert "" in found.panel


def test_sums_of_something_else_are_refused(sites: list[SiteStatistics]) -> None:
    layout = StatisticsLayout.of(200, 2000, 1)
    arrays = layout.encode(sites[0], ())
    arrays[CODES] = np.random.default_rng(0).integers(0, 2**64, arrays[CODES].size, np.uint64)
    with pytest.raises(ProtocolError, match="HF-402"):
        layout.decode(arrays)
    arrays = layout.encode(sites[0], ())
    others = tuple(f"Z{code}" for code in sites[0].codes)
    stray = layout.encode(replace(sites[0], codes=others), ())[SKETCH]
    with pytest.raises(ProtocolError, match=r"HF-402.*a name that its hash does not fit"):
        layout.decode({**arrays, SKETCH: stray})
