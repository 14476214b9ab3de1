"""A site's figures as Prometheus reads them: what its own monitoring watches. Nothing is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily

from healthfm_core.prometheus_text import exposition, gauge
from healthfm_core.trust.chained_log import Entry

STATES: Final = ("open", "paused", "left")
"""Of a site, as `SiteHome.state` names them."""


def site_metrics(
    status: Mapping[str, Any],
    certificate_ends: datetime,
    entries: Iterable[Entry],
    budget: Mapping[str, float | None],
    now: datetime,
) -> bytes:
    """Return a site's figures in Prometheus's text format.

    Args:
        status: What the command ``status`` says.
        certificate_ends: When the site's certificate ends.
        entries: The lines of the egress log.
        budget: ``spent`` and ``limit``, ε; None where there is none.
        now: When this was read, so that a file which nobody writes any more is noticed.
    """
    gauges = [*_of_site(status, certificate_ends, now), *_of_log(entries), *_of_budget(budget)]
    return exposition(gauges)


def _of_site(
    status: Mapping[str, Any], certificate_ends: datetime, now: datetime
) -> Iterator[GaugeMetricFamily]:
    said = (status["site"], status["study"])
    yield gauge("healthfm_site_info", "always 1", ("site", "study"), {said: 1})
    states = {(state,): int(status["state"] == state) for state in STATES}
    yield gauge("healthfm_site_state", "1 for the site's state", ("state",), states)
    for name, about, value in (
        ("processes_up", "1 while the site's processes run", status["processes_run"]),
        ("working_hours", "1 at an hour that site.yaml has", status["works_at_this_hour"]),
        ("connection_refused", "1 after the study refused it", bool(status["connection_refused"])),
        ("approvals_waiting", "runs that ask a person here", status["runs_waiting"]),
        ("certificate_end_timestamp_seconds", "its end", certificate_ends.timestamp()),
        ("read_timestamp_seconds", "when these figures were read", now.timestamp()),
    ):
        yield gauge(f"healthfm_site_{name}", about, (), {(): float(value)})


def _of_log(entries: Iterable[Entry]) -> Iterator[GaugeMetricFamily]:
    sent: Counter[tuple[str, ...]] = Counter()
    messages: Counter[tuple[str, ...]] = Counter()
    refused: Counter[tuple[str, ...]] = Counter()
    last: dict[tuple[str, ...], float] = {}
    for entry in entries:
        what = (str(entry["what"]),)
        if "refused" in entry:
            refused[what] += 1
        elif "bytes" in entry:
            sent[what] += int(entry["bytes"])
            messages[what] += 1
            last[()] = datetime.fromisoformat(entry["at"]).timestamp()
    labels = ("what",)
    yield gauge("healthfm_site_egress_bytes", "what has left, by kind", labels, sent)
    yield gauge("healthfm_site_egress_messages", "how often it has", labels, messages)
    yield gauge("healthfm_site_refusals", "refusals on record, by what for", labels, refused)
    yield gauge("healthfm_site_last_egress_timestamp_seconds", "when something left", (), last)


def _of_budget(budget: Mapping[str, float | None]) -> Iterator[GaugeMetricFamily]:
    for name, about in (("spent", "ε of all studies together"), ("limit", "most ε that may be")):
        value = budget[name]
        known = {} if value is None else {(): value}
        yield gauge(f"healthfm_site_epsilon_{name}", about, (), known)
