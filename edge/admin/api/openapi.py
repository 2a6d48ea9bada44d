"""The OpenAPI 3.1 page, made from the table of operations."""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec

from edge.admin.api.decoding import PATCH_MEDIA
from edge.admin.api.operation import Operation, Shape
from edge.admin.api.problems import MEDIA, ProblemBody

PREFIX = "/api/v1"
_REF = "#/components/schemas/{name}"
_ABOUT = """One JSON API for all that the console shows. Money and ratios are exact JSON numbers, times RFC 3339 with an
offset. Errors are `application/problem+json` with every field at fault. Lists answer `data` and `next_cursor`."""
_JSON = "application/json"
_TEXT: dict[str, Any] = {"type": "string"}
_DECIMAL: dict[str, Any] = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?[0-9]{1,18}(\.[0-9]{1,18})?$"}]
}

Page = dict[str, Any]


def describe(operations: Sequence[Operation]) -> Page:
    """The whole page."""
    types = _types(operations)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of: dict[int, Any] = dict(zip(map(id, types), schemas, strict=True))
    for shape in _shapes(operations):
        schema_of[id(shape)] = shape.schema
        components.update(shape.components)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = _describe(operation, schema_of)
    page = {
        "openapi": "3.1.0",
        "info": {"title": "ClickEdge", "version": version("clickedge"), "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": name} for name in dict.fromkeys(map(_tag, operations))],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _headers(),
            "responses": _problems(operations, schema_of[id(ProblemBody)]),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer ce_…`"}
            },
        },
    }
    written: Page = _write_decimals(page)
    return written


def _write_decimals(value: Any) -> Any:
    """The page with decimals as they are written: as numbers, read also as text."""
    if isinstance(value, Mapping):
        if value.get("format") == "decimal":
            kept = {name: one for name, one in value.items() if name not in ("type", "format", "default")}
            return {**kept, **_DECIMAL}
        return {name: _write_decimals(one) for name, one in value.items()}
    return [_write_decimals(one) for one in value] if isinstance(value, list | tuple) else value


def _types(operations: Iterable[Operation]) -> list[Any]:
    found: list[Any] = [ProblemBody]
    for one in operations:
        kinds = (one.body_type, one.answer_type, one.preview_type)
        found += [kind for kind in kinds if kind is not None]
    return list({id(kind): kind for kind in found if not isinstance(kind, Shape)}.values())


def _shapes(operations: Iterable[Operation]) -> Iterable[Shape]:
    for one in operations:
        yield from (kind for kind in (one.body_type, one.answer_type) if isinstance(kind, Shape))


def _describe(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [_tag(operation)],
        "summary": operation.summary,
        "description": f"For keys of the scope {' or '.join(operation.scopes)}.",
        "parameters": [
            *_parameters(operation.path_type, "path"),
            *_parameters(operation.query_type, "query"),
            *_request_headers(operation),
        ],
        "responses": {
            **_good_answers(operation, schema_of),
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in _statuses(operation)},
            "default": {"$ref": "#/components/responses/default"},
        },
    }
    if operation.body_type is not None:
        body: dict[str, Any] = {"schema": schema_of[id(operation.body_type)]}
        if operation.example is not None:
            body["example"] = operation.example
        media = (_JSON, PATCH_MEDIA) if operation.method == "PATCH" else (_JSON,)
        described["requestBody"] = {"required": True, "content": dict.fromkeys(media, body)}
    return described


def _good_answers(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    answers = {str(operation.status): _good(operation, schema_of)}
    if operation.preview_type is not None:
        preview = schema_of[id(operation.preview_type)]
        description = "With `dry_run=true`: what would change."
        if operation.status == 200:
            content = answers["200"]["content"][_JSON]
            content["schema"] = {"anyOf": [content["schema"], preview]}
            answers["200"]["description"] += f" {description}"
            del answers["200"]["headers"]["ETag"]
        else:
            answers["200"] = {"description": description, "content": {_JSON: {"schema": preview}}}
    return answers


def _good(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    names = ["X-Request-Id", "RateLimit", "RateLimit-Policy", *(["ETag"] if operation.has_etag else [])]
    good: dict[str, Any] = {
        "description": "As asked." if operation.answer_type or operation.media else "Done; there is nothing to say.",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    if operation.answer_type is not None:
        good["content"] = {_JSON: {"schema": schema_of[id(operation.answer_type)]}}
    for media in operation.media:
        good.setdefault("content", {})[media] = {"schema": _TEXT}
    return good


def _statuses(operation: Operation) -> list[int]:
    """The problems that the operation may answer."""
    found = {401, 403, 422, 429, 500, 503, *operation.statuses}
    if operation.path_type is not None:
        found.add(404)
    if operation.body_type is not None:
        found |= {400, 413, 415}
    if operation.needs_match:
        found |= {412, 428}
    if operation.is_repeatable:
        found.add(409)
    return sorted(found)


def _problems(operations: Iterable[Operation], schema: Any) -> dict[str, Any]:
    statuses = sorted({status for one in operations for status in _statuses(one)})
    content = {MEDIA: {"schema": schema}}
    named = {str(status): {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
    return {**named, "default": {"description": "Any other problem.", "content": content}}


def _headers() -> dict[str, Any]:
    return {
        "X-Request-Id": {"description": "What the log calls this request.", "required": True, "schema": _TEXT},
        "ETag": {"description": "Of this version; for `If-Match`.", "required": True, "schema": _TEXT},
        "RateLimit": {"description": 'What this key has left: `"key";r=1199;t=42`.', "schema": _TEXT},
        "RateLimit-Policy": {"description": 'What a key may send: `"key";q=1200;w=60`.', "schema": _TEXT},
    }


def _request_headers(operation: Operation) -> Iterable[dict[str, Any]]:
    if operation.needs_match:
        yield _header("If-Match", "The ETag of the version that you saw, or `*`.", {**_TEXT, "minLength": 1}, True)
    if operation.is_repeatable:
        schema = {**_TEXT, "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
        yield _header("Idempotency-Key", "Sent again within a day, the request is not done again.", schema, False)


def _header(name: str, description: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


def _parameters(kind: type[msgspec.Struct] | None, place: str) -> Iterable[dict[str, Any]]:
    if kind is None:
        return
    for field in msgspec.structs.fields(kind):
        schemas, _ = msgspec.json.schema_components([field.type], ref_template=_REF)
        yield _parameter(field, place, dict(schemas[0]))


def _parameter(field: msgspec.structs.FieldInfo, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    description = schema.pop("description", "")
    # A parameter that is not sent is how a query says null.
    kinds = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    schema = kinds[0] if len(kinds) == 1 else schema
    if isinstance(field.default, str | int) and field.default != "":
        schema = {**schema, "default": field.default}
    told = {"description": description} if description else {}
    is_required = place == "path" or field.required
    return {"name": field.encode_name, "in": place, "required": is_required, **told, "schema": schema}


def _tag(operation: Operation) -> str:
    """What the docs sort operations by: the last word of the path that is no number."""
    words = [word for word in re.split(r"[/.]", operation.path) if word and not word.startswith("{")]
    return words[-1] if len(words) > 1 and words[0] == "offers" else words[0]
