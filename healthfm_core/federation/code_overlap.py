"""Whether the sites of a study use the same codes: what a coordinator is told before round 1.

Sites learn from each other through codes that they share. Two hospitals whose diagnoses stand in
ICD-10 and in SNOMED train together without a word of it, and neither learns from the other. What
the sites share comes from round 0 alone: of all sites from the statistics, which count the sites of
a code (as sums too), of each site from what it answers to the study (`tokens.coverage`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from healthfm_core.errors import ProtocolError
from healthfm_core.tokens.coverage import SHARED
from healthfm_core.tokens.shared_channels import DeviceUse
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.vocabulary import domain_of

MOST_LISTED: Final = 20
"""Units that do not meet, at most."""
ROLLED_UP: Final = "codes rolled up"
"""The run's event that tells it."""
NO_DOMAIN: Final = "no domain"


@dataclass(frozen=True)
class DomainOverlap:
    """Codes of one domain over all sites.

    Attributes:
        domain: What stands before a code's first ``//``.
        codes: Codes that a site let out.
        shared: Those that more than one site let out.
        share: Of the pairs (person, code), those of shared codes; 0 to 1.
    """

    domain: str
    codes: int
    shared: int
    share: float


@dataclass(frozen=True)
class CodeOverlap:
    """What the sites of a study share.

    Attributes:
        share: Of the pairs (person, code) of all sites, those of codes that more than one site
            let out; 0 to 1.
        domains: By domain, most pairs first.
        units: Codes with values that stand in several units of which no two sites share one, as
            ``LOINC//2345-7 in mg/dL and mmol/L``.
    """

    share: float
    domains: tuple[DomainOverlap, ...]
    units: tuple[str, ...]

    @classmethod
    def of(cls, merged: SiteStatistics) -> CodeOverlap:
        """Return the overlap of sites from their merged statistics."""
        by_domain: dict[str, list[int]] = {}
        pairs = shared_pairs = 0
        for code, people, sites in zip(merged.codes, merged.subjects, merged.sites, strict=True):
            counts = by_domain.setdefault(domain_of(code) or NO_DOMAIN, [0, 0, 0, 0])
            ours = (1, int(sites > 1), int(people), int(people) * int(sites > 1))
            counts[:] = [a + b for a, b in zip(counts, ours, strict=True)]
            pairs, shared_pairs = pairs + ours[2], shared_pairs + ours[3]
        domains = [
            DomainOverlap(name, codes, shared, shared_of / max(1, of))
            for name, (codes, shared, of, shared_of) in sorted(
                by_domain.items(), key=lambda item: (-item[1][2], item[0])
            )
        ]
        return cls(shared_pairs / max(1, pairs), tuple(domains), tuple(_apart(merged)))

    def to_event(self) -> dict[str, Any]:
        """Return the fields of the run's event."""
        return asdict(self)

    def rolled_up(self, before: CodeOverlap) -> dict[str, Any]:
        """Return the fields of the run's event that tells what rolling codes up changed."""
        return {
            "codes_before": sum(domain.codes for domain in before.domains),
            "codes_after": sum(domain.codes for domain in self.domains),
            "share_before": before.share,
            "share_after": self.share,
        }

    def check(self, least: float) -> None:
        """Refuse sites that hardly share a code.

        Args:
            least: The study's `federation.min_shared_codes`.

        Raises:
            ProtocolError: HF-410.
        """
        if self.share < least:
            said = "; ".join(f"{d.domain}: {d.shared} of {d.codes} codes" for d in self.domains[:4])
            raise ProtocolError(
                410,
                where="the sites' codes before round 1",
                seen=f"{100 * self.share:.1f} % of what is recorded of people stands under codes "
                f"that more than one site has ({said})",
                wanted=f"at least {100 * least:g} %",
            )


def _apart(merged: SiteStatistics) -> Iterator[str]:
    units: dict[str, list[tuple[str, int]]] = {}
    with_values = set(merged.sketch.code.tolist())
    for at, (code, sites) in enumerate(zip(merged.codes, merged.sites, strict=True)):
        parts = code.split("//")
        if len(parts) > 2 and at in with_values:
            units.setdefault("//".join(parts[:2]), []).append(("//".join(parts[2:]), int(sites)))
    for stem, found in sorted(units.items()):
        if len(found) > 1 and all(sites == 1 for _, sites in found):
            yield f"{stem} in {' and '.join(unit for unit, _ in found)}"


def too_little(coverage: Mapping[str, float], least: float) -> str | None:
    """Return why a site takes no part, None where it shares enough or says nothing of it.

    Args:
        coverage: What the site answered to the study.
        least: The study's `federation.min_shared_codes`.
    """
    share = coverage.get(SHARED)
    if share is None or share >= least:
        return None
    error = ProtocolError(
        410,
        where="the site's codes before round 1",
        seen=f"{100 * share:.1f} % of its events stand under codes that another site has",
        wanted=f"at least {100 * least:g} %",
    )
    return str(error)


def told_coverage(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return site → what it answered to the study, from a run's events."""
    return {e["site"]: e["coverage"] for e in events if e["event"] == "prepared"}


def told_devices(events: Iterable[Mapping[str, Any]]) -> str:
    """Return which devices train together and which are not read, '' where there is one."""
    uses = [DeviceUse(e["read"], e["left_out"]) for e in events if e["event"] == "devices"]
    return uses[-1].sentence() if uses else ""


def told_roll_up(events: Iterable[Mapping[str, Any]]) -> str:
    """Return what rolling codes up changed, '' where the study rolls none up."""
    told = [e for e in events if e["event"] == ROLLED_UP]
    if not told:
        return ""
    codes = f"{told[-1]['codes_before']:,} codes became {told[-1]['codes_after']:,}"
    shares = f"{percent(told[-1]['share_before'])} to {percent(told[-1]['share_after'])}"
    return (
        f"Codes that few sites know rolled up to ancestors that more know: {codes}; of what is "
        f"recorded of people {shares} stand under codes that more than one site has"
    )


def told_units(events: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the units that do not meet at the sites, from a run's events."""
    told = [tuple(e["units"]) for e in events if e["event"] == "code overlap"]
    return told[-1] if told else ()


def overlap_sentence(coverage: Mapping[str, Mapping[str, float]], enough: float = 2.0) -> str:
    """Return what the sites share in one sentence, '' where they do not say, or all have enough.

    Args:
        coverage: Site → what it answered to the study.
        enough: Share from which on a site is not spoken of; more than 1 speaks of every study.
    """
    shares = {site: found[SHARED] for site, found in coverage.items() if SHARED in found}
    if len(shares) < 2 or min(shares.values()) >= enough:
        return ""
    least = min(shares, key=lambda site: (shares[site], site))
    return (
        f"Codes: {percent(shares[least])} (at {least}) to {percent(max(shares.values()))} of a "
        "site's events stand under codes that another site has too"
    )


def percent(share: float | None) -> str:
    """Return a share as people read it; – is none."""
    return "–" if share is None else f"{100 * share:.0f} %"
