"""What a site asks of every sum it takes part in: ``sums`` in its site.yaml."""

from __future__ import annotations

from pydantic import Field

from healthfm_core.config.base import Schema


class SumRules(Schema):
    """The site's own floors under secure aggregation."""

    min_sites: int = Field(2, ge=2, description="fewest sites in a sum")
    min_subjects: int = Field(
        1, ge=1, description="fewest training subjects of all sites of a sum together"
    )
    same_sites_in_every_round: bool = Field(
        False,
        description="a sum is of the sites of the first one, in every round: no difference of two "
        "rounds tells anything of one site, and no round goes on while a site is away",
    )
    other_sites_in_a_new_run: bool = Field(
        False,
        description="a new run may add up the same numbers over other sites than an earlier one "
        "did; the difference of both sums is what the sites sent that differ",
    )
