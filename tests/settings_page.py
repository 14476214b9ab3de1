"""Makes docs/settings.md from the schemas: python -m tests.settings_page > docs/settings.md."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config.compose import options, schema_keys
from healthfm_core.config.run import RunConfig
from healthfm_server.deploy.study_folder import StudySettings

HEAD = """# Settings

Made from the schemas by `python -m tests.settings_page > docs/settings.md`; a test fails when the
two differ. A key that is not here is refused with the nearest that is (HF-101). A duration, size or
rate has its unit in its name or its meaning; *off* stands for `null`.
"""
PARTS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    (
        "A run",
        "Given as `key=value` to `healthfm-simulate`, `healthfm-server run` and `healthfm-tune`. "
        "`group=option` takes a file of `configs/`, which holds nothing but such keys.",
        RunConfig,
    ),
    (
        "A site's policy, `site.yaml`",
        "Written by `healthfm-client enroll`; the site's own, read anew for each request. "
        "[At a site](at-a-site.md) has the words around it.",
        SitePolicy,
    ),
    (
        "A study, `study.yaml`",
        "Written by `healthfm-server init`, and read when the study's processes start. "
        "[A deployment](deployment.md) has the words around it.",
        StudySettings,
    ),
)
BOUNDS = {Ge: ("≥ {}", "ge"), Gt: ("> {}", "gt"), Le: ("≤ {}", "le"), Lt: ("< {}", "lt")}
NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


def page() -> str:
    """Return docs/settings.md."""
    return HEAD + "".join(_part(*part) for part in PARTS)


def _part(title: str, about: str, schema: type[BaseModel]) -> str:
    lines = [f"\n## {title}\n\n{about}\n"]
    for section, model in _sections(schema):
        rows = [_row(key, field) for key, field in _own(section, model)]
        if section:
            lines.append(f"\n### `{section}`\n\n{_about(model)}\n")
            lines.append(_options(section) if schema is RunConfig else "")
        if rows:
            lines.append("\n| key | takes | default | meaning |\n|---|---|---|---|\n")
            lines.extend(rows)
    return "".join(lines)


def _sections(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield "", schema
    for key, field in schema_keys(schema):
        if model := _model(field) or _model_or_off(field):
            yield key, model


def _own(section: str, model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if _model(field) is None:
            yield f"{section}.{name}" if section else name, field


def _model(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _model_or_off(field: FieldInfo) -> type[BaseModel] | None:
    kinds = [kind for kind in typing.get_args(field.annotation) if kind is not types.NoneType]
    is_one = len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel)
    return kinds[0] if is_one else None


def _about(model: type[BaseModel]) -> str:
    first = inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0]
    return " ".join(first.split())


def _options(section: str) -> str:
    names = options(section)
    said = ", ".join(f"`{section}={name}`" for name in names)
    return f"\nFiles of `configs/{section}`: {said}.\n" if names else ""


def _row(key: str, field: FieldInfo) -> str:
    bounds = [
        BOUNDS[type(bound)][0].format(_number(getattr(bound, BOUNDS[type(bound)][1])))
        for bound in field.metadata
        if type(bound) in BOUNDS
    ]
    kind = "keys below, or off" if _model_or_off(field) else _kind(field.annotation)
    takes = ", ".join([kind, *bounds])
    cells = (f"`{key}`", takes, _default(field), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _kind(annotation: Any) -> str:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in NAMES:
        return NAMES[annotation]
    if origin is typing.Annotated:
        return _kind(inside[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (types.UnionType, typing.Union):
        said = [_kind(kind) for kind in inside if kind is not types.NoneType]
        return " or ".join([*said, "off"] if types.NoneType in inside else said)
    if origin in (tuple, list):
        return f"list of {_kind(inside[0])}"
    if origin is dict:
        return f"{_kind(inside[0])} → {_kind(inside[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "; ".join(f"`{name}`" for name in annotation.model_fields)
    return re.sub(r"^.*\.", "", str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*to be given*"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or value is None:
        return "*off*"
    return f"`{_shown(value)}`"


def _shown(value: Any) -> str:
    if isinstance(value, BaseModel):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value if v is not None)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return _number(value) if isinstance(value, (int, float)) else str(value) or '""'


def _number(value: float) -> str:
    return f"{value:.6g}"


if __name__ == "__main__":
    sys.stdout.write(page())
