"""Which wearable channels and scores of a panel the sites have, and which of them others have too.

Beside the codes (`code_overlap`) these are what the sites of a study learn from together: a channel
that one site alone has is learned from one site, and so is a polygenic score. All of it comes from
round 0, under each site's own threshold. In the clear the coordinator knows what each site let out;
from sums that hide the sites it knows only how many have each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from healthfm_core.modalities.registry import find, modality_of_column
from healthfm_core.tokens.shared_channels import features_of, features_of_several
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.wearing import WearableSpec

INPUTS: Final = "wearables and scores"
"""The run's event that tells it."""
_CHANNELS: Final = "channels"


@dataclass(frozen=True)
class HeldAndShared:
    """How many inputs of one kind there are.

    Attributes:
        held: Those of a site, or of all sites.
        shared: Of these, those that another site has too; of all sites, those that several have.
    """

    held: int
    shared: int

    def cell(self) -> str:
        """Return it as a table's cell."""
        return f"{self.held:,}, {self.shared:,} shared" if self.held else "–"


@dataclass(frozen=True)
class SiteInputs:
    """What one site has.

    Attributes:
        channels: Of its wearable devices. One is shared where the study reads it together with a
            channel of another site, that of another device perhaps.
        panels: Modality with a panel (genomics) → its columns.
        devices: Device → channels, by name.
        shared: Device → those of its channels that are shared; a device without any is left out.
    """

    channels: HeldAndShared
    panels: Mapping[str, HeldAndShared]
    devices: Mapping[str, tuple[str, ...]]
    shared: Mapping[str, tuple[str, ...]]

    def sentence(self, site: str) -> str:
        """Return which channels a site has, and which of them others have too; '' without any."""
        of = [f"{device} ({', '.join(names)})" for device, names in sorted(self.devices.items())]
        shared = [name for _, names in sorted(self.shared.items()) for name in names]
        others = (
            f"others have {', '.join(sorted({*shared}))}" if shared else "no other site has any"
        )
        return f"wearables at {site}: {', '.join(of)}; {others}" if of else ""


@dataclass(frozen=True)
class InputOverlap:
    """What the sites of a study have.

    Attributes:
        channels: The study's wearable channels, and of how many of them several sites have
            samples; from sums at least so many, since a site may have two devices.
        panels: Modality with a panel → its columns.
        sites: Site → what it has; empty where sums hide it.
    """

    channels: HeldAndShared
    panels: Mapping[str, HeldAndShared]
    sites: Mapping[str, SiteInputs]

    @classmethod
    def of(
        cls,
        merged: SiteStatistics,
        each: Mapping[str, SiteStatistics],
        spec: WearableSpec | None,
    ) -> InputOverlap:
        """Return what the sites have, of their statistics.

        Args:
            merged: The sum of them.
            each: Site → its own, where it is known.
            spec: What the study reads of wearables.
        """
        common = features_of_several(merged, [of.channels for of in each.values()], spec)
        several = {name for name, n in zip(merged.panel, merged.panel_sites, strict=True) if n > 1}
        return cls(
            HeldAndShared(0 if spec is None else len(spec.channels), len(common)),
            _by_panel(merged.panel, several),
            {name: _of_site(of, spec, common, several) for name, of in sorted(each.items())},
        )

    def is_empty(self) -> bool:
        """Whether no site let out anything of them."""
        with_devices = any(site.devices for site in self.sites.values())
        return not (self.panels or self.channels.held or with_devices)

    def to_event(self) -> dict[str, Any]:
        """Return the fields of the run's event."""
        return asdict(self)

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> InputOverlap:
        """Return what `to_event` told."""
        return cls(
            HeldAndShared(**event["channels"]),
            _read_panels(event["panels"]),
            {
                site: SiteInputs(
                    HeldAndShared(**of["channels"]),
                    _read_panels(of["panels"]),
                    {device: tuple(names) for device, names in of["devices"].items()},
                    {device: tuple(names) for device, names in of["shared"].items()},
                )
                for site, of in event["sites"].items()
            },
        )

    def heads(self) -> list[str]:
        """Return a table's heads, of what any site has; none where that is hidden."""
        channels = any(site.channels.held for site in self.sites.values())
        return [*[_CHANNELS] * channels, *map(_head, self._panels_held())]

    def cells(self, site: str) -> list[str]:
        """Return a site's cells under the `heads`."""
        nothing = HeldAndShared(0, 0)
        of = self.sites.get(site, SiteInputs(nothing, {}, {}, {}))
        channels = [of.channels.cell()] if _CHANNELS in self.heads() else []
        return [*channels, *(of.panels.get(name, nothing).cell() for name in self._panels_held())]

    def sentences(self) -> Iterator[str]:
        """Yield how many channels and scores several sites have, and who shares fewest."""
        if self.channels.held:
            least = "at least " if self.channels.shared and not self.sites else ""
            yield (
                f"Wearable channels: {least}{self.channels.shared} of the study's "
                f"{self.channels.held} at more than one site"
            )
        for name, of in self.panels.items():
            fewest = {
                site: held.panels[name] for site, held in self.sites.items() if name in held.panels
            }
            site = min(fewest, key=lambda site: (fewest[site].shared, site), default="")
            at = f"; fewest of these at {site}, {fewest[site].shared:,}" if site else ""
            head = _head(name).capitalize()
            yield f"{head}: {of.shared:,} of {of.held:,} at more than one site{at}"

    def of_devices(self) -> Iterator[str]:
        """Yield which wearable channels each site has."""
        yield from filter(None, (of.sentence(site) for site, of in self.sites.items()))

    def _panels_held(self) -> list[str]:
        return [
            name for name in self.panels if any(name in of.panels for of in self.sites.values())
        ]


def told_inputs(events: Iterable[Mapping[str, Any]]) -> InputOverlap | None:
    """Return what the sites have, from a run's events; None in a run of before."""
    told = [event for event in events if event["event"] == INPUTS]
    return InputOverlap.from_event(told[-1]) if told else None


def _head(modality: str) -> str:
    return find(modality).events_counted_as


def _of_site(
    own: SiteStatistics, spec: WearableSpec | None, common: set[str], several: set[str]
) -> SiteInputs:
    devices: dict[str, list[str]] = defaultdict(list)
    shared: dict[str, list[str]] = defaultdict(list)
    for pair, feature in features_of(own.channels, spec).items():
        devices[pair[0]].append(pair[1])
        if feature in common:
            shared[pair[0]].append(pair[1])
    return SiteInputs(
        HeldAndShared(len(own.channels), sum(map(len, shared.values()))),
        _by_panel(own.panel, several),
        {device: tuple(names) for device, names in devices.items()},
        {device: tuple(names) for device, names in shared.items()},
    )


def _by_panel(columns: Iterable[str], several: set[str]) -> dict[str, HeldAndShared]:
    found: dict[str, list[bool]] = defaultdict(list)
    for column in columns:
        found[modality_of_column(column)].append(column in several)
    return {name: HeldAndShared(len(of), sum(of)) for name, of in sorted(found.items())}


def _read_panels(raw: Mapping[str, Mapping[str, int]]) -> dict[str, HeldAndShared]:
    return {name: HeldAndShared(**of) for name, of in raw.items()}
