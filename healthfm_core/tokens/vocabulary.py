"""The vocabulary of a study: codes, their value bins, targets, scores and wearables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from healthfm_core.arrays import Bool, Float32, Float64, Int32, Int64
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import ConfigError, ProtocolError
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.registry import (
    find,
    in_panel_order,
    modality_names,
    modality_of,
    modality_of_column,
)
from healthfm_core.modalities.wearable import WEARABLE_PREFIX
from healthfm_core.tokens import values
from healthfm_core.tokens.common_ancestors import roll_ups, rolled_up
from healthfm_core.tokens.concept_sets import concept_code
from healthfm_core.tokens.lineage import with_forms
from healthfm_core.tokens.shared_channels import study_wearable
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.wearing import ChannelSource, WearableSpec

PAD_TOKEN: Final = 0
UNKNOWN_TOKEN: Final = 1
MASK_TOKEN: Final = 2
_SPECIAL: Final = 3
_PERCENTILES: Final = 99
_PANEL_KEY: Final = "prs_panel"
"""Key of `Vocabulary.panel` in its JSON, as release 0.1.0 named it: hashes stay what they were."""

SEVERAL: Final = 2
"""In `Vocabulary.sites`: more than one site let the code out."""

EXACT: Final = 0
ANCESTOR: Final = 1
DOMAIN: Final = 2
UNKNOWN: Final = 3
"""How a site's code was found in the vocabulary (`Vocabulary.look_up`)."""


@dataclass(frozen=True)
class TokenParts:
    """What each of K tokens stands for.

    Attributes:
        code: [K] int64, its code index.
        quantile: [K] float32, the middle of its bin in [-1, 1]; 0 without a value.
        has_value: [K] bool.
        target: [K] int64, the target that its code is, -1 where it is none.
    """

    code: Int64
    quantile: Float32
    has_value: Bool
    target: Int64


@dataclass(frozen=True)
class Vocabulary:
    """What every site of a study calls its data; frozen by the server, compared by `hash`.

    Codes are numbered ``0 PAD, 1 UNK, 2 MASK``, then one unknown per domain (what stands before
    the first ``//``), then `codes`. Tokens are numbered likewise, but a numeric code takes
    1 + `value_bins` of them: without a value, then one per quantile bin.

    Attributes:
        codes: Codes by number of subjects, most first.
        domains: Domains of `codes`, by name.
        value_bins: Bins of a numeric code.
        percentiles: For each numeric code its 1st … 99th percentile, as buckets of `values`.
        targets: Codes that next_visit predicts, by number of subjects, most first.
        target_rates: Share of all visits in which each target occurs.
        onset_rates: Subjects who ever have each target, per visit of anyone.
        label_rate: Share of the task's labels that are 1; 0 where it is not known.
        panel: Names of the columns of the panels (polygenic scores), those of one modality side
            by side (`modalities.registry.column_of`).
        wearable: The study's device, None without one.
        reach: For each of `codes` the share of all subjects who are at a site that has it.
        sites: For each of `codes` 1 where one site alone let it out, 2 where several did, 0 where
            none did (a code of the model that the study starts from); () before release 0.6.
        become: Code that a site let out → the one of `codes` that stands for it, its ancestor
            (`common_ancestors`); None where the study rolls no codes up.
    """

    codes: tuple[str, ...]
    domains: tuple[str, ...]
    value_bins: int
    percentiles: Mapping[str, tuple[int, ...]]
    targets: tuple[str, ...]
    target_rates: tuple[float, ...]
    onset_rates: tuple[float, ...]
    label_rate: float
    panel: tuple[str, ...]
    wearable: WearableSpec | None
    reach: tuple[float, ...]
    sites: tuple[int, ...] = ()
    become: Mapping[str, str] | None = None

    def has(self, modality: str) -> bool:
        """Whether the sites let out anything of a modality, so that its encoder has an input."""
        form = find(modality).form
        if form == "samples":
            return self.wearable is not None
        known = (
            map(modality_of_column, self.panel) if form == "panel" else map(modality_of, self.codes)
        )
        return modality in known

    @property
    def n_codes(self) -> int:
        """Number of code indices, special ones included."""
        return _SPECIAL + len(self.domains) + len(self.codes)

    @cached_property
    def n_tokens(self) -> int:
        """Number of code⊕bin tokens, special ones included."""
        return self.n_codes + self.value_bins * len(self.percentiles)

    @cached_property
    def first_token(self) -> Int32:
        """[n_codes] the token of each code index without a value."""
        width = np.ones(self.n_codes, np.int32)
        width[np.flatnonzero(self._grid_row >= 0)] += self.value_bins
        return (np.cumsum(width) - width).astype(np.int32)

    @cached_property
    def target_of_code(self) -> Int32:
        """[n_codes] the target each code index is, -1 where it is none."""
        target = np.full(self.n_codes, -1, np.int32)
        target[[self._index[code] for code in self.targets]] = np.arange(len(self.targets))
        return target

    @cached_property
    def token_parts(self) -> TokenParts:
        """What each token stands for: the way back from `place`."""
        width = np.diff(np.append(self.first_token, self.n_tokens))
        code = np.repeat(np.arange(self.n_codes), width)
        bin_ = np.arange(self.n_tokens) - self.first_token[code] - 1
        has_value = bin_ >= 0
        middle = 2 * (bin_ + 0.5) / self.value_bins - 1
        quantile = np.where(has_value, middle, 0.0).astype(np.float32)
        return TokenParts(code, quantile, has_value, self.target_of_code[code].astype(np.int64))

    @cached_property
    def _index(self) -> dict[str, int]:
        first = _SPECIAL + len(self.domains)
        return {code: first + i for i, code in enumerate(self.codes)}

    @cached_property
    def _grid(self) -> Int32:
        rows = list(self.percentiles.values())
        return np.array(rows, np.int32).reshape(len(rows), _PERCENTILES)

    @cached_property
    def _grid_row(self) -> Int64:
        rows = np.full(self.n_codes, -1, np.int64)
        rows[[self._index[code] for code in self.percentiles]] = np.arange(len(self.percentiles))
        return rows

    def look_up(self, codes: Sequence[str], parents: Mapping[str, str]) -> tuple[Int64, Int64]:
        """Return each code's index and how it was found.

        A code that the study does not have becomes what the study says it becomes, else its nearest
        ancestor that the study has, else the unknown of its domain, else the unknown of all. Where
        the study rolls codes up, ancestors are also those of the codes' forms.

        Args:
            codes: A site's own codes.
            parents: The site's code → its parent.

        Returns:
            ([n] code index, [n] `EXACT`, `ANCESTOR`, `DOMAIN` or `UNKNOWN`).
        """
        if self.become is not None:
            parents = with_forms(parents, codes)
        pairs = [self._find(code, parents) for code in codes]
        both = np.array(pairs, np.int64).reshape(len(pairs), 2)
        return both[:, 0].copy(), both[:, 1].copy()

    def _find(self, code: str, parents: Mapping[str, str]) -> tuple[int, int]:
        become = self.become or {}
        if code in self._index:
            return self._index[code], EXACT
        seen, above = {code}, become.get(code) or parents.get(code)
        while above is not None and above not in seen:
            above = become.get(above, above)
            if above in self._index:
                return self._index[above], ANCESTOR
            seen.add(above)
            above = parents.get(above)
        domain = domain_of(code)
        if domain in self.domains:
            return _SPECIAL + self.domains.index(domain), DOMAIN
        return UNKNOWN_TOKEN, UNKNOWN

    def place(self, code: Int64, value: Float64) -> tuple[Int32, Float32]:
        """Return the token and the quantile of events, the value placed in its code's bins.

        Args:
            code: [n] code indices.
            value: [n] values, NaN where there is none or where it must not be used.

        Returns:
            ([n] token; [n] 2·p − 1, with p the share of the study's values below the value plus
            half of those that tie with it, in hundredths; 0 where there is no value).
        """
        token = self.first_token[code].copy()
        quantile = np.zeros(len(code), np.float32)
        rows = np.flatnonzero((self._grid_row[code] >= 0) & np.isfinite(value))
        grid, at, bucket = self._grid, self._grid_row[code[rows]], values.bucket_of(value[rows])
        below = _count(grid, at, bucket, inclusive=False)
        up_to = _count(grid, at, bucket, inclusive=True)
        share = (below + up_to + 1) / 2 / (_PERCENTILES + 1)  # never 0 or 1
        bin_ = np.minimum((share * self.value_bins).astype(np.int32), self.value_bins - 1)
        token[rows] += 1 + bin_
        quantile[rows] = 2 * share - 1
        return token, quantile

    def standardise(self, code: Int64, value: Float64) -> Float32:
        """Return [n] values in units of their code's spread, squashed; 0 where there is none.

        asinh((value − m) / s), with m and s mean and standard deviation of the code's percentiles.
        Unlike a quantile it tells how far out a value of the last hundredth lies.
        """
        scaled = np.zeros(len(code), np.float32)
        rows = np.flatnonzero((self._grid_row[code] >= 0) & np.isfinite(value))
        at = self._grid_row[code[rows]]
        mean, sd = self._moments
        scaled[rows] = np.arcsinh((value[rows] - mean[at]) / sd[at])
        return scaled

    @cached_property
    def _moments(self) -> tuple[Float64, Float64]:
        points = values.upper_edge(self._grid)
        mean, sd = points.mean(axis=1), points.std(axis=1)
        return mean, np.where(sd > 1e-12 * (1 + np.abs(mean)), sd, 1.0)

    def edges(self, code: str) -> tuple[float, ...]:
        """Return the `value_bins` - 1 inner edges of a numeric code's bins, in its unit."""
        wanted = np.arange(1, self.value_bins) * (_PERCENTILES + 1) / self.value_bins
        buckets = np.array(self.percentiles[code], np.int32)[np.ceil(wanted).astype(int) - 1]
        return tuple(float(edge) for edge in values.upper_edge(buckets))

    def to_json(self) -> str:
        """Return the canonical JSON: keys in order, no spaces."""
        fields = asdict(self)
        fields[_PANEL_KEY] = fields.pop("panel")
        if not self.sites:
            del fields["sites"]
        if self.become is None:
            del fields["become"]
        if self.wearable is not None and not self.wearable.sources:
            del fields["wearable"]["sources"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Return the vocabulary that `to_json` wrote.

        Raises:
            ProtocolError: HF-405 where the text is not a vocabulary.
        """
        try:
            return _read(json.loads(text))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ProtocolError(
                405,
                where="vocabulary",
                seen=f"a text that is no vocabulary ({type(error).__name__})",
            ) from error


def _read(raw: dict[str, Any]) -> Vocabulary:
    percentiles = {code: tuple(map(int, row)) for code, row in raw["percentiles"].items()}
    if any(len(row) != _PERCENTILES for row in percentiles.values()):
        raise ValueError("a numeric code needs 99 percentiles")
    if len(raw["reach"]) != len(raw["codes"]):
        raise ValueError("every code has a reach")
    sites = tuple(map(int, raw.get("sites", ())))
    if sites and (len(sites) != len(raw["codes"]) or not {*sites} <= {0, 1, SEVERAL}):
        raise ValueError("every code has 0, 1 or 2 for its sites")
    if not {*percentiles, *raw["targets"]} <= set(raw["codes"]):
        raise ValueError("a target or a numeric code is not a code")
    become = raw.get("become")
    if become is not None and not {*become.values()} <= {*raw["codes"]}:
        raise ValueError("a code becomes what is not a code")
    device = raw["wearable"]
    return Vocabulary(
        codes=tuple(raw["codes"]),
        domains=tuple(raw["domains"]),
        value_bins=int(raw["value_bins"]),
        percentiles=dict(sorted(percentiles.items())),
        targets=tuple(raw["targets"]),
        target_rates=tuple(map(float, raw["target_rates"])),
        onset_rates=tuple(map(float, raw["onset_rates"])),
        label_rate=float(raw["label_rate"]),
        panel=tuple(raw[_PANEL_KEY]),
        wearable=None if device is None else _read_device(device),
        reach=tuple(map(float, raw["reach"])),
        sites=sites,
        become=None if become is None else dict(sorted(become.items())),
    )


def _read_device(raw: dict[str, Any]) -> WearableSpec:
    return WearableSpec(
        device=str(raw["device"]),
        channels=tuple(raw["channels"]),
        mean=tuple(map(float, raw["mean"])),
        sd=tuple(map(float, raw["sd"])),
        hz=float(raw["hz"]),
        token_s=float(raw["token_s"]),
        window_s=float(raw["window_s"]),
        sources=tuple(_read_source(one, len(raw["channels"])) for one in raw.get("sources", ())),
    )


def _read_source(raw: dict[str, Any], channels: int) -> ChannelSource:
    if not 0 <= int(raw["feature"]) < channels:
        raise ValueError("a source is of one of the channels")
    names = str(raw["device"]), str(raw["channel"])
    return ChannelSource(*names, int(raw["feature"]), float(raw["mean"]), float(raw["sd"]))


def _count(grid: Int32, row: Int64, bucket: Int32, *, inclusive: bool) -> Int64:
    """Count the grid points of each row below (or up to) a bucket, by bisection of all at once."""
    low = np.zeros(len(row), np.int64)
    high = np.full(len(row), _PERCENTILES, np.int64)
    for _ in range(_PERCENTILES.bit_length()):
        middle = np.minimum((low + high) >> 1, _PERCENTILES - 1)
        point = grid[row, middle]
        after = (point <= bucket if inclusive else point < bucket) & (low < high)
        low, high = (
            np.where(after, middle + 1, low),
            np.where(after, high, np.minimum(middle, high)),
        )
    return low


def domain_of(code: str) -> str | None:
    """Return what stands before a code's first ``//``, None where it has none."""
    head, separator, _ = code.partition("//")
    return head if separator else None


def build_vocabulary(merged: SiteStatistics, config: TokensConfig) -> Vocabulary:
    """Return the vocabulary of a study from the sum of its sites' statistics.

    The `max_codes` codes most subjects have enter. A code is numeric where a site let out values
    of it. A target is a code without values that occurs at a time and is not a wearable summary;
    the `max_targets` most frequent are kept. Concept sets are kept whatever their frequency.
    Codes that too few sites know are counted as an ancestor (`common_ancestors`).

    Raises:
        ConfigError: A concept set occurs in too few people (HF-106), or the study's device is too
            slow for the window or token asked for (HF-103).
    """
    become = None
    if config.common_share:
        become = roll_ups(merged, config)
        merged = rolled_up(merged, become)
    order = sorted(range(len(merged.codes)), key=lambda i: (-merged.subjects[i], merged.codes[i]))
    asked = _asked_for(merged, config)
    order = _foremost(order, asked, config.max_codes)
    numeric = np.zeros(len(merged.codes), np.bool_)
    numeric[merged.sketch.code] = True
    codes = tuple(merged.codes[i] for i in order)
    wanted = np.array([i for i in order if numeric[i]], np.int64)
    points = np.arange(1, _PERCENTILES + 1) / (_PERCENTILES + 1)
    grid = values.quantile_buckets(merged.sketch, wanted, points)
    rows = {merged.codes[i]: tuple(grid[at].tolist()) for at, i in enumerate(wanted)}
    targets = [
        i
        for i in order
        if not numeric[i]
        and merged.timed_subjects[i] > 0
        and not merged.codes[i].startswith(WEARABLE_PREFIX)
    ]
    targets = _foremost(targets, asked, config.max_targets)
    all_visits = max(1, int(merged.all_visits.sum()))
    everyone = max(1, int(merged.modality_subjects[modality_names().index(EHR)]))
    return Vocabulary(
        codes=codes,
        domains=tuple(sorted({d for d in map(domain_of, codes) if d is not None})),
        value_bins=config.value_bins,
        percentiles=dict(sorted(rows.items())),
        targets=tuple(merged.codes[i] for i in targets),
        target_rates=tuple(float(merged.visits[i]) / all_visits for i in targets),
        onset_rates=tuple(float(merged.timed_subjects[i]) / all_visits for i in targets),
        label_rate=float(merged.label_values[1] / max(1, merged.label_values.sum())),
        panel=in_panel_order(merged.panel),
        wearable=study_wearable(merged, config),
        reach=tuple(min(1.0, float(merged.reached[i]) / everyone) for i in order),
        sites=tuple(min(SEVERAL, int(merged.sites[i])) for i in order),
        become=None if become is None else _kept(become, codes),
    )


def _kept(become: Mapping[str, str], codes: Sequence[str]) -> dict[str, str]:
    kept = {*codes}
    return {code: above for code, above in sorted(become.items()) if above in kept}


def _asked_for(merged: SiteStatistics, config: TokensConfig) -> set[int]:
    """Return where the concept sets' codes stand."""
    place = {code: i for i, code in enumerate(merged.codes)}
    asked = set()
    for name in config.concept_sets:
        at = place.get(concept_code(name), -1)
        if at < 0 or not merged.timed_subjects[at]:
            raise ConfigError(
                106,
                where=f"tokens.concept_sets.{name}",
                seen="no site has enough people in whose records it occurs",
                wanted=f"at least tokens.k_min={config.k_min} people of one site",
                do="Correct its codes and limits; `healthfm-client describe` names a store's codes",
            )
        asked.add(at)
    return asked


def _foremost(order: list[int], asked: set[int], most: int) -> list[int]:
    """Return those asked for and the first of the others, `most` together, in the same order."""
    others = [i for i in order if i not in asked][: max(0, most - len(asked))]
    kept = asked.union(others)
    return [i for i in order if i in kept]
