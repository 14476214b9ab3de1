"""Configuration group ``simulation``: engine and arms of a simulated federation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from healthfm_core.config.base import Schema

Arm = Literal["federated", "fedavg", "local", "centralised"]


class SimulationConfig(Schema):
    """How the federation is simulated on one machine."""

    engine: Literal["inprocess", "ray"] = "inprocess"
    threads: int = Field(
        1, ge=1, description="torch threads of a training process; small models gain by none more"
    )
    arms: tuple[Arm, ...] = ("federated", "fedavg", "local", "centralised")
    replicates: int = Field(1, ge=1, description="seeds seed, seed+1, …; intervals over them")
    workers: int = Field(1, ge=1, description="replicates at work at a time, a process each")
    ray_address: str | None = None
