"""Figures in Prometheus's text format: how a study or a site goes, and nothing about people.

Names follow Prometheus's: a name ends with its unit, and of an enumeration there is a series per
state, of which one is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Labels = TypeVar("_Labels", bound=tuple[str, ...])


def gauge(
    name: str, about: str, labels: tuple[str, ...], values: Mapping[_Labels, float | int]
) -> GaugeMetricFamily:
    """Return a gauge with a series per key of `values`.

    Args:
        name: Of the gauge.
        about: Its help.
        labels: Names of the labels.
        values: A value of each label → the figure; ``()`` for a gauge without labels.
    """
    family = GaugeMetricFamily(name, about, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def exposition(gauges: Iterable[GaugeMetricFamily]) -> bytes:
    """Return gauges in the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(gauges))
    return generate_latest(registry)


class _Given(Collector):
    """Collects what there is already."""

    def __init__(self, gauges: Iterable[GaugeMetricFamily]) -> None:
        self._gauges = tuple(gauges)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._gauges
