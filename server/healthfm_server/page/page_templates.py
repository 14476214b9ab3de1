"""The page's templates; every value is escaped, and a name that is missing is an error."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import jinja2


def part(name: str) -> str:
    """Return a name as one part of an address."""
    return quote(str(name), safe="")


def duration(seconds: float) -> str:
    """Return a time in its largest unit that fits."""
    for length, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.1f} s"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("healthfm_server.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        auto_reload=False,
        lstrip_blocks=True,
    )
    environment.filters |= {"part": part, "duration": duration}
    return environment


_TEMPLATES: Final = _environment()


def rendered(template: str, **values: Any) -> str:
    """Return a template's text with values filled in."""
    return _TEMPLATES.get_template(template).render(values)
