"""Configuration group ``plan``: how long a study of so many sites would take."""

from __future__ import annotations

from pydantic import Field

from healthfm_core.config.base import Schema


class PlanConfig(Schema):
    """What a coordinator who plans a study knows of it; the lines are ``network``'s."""

    sites: int | None = Field(
        None, ge=1, le=100_000, description="how many; None: no plan, the simulation is run"
    )
    people: int | None = Field(
        None, ge=1, description="training people of a middling site; None: as the data's sites have"
    )
    people_factor: float = Field(
        2.0, ge=1, description="two thirds of the sites have so many times more or fewer at most"
    )
    measure: bool = Field(
        True,
        description="whether a middling site's steps a second are measured on this computer; "
        "false: network.steps_per_s as it is",
    )
    alternatives: bool = Field(
        True, description="whether other settings are reckoned beside those asked about"
    )
