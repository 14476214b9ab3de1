"""A description as one page that needs no other file, for a data steward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from healthfm_client.site.private_file import write_private

_TEMPLATES: Final = ("healthfm_client.site_store.description", "healthfm_core.evaluation.report")
"""The page's own, and the report's style, so that both look alike."""
WITHHELD: Final = "withheld"


def page(stores: Sequence[dict[str, Any]]) -> str:
    """Return the HTML of what `facts.describe` says of one store or several."""
    import jinja2  # here: commands that write no page need not wait for it

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "percent": percent, "range": quartile_range}
    return environment.get_template("description.html.j2").render(stores=stores)


def write_page(file: Path, text: str) -> None:
    """Write the page to a new file that only its owner may read.

    Raises:
        RunError: HF-711.
    """
    write_private(file, text)


def count(value: int | None) -> str:
    """Return a count as it is shown."""
    return WITHHELD if value is None else f"{value:,}"


def percent(share: float) -> str:
    """Return a share in percent, no rounding to 0 or 100 of what is neither."""
    shown = f"{100 * share:.0f} %" if share in (0.0, 1.0) else f"{100 * share:.1f} %"
    if shown == "100.0 %":
        return "over 99.9 %"
    return "under 0.1 %" if shown == "0.0 %" else shown


def quartile_range(values: Sequence[float] | None) -> str:
    """Return quartiles as ``median (lower to upper)``."""
    if values is None:
        return WITHHELD
    low, middle, high = values
    return f"{middle:,g} ({low:,g} to {high:,g})"
