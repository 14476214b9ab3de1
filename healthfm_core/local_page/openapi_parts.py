"""What a description of an API is made of, as OpenAPI 3.1 has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from healthfm_core.local_page.page_access import API

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
TIME: Final[Schema] = {"type": "string", "description": "ISO 8601 in UTC; empty where unknown"}
COUNT: Final[Schema] = {"type": "integer"}
YES: Final[Schema] = {"type": "boolean"}
FIGURE_OR_NULL: Final[Schema] = {"type": ["number", "null"]}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}
REASONS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
FIGURES: Final[Schema] = {"type": "object", "additionalProperties": {"type": "number"}}
ROWS: Final[Schema] = {"type": "array", "items": {"type": "object"}}
ANY: Final[Schema] = {"type": "object"}


@dataclass(frozen=True)
class ApiCall:
    """One thing that may be asked.

    Attributes:
        summary: What it is, in a line.
        answer: What comes back.
        parameters: In the path and the query.
        body: What is sent; None: nothing.
        status: Of the answer when it was done.
    """

    summary: str
    answer: Schema
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    status: str = "200"

    def described(self) -> dict[str, Any]:
        """Return it as the description has it."""
        content = {"application/json": {"schema": self.answer}}
        told: dict[str, Any] = {
            "summary": self.summary,
            "parameters": list(self.parameters),
            "responses": {
                self.status: {"description": "done", "content": content},
                **_refusals(),
            },
        }
        if self.body:
            told["requestBody"] = {"content": {"application/json": {"schema": self.body}}}
        return told


def object_of(**properties: Schema) -> Schema:
    """Return the schema of an object that has all of these."""
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def reference(name: str) -> Schema:
    """Return a reference to a schema that has a name."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(name: str) -> Schema:
    """Return the schema of a list of what has a name."""
    return {"type": "array", "items": reference(name)}


def in_path(name: str) -> Schema:
    """Return a parameter that is a part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def in_query(name: str, description: str, schema: Schema = COUNT) -> Schema:
    """Return a parameter of the query, which may be left out."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def described_api(
    title: str,
    reads: Mapping[str, ApiCall],
    changes: Mapping[str, ApiCall],
    schemas: Mapping[str, Schema],
) -> dict[str, Any]:
    """Return the description of an API.

    Args:
        title: Its name.
        reads: Path below the API's → what GET answers.
        changes: Path below the API's → what POST does.
        schemas: Those with a name.
    """
    paths: dict[str, Any] = {}
    for method, calls in (("get", reads), ("post", changes)):
        for path, call in calls.items():
            paths.setdefault(f"{API}{path}", {})[method] = call.described()
    error = {**object_of(error=TEXT), "description": "with `code` where there is one"}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version("healthfm")},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": error},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _refusals() -> dict[str, Any]:
    said = {
        "400": "cannot be done; the sentence says why",
        "401": "no token, or one that is not known",
        "403": "what the token stands for does not permit it",
        "404": "there is no such thing",
    }
    content = {"application/json": {"schema": reference("Error")}}
    return {status: {"description": text, "content": content} for status, text in said.items()}
