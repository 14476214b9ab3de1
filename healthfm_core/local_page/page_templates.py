"""The templates of a page; every value is escaped, and a name that is missing is an error."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import jinja2


def part(name: object) -> str:
    """Return a name as one part of an address."""
    return quote(str(name), safe="")


def duration(seconds: float) -> str:
    """Return a time in its largest unit that fits."""
    for length, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.1f} s"


class PageTemplates:
    """Templates of a package, and below them those that all pages share.

    Args:
        package: Has a folder ``templates``.
    """

    def __init__(self, package: str) -> None:
        loaders = [jinja2.PackageLoader(package), jinja2.PackageLoader(__package__ or "")]
        self._environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader(loaders),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            auto_reload=False,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"part": part, "duration": duration}

    def rendered(self, template: str, /, **values: Any) -> str:
        """Return a template's text with values filled in."""
        return self._environment.get_template(template).render(values)
