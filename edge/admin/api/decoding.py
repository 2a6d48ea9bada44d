"""A request's path, query and body into the structs that an operation names; all faults together, each with its field."""

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
from aiohttp import web
from multidict import MultiMapping

from edge.admin.api.operation import Operation, Shape
from edge.admin.api.problems import Problem, bad_fields

MAX_BODY_BYTES = 1 << 20
PATCH_MEDIA = "application/merge-patch+json"
_JSON = ("application/json",)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
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
        elif any("\0" in one for one in given):
            faults.append((name, "has a NUL character in it"))
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
    """The JSON body; Problem 400, 413, 415 or 422."""
    if operation.body_type is None:
        return None
    if request.content_type not in _JSON and not (operation.method == "PATCH" and request.content_type == PATCH_MEDIA):
        raise Problem(415, "the body must be application/json")
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Problem(413, f"the body is longer than {MAX_BODY_BYTES} bytes") from error
    try:
        value = _decoder_of(_decoded_as(operation.body_type)).decode(raw)
    except msgspec.ValidationError as error:
        raise bad_fields([_located(str(error))]) from error
    except msgspec.DecodeError as error:
        raise Problem(400, f"the body is no JSON: {error}") from error
    except (RecursionError, UnicodeDecodeError) as error:
        raise Problem(400, "the body is no JSON that anybody needs: too deep, or no UTF-8") from error
    if _NUL.search(raw):
        raise Problem(422, "the body has a text with a NUL character in it")
    return value


@cache
def _decoder_of(body_type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(body_type, float_hook=Decimal)


def _decoded_as(body_type: Any) -> Any:
    return dict[str, Any] if isinstance(body_type, Shape) else body_type


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
