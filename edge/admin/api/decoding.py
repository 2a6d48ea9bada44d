"""A request's path, query and body into the structs that an operation names; all faults together, each with its field."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web
from multidict import MultiMapping

from edge.admin.api.operation import Operation
from edge.admin.api.problems import Problem, bad_fields

MAX_BODY_BYTES = 1 << 20
_PLACE = re.compile(r" - at `\$(.*)`$")
_LISTS = (msgspec.inspect.ListType, msgspec.inspect.VarTupleType, msgspec.inspect.SetType)


def decode_fields(wanted: type[msgspec.Struct], values: MultiMapping[str] | Mapping[str, str]) -> Any:
    """Text values as the struct's fields; a list's field takes each of a repeated name. Problem names every fault."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
    faults = [(name, "there is no such parameter") for name in dict.fromkeys(values) if name not in fields]
    found: dict[str, Any] = {}
    for name, field in fields.items():
        given = _given(values, name)
        is_list = isinstance(msgspec.inspect.type_info(field.type), _LISTS)
        if not given:
            if field.required:
                faults.append((name, "is required"))
        elif len(given) > 1 and not is_list:
            faults.append((name, "is given more than once"))
        else:
            found[name] = given if is_list else given[0]
    for name, value in found.items():
        if fault := _fault_of(fields[name].type, value):
            faults.append((name, fault))
    if faults:
        raise bad_fields(faults)
    return msgspec.convert(found, wanted, strict=False)


async def decode_body(operation: Operation, request: web.Request) -> Any:
    """The JSON body; Problem 413, 415 or 422."""
    if operation.body_type is None:
        return None
    if request.content_type != "application/json" and not request.content_type.endswith("+json"):
        raise Problem(415, "the body must be application/json")
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Problem(413, f"the body is longer than {MAX_BODY_BYTES} bytes") from error
    try:
        return msgspec.json.decode(raw, type=operation.body_type)
    except msgspec.ValidationError as error:
        raise bad_fields([_located(str(error))]) from error
    except msgspec.DecodeError as error:
        raise Problem(400, f"the body is no JSON: {error}") from error


def _given(values: MultiMapping[str] | Mapping[str, str], name: str) -> list[str]:
    if isinstance(values, MultiMapping):
        return values.getall(name, [])
    return [values[name]] if name in values else []


def _fault_of(kind: Any, value: object) -> str:
    """What is wrong with this one value; "": nothing."""
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        return _PLACE.sub("", str(error))
    return ""


def _located(message: str) -> tuple[str, str]:
    """msgspec's place, `$.goals[0].id`, as a JSON pointer, and what it says."""
    place = _PLACE.search(message)
    path = re.sub(r"[.\[]", "/", place[1].replace("]", "")) if place else ""
    return path, _PLACE.sub("", message)
