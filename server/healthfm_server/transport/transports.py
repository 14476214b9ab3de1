"""Which transport a study's updates travel by."""

from __future__ import annotations

from collections.abc import Mapping

from healthfm_core.federation.aggregation.aggregator import AggregationMethod
from healthfm_core.federation.protocol import Study
from healthfm_server.study_setup.registered_sites import RegisteredSite
from healthfm_server.transport.clear import ClearTransport
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.interface import Transport
from healthfm_server.transport.orders import Orders
from healthfm_server.transport.secure import SecureTransport


def transport_for(
    study: Study,
    sites: Mapping[str, RegisteredSite],
    exchange: Exchange,
    timeouts: Timeouts,
    orders: Orders,
    method: AggregationMethod,
) -> Transport:
    """Return the transport that the study's configuration asks for."""
    config = study.config.federation.aggregation
    if config.secure.enabled:
        return SecureTransport(study, sites, exchange, timeouts, orders)
    return ClearTransport(sites, exchange, timeouts, orders, method, config)
