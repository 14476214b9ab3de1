"""Configuration group ``network``: the lines and computers of simulated sites, in virtual time."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema


class SiteSpread(Schema):
    """A number that each site has a value of: lognormal over the sites."""

    median: float = Field(gt=0)
    factor: float = Field(
        1.0, ge=1, description="two thirds of the sites are within this factor of the median"
    )


class NetworkConfig(Schema):
    """What stands between a coordinator and its sites; time passes in the simulation alone.

    One medium hospital line and an ordinary computer are the defaults. The seed of the run draws
    every site's values, and what happens to each order.
    """

    enabled: bool = Field(
        False, description="whether rounds take the time that lines and computers would"
    )
    down_mbit_s: SiteSpread = Field(
        SiteSpread(median=100), description="what a site gets, megabits a second"
    )
    up_mbit_s: SiteSpread = Field(SiteSpread(median=50), description="what a site can send")
    latency_ms: SiteSpread = Field(
        SiteSpread(median=20), description="there and back, between site and coordinator"
    )
    loss: float = Field(
        0.0, ge=0, lt=1, description="share of packets that are lost, which slows TCP down"
    )
    coordinator_mbit_s: float = Field(
        1000.0, gt=0, description="the coordinator's own line, each way, which its sites share"
    )
    steps_per_s: SiteSpread = Field(
        SiteSpread(median=10), description="local training steps of a site's computer"
    )
    idle_s: float = Field(
        2.0,
        ge=0,
        description="of an order that nobody works on it and nothing travels: looks for news at "
        "both ends, checks and the checkpoint",
    )
    slow_share: float = Field(
        0.0, ge=0, le=1, description="share of orders at which a site's computer is busy"
    )
    slow_factor: float = Field(5.0, ge=1, description="how much longer those take to compute")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of orders that a site loses and never answers"
    )
    hours: tuple[float, float] | None = Field(
        None,
        description="from when to when of the day a site computes, by its own clock, as [20,6]; "
        "what comes at other times waits; None: always",
    )
    time_zones: tuple[float, float] = Field(
        (0.0, 0.0), description="between which hours of UTC the sites' clocks lie, evenly"
    )
    clock_error_s: float = Field(
        0.0,
        ge=0,
        description="standard deviation of a site's clock; over 10 s ahead or 300 s behind it is "
        "refused, as in a deployment",
    )
    trace: str | None = Field(
        None,
        description="a CSV table of measured values with the columns site, at_s and any of "
        "down_mbit_s, up_mbit_s, latency_ms, loss, steps_per_s, online; a row holds until the "
        "site's next",
    )
    target: float | None = Field(
        None,
        description="tuning metric up to which time and bytes are counted; None: the best that "
        "every arm reached",
    )

    @model_validator(mode="after")
    def _hours_are_of_a_day(self) -> Self:
        if self.hours is None:
            return self
        begin, end = self.hours
        if not (0 <= begin < 24 and 0 <= end <= 24 and begin != end):
            raise ValueError("network.hours are two different hours of the day, 0 to 24")
        return self

    @model_validator(mode="after")
    def _zones_are_in_order(self) -> Self:
        west, east = self.time_zones
        if not -12 <= west <= east <= 14:
            raise ValueError("network.time_zones go from west to east, -12 to 14 hours of UTC")
        return self
