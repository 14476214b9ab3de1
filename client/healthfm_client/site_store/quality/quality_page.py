"""The quality of stores as one page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from healthfm_client.site_store.description.description_page import count, percent
from healthfm_client.site_store.quality.quality_file import QualityReport

CATEGORIES = ("conformance", "completeness", "plausibility")


def quality_page(reports: Sequence[QualityReport]) -> str:
    """Return the HTML of what was found: a table of the three categories, then each check."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("healthfm_client.site_store.quality"),
                jinja2.PackageLoader("healthfm_core.evaluation.report"),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "percent": percent}
    template = environment.get_template("quality.html.j2")
    return template.render(reports=reports, categories=CATEGORIES)
