"""Configuration group ``simulation``: engine and arms of a simulated federation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from healthfm_core.config.base import Schema

Arm = Literal["federated", "fedavg", "local", "ensemble", "centralised", "imputed", "twin"]


class CentralisedConfig(Schema):
    """What the centralised arm does otherwise than a site, so that its budget can be fair to it."""

    local_epochs: float | None = Field(
        None, gt=0, description="passes over everybody per round; None: train.local_epochs"
    )
    batch_size: int | None = Field(None, ge=1, description="None: train.batch_size")
    lr: float | None = Field(None, gt=0, description="None: train.lr")
    server_optimizer: bool = Field(
        True, description="whether the federation's server optimiser works on its rounds too"
    )
    site_intercepts: bool = Field(
        False, description="whether it answers at each site with the site's own intercepts"
    )


class SimulationConfig(Schema):
    """How the federation is simulated on one machine."""

    engine: Literal["inprocess", "ray"] = "inprocess"
    threads: int = Field(
        1, ge=1, description="torch threads of a training process; small models gain by none more"
    )
    arms: tuple[Arm, ...] = ("federated", "fedavg", "local", "centralised")
    baselines: bool = Field(
        True, description="whether simpler models of the same inputs are fitted beside the arms"
    )
    centralised: CentralisedConfig = CentralisedConfig()
    joins: dict[str, int] = Field(
        default_factory=dict,
        description="site → first round it takes part in, 2 or later; it was not there when the "
        "others agreed on codes and modalities",
    )
    leaves: dict[str, int] = Field(
        default_factory=dict, description="site → last round it takes part in"
    )
    replicates: int = Field(1, ge=1, description="seeds seed, seed+1, …; intervals over them")
    workers: int = Field(
        1,
        ge=1,
        description="processes at work at a time: a replicate each, or an arm each where there is "
        "one replicate; what is computed does not depend on it",
    )
    regions: int = Field(
        0,
        ge=0,
        description="regional coordinators among which the sites are divided, who add their own "
        "sites up; to the same bits; 0: none",
    )
    ray_address: str | None = None
