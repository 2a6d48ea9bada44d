"""The OpenAPI 3.1 page, made from the table of operations."""

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from edge.admin.api.operation import Operation
from edge.admin.api.problems import MEDIA, ProblemBody

PREFIX = "/api/v1"
_REF = "#/components/schemas/{name}"
_NAME = re.compile(r"\{(\w+)\}")


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole page."""
    types = _types(operations)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = _describe(operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ClickEdge", "version": version("clickedge")},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _types(operations: Iterable[Operation]) -> list[Any]:
    found: list[Any] = [ProblemBody]
    for one in operations:
        found += [kind for kind in (one.path_type, one.query_type, one.body_type, one.answer_type) if kind is not None]
    return list({id(kind): kind for kind in found}.values())


def _describe(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "As asked."}
    if operation.answer_type is not None:
        good["content"] = {"application/json": {"schema": schema_of[id(operation.answer_type)]}}
    for media in operation.media:
        good.setdefault("content", {})[media] = {"schema": {"type": "string"}}
    problem = {"description": "A problem.", "content": {MEDIA: {"schema": schema_of[id(ProblemBody)]}}}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": "Keys of scope " + ", ".join(operation.scopes) + ".",
        "parameters": [*_parameters(operation.path_type, "path"), *_parameters(operation.query_type, "query")],
        "responses": {str(operation.status): good, "default": problem},
    }
    if operation.body_type is not None:
        body = {"schema": schema_of[id(operation.body_type)]}
        described["requestBody"] = {"required": True, "content": {"application/json": body}}
    return described


def _parameters(kind: type[msgspec.Struct] | None, place: str) -> Iterable[dict[str, Any]]:
    if kind is None:
        return
    for field in msgspec.structs.fields(kind):
        schemas, _ = msgspec.json.schema_components([field.type], ref_template=_REF)
        yield {
            "name": field.encode_name,
            "in": place,
            "required": place == "path" or field.required,
            "schema": schemas[0],
        }
