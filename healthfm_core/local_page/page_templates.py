"""The templates of a page; every value is escaped, and a name that is missing is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from healthfm_core.trust.names import plain_text


def part(name: object) -> str:
    """Return a name as one part of an address."""
    return quote(str(name), safe="")


def duration(seconds: float) -> str:
    """Return a time in its largest unit that fits."""
    for length, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.1f} s"


def moment(at: str) -> Markup:
    """Return a time, ISO 8601 in UTC, as an element that says it to the minute."""
    shown = f"{at[:10]} {at[11:16]} UTC"
    return Markup('<time datetime="{}">{}</time>').format(at, shown) if at else Markup("never")


def day(seconds: float) -> str:
    """Return the day of a time in seconds since 1970, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


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
        self._environment.filters |= {
            "part": part,
            "duration": duration,
            "plain": plain_text,
            "moment": moment,
            "day": day,
        }

    def rendered(self, template: str, /, **values: Any) -> str:
        """Return a template's text with values filled in."""
        return self._environment.get_template(template).render(values)
