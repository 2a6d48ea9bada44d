"""JSON schemas of the catalog's tables, from the same structs that read a catalog file.

Each table has three: as it is shown, as it is sent (`…Input`), and as a merge patch (`…Patch`: nothing is required, null
takes a field away).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from edge.admin.api.operation import Shape
from edge.admin.catalog_documents import SET
from edge.tracking import catalog_fields as fields
from edge.tracking.catalog_diff import secret_fields
from edge.tracking.catalog_document import Part
from edge.tracking.catalog_fields import Check

Schema = dict[str, Any]
Mode = Literal["", "Input", "Patch"]

_ID: Schema = {"type": "integer", "minimum": 1, "maximum": fields.MAX_ID}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": fields.MAX_ID}
_TEXT: Schema = {"type": "string", "maxLength": fields.MAX_TEXT_CHARS}
_NAME: Schema = {**_TEXT, "minLength": 1}
_URL: Schema = {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "description": "Macros only after the host."}


def _amount(below: int) -> Schema:
    number = {"type": "number", "minimum": 0, "maximum": below}
    return {"anyOf": [number, {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,6})?$"}]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_DURATION: Schema = {
    "anyOf": [{"type": "string", "pattern": "^(0|[0-9]{1,9}[smhd])$"}, {"type": "integer", "const": 0}],
    "description": "Such as 30d, 12h, 10m, 45s or 0.",
}
_OF_FIELD: tuple[tuple[Any, Schema], ...] = (
    (fields.Id, _ID),
    (fields.IdOrNone, _COUNT),
    (fields.Name, _NAME),
    (fields.Text, _TEXT),
    (fields.Secret, _TEXT),
    (fields.SigningSecret, {"type": "string", "pattern": f"^({fields.SIGNING_PREFIX}[A-Za-z0-9+/]+=*)?$"}),
    (fields.Money, _amount(int(fields.MAX_MONEY))),
    (fields.Percent, _amount(int(fields.MAX_PERCENT))),
    (fields.Count, _COUNT),
    (fields.Positive, _ID),
    (fields.Seconds, _DURATION),
    (fields.PlainSeconds, {"type": "integer", "minimum": 0, "maximum": fields.MAX_DURATION_S}),
    (fields.Currency, {"type": "string", "pattern": "^[A-Z]{3}$"}),
    (fields.TimeZone, {"type": "string", "description": "Such as Europe/Berlin."}),
    (fields.Moment, {"type": "string", "format": "date-time"}),
    (fields.Url, _URL),
    (fields.UrlOrNone, {"anyOf": [_URL, {"type": "string", "const": ""}]}),
    (fields.AddressRules, _list({"type": "string"})),
    (fields.Domains, _list({"type": "string"})),
    (fields.Countries, _list({"type": "string", "pattern": "^[A-Za-z]{2}$"})),
    (fields.Names, _list(_NAME)),
    (fields.Devices, _list({"type": "string"})),
    (fields.Languages, _list({"type": "string"})),
    (fields.Share, {"type": "integer", "minimum": 1, "maximum": 100}),
    (fields.Weekdays, _list({"type": "string", "enum": list(fields.WEEKDAYS)})),
    (fields.Hours, _list({"type": "integer", "minimum": 0, "maximum": 23})),
    (fields.Ids, _list(_ID)),
    (fields.GoalIds, _list(_COUNT)),
    (fields.Statuses, {**_list({"type": "string", "enum": list(fields.STATUSES)}), "minItems": 1}),
    (fields.AliasPath, {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
    (
        fields.Parameters,
        {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z0-9_]{1,64}$"},
            "additionalProperties": {"type": ["string", "integer"]},
        },
    ),
)
_OF_CHECK: dict[Check, Schema] = {get_args(hint)[1]: schema for hint, schema in _OF_FIELD}


def shape_of(
    struct: type[Part],
    mode: Mode = "",
    *,
    name: str = "",
    extra: Mapping[str, Schema] | None = None,
    required: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> Shape:
    """The shape of one table's entries, as the component `name`.

    `extra`: members that the struct lacks; `required`, `optional`: members that are needed or not, against the struct.
    """
    name = name or struct.__name__ + mode
    components: dict[str, Schema] = {}
    schema = _table(struct, mode, components)
    needed = [one for one in dict.fromkeys((*required, *schema.pop("required", ()))) if one not in optional]
    schema = {**schema, "properties": {**(extra or {}), **schema["properties"]}}
    components[name] = {**schema, "required": needed} if needed else schema
    return Shape({"$ref": f"#/components/schemas/{name}"}, components)


def list_of(shape: Shape) -> Shape:
    """A page of a list of them."""
    schema = {
        "type": "object",
        "required": ["data", "next_cursor"],
        "properties": {"data": _list(dict(shape.schema)), "next_cursor": {"type": ["string", "null"]}},
    }
    return Shape(schema, shape.components)


def _add(struct: type[Part], mode: Mode, components: dict[str, Schema]) -> str:
    """Put the schema of that struct and of those in it among the components; its name."""
    name = struct.__name__ + mode
    if name not in components:
        components[name] = _table(struct, mode, components)
    return name


def _table(struct: type[Part], mode: Mode, components: dict[str, Schema]) -> Schema:
    properties: Schema = {}
    for field in msgspec.structs.fields(struct):
        is_secret = field.name in secret_fields(struct)
        if is_secret:
            properties[field.encode_name + SET] = {"type": "boolean", "readOnly": True}
        if not is_secret or mode:
            schema = _schema(field.type, mode, components)
            properties[field.encode_name] = _nullable(schema) if mode == "Patch" and not field.required else schema
    # What a partner or an advertiser sees lacks some fields; what tells entries apart is always there.
    required = [
        field.encode_name
        for field in msgspec.structs.fields(struct)
        if field.required and (mode == "Input" or (not mode and field.name in struct.key))
    ]
    table: Schema = {"type": "object", "properties": properties, "additionalProperties": not mode}
    return {**table, "required": required} if required else table


def _schema(hint: Any, mode: Mode, components: dict[str, Schema]) -> Schema:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _OF_CHECK[args[1]]
    if origin is Literal:
        return {"enum": [*args, *(int(one) for one in args if one.isdigit())]}
    if hint is bool:
        return {"type": "boolean"}
    if origin is tuple:
        inner: Mode = "Input" if mode else ""
        return _list({"$ref": f"#/components/schemas/{_add(args[0], inner, components)}"})
    if isinstance(hint, type) and issubclass(hint, Part):
        return {"$ref": f"#/components/schemas/{_add(hint, mode, components)}"}
    return _schema(next(one for one in args if one is not type(None)), mode, components)


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
