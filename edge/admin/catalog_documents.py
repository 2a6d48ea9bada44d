"""Catalog items as JSON documents: what the API shows, takes and patches, and where in one a fault is.

A document is what a catalog file would say of the item, with every default filled in and without what is not given.
What is shown is the same, but in place of a secret `NAME` there is `NAME_set`, true or false.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec

from edge.tracking.catalog_diff import secret_fields
from edge.tracking.catalog_document import Part, encode_item

Json = dict[str, Any]

SET = "_set"
_UNITS_S = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_as_sent = msgspec.json.Encoder(decimal_format="number", order="sorted")
_FIELD = re.compile(r"\.(\w+)")


def to_document(part: Part) -> Json:
    """The whole part as a file would have it, secrets too: read back, it is the same part."""
    document = {}
    for attribute, name in _names(type(part)):
        value = getattr(part, attribute)
        if value is not None:
            is_duration = attribute != name
            document[name] = _write_duration(value) if is_duration else _plain(value)
    return document


@cache
def _names(struct: type[Part]) -> list[tuple[str, str]]:
    """Attribute and name of each field; they differ where the attribute says a unit."""
    return [(field.name, field.encode_name) for field in msgspec.structs.fields(struct)]


def to_shown(part: Part) -> Json:
    """The part for people who may see all of it but its secrets."""
    document = to_document(part)
    for name in secret_fields(type(part)):
        document[name + SET] = bool(document.pop(name))
    return document


def with_secrets_of(document: Json, part: Part | None, struct: type[Part]) -> Json:
    """The document without what only tells whether a secret is set, and with the part's secrets where it has none."""
    secrets = secret_fields(struct)
    kept = {name: value for name, value in document.items() if name.removesuffix(SET) not in secrets or name in secrets}
    stored = {name: getattr(part, name) for name in secrets if part is not None and name not in kept}
    return {**kept, **{name: value for name, value in stored.items() if value}}


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def etag_of(parts: Part | tuple[Part, ...]) -> str:
    """The strong ETag of a part (or several) as it is."""
    return _etag(encode_item(parts))


def etag_of_shown(shown: Json) -> str:
    """The strong ETag of what is shown of a part."""
    return _etag(_as_sent.encode(shown))


def _etag(data: bytes) -> str:
    return f'"{urlsafe_b64encode(blake2b(data, digest_size=12, person=b"clickedge etag").digest()).decode()}"'


def matches(etag: str, if_match: str) -> bool:
    """Whether an `If-Match` header names that strong ETag."""
    given = [one.strip() for one in if_match.split(",")]
    return "*" in given or etag in given


def pointer_of(where: str, tables: Mapping[str, Any]) -> str:
    """A fault's place, `offers[17].goals[1].payout`, as the JSON pointer from its item: `/goals/0/payout`.

    `tables`: what was read, one item in one table.
    """
    kind, rest = next((kind, where.removeprefix(kind)) for kind in tables if where.startswith(kind))
    steps: list[str] = []
    value: Any = tables[kind]
    while rest:
        found = _FIELD.match(rest)
        if found:
            step: int | str = found[1]
            value, rest = value.get(step) if isinstance(value, dict) else None, rest[found.end() :]
        else:
            step, rest = _find_row(value, rest)
            value = value[step] if isinstance(value, list) and step < len(value) else None
        steps.append(str(step))
    return "".join(f"/{step}" for step in steps[1:])


def _find_row(rows: Any, rest: str) -> tuple[int, str]:
    """Which row `[label]…` names, by its number or by the value that tells it from its like; and what follows."""
    found: list[tuple[int, str]] = []
    for position, row in enumerate(rows if isinstance(rows, list) else ()):
        labels = [f"#{position + 1}", *(str(row.get(key)) for key in _KEYS if isinstance(row, dict))]
        found += [(position, rest[len(label) + 2 :]) for label in labels if rest.startswith(f"[{label}]")]
    # Overrides of one partner share a label: the one that says something of the field at fault is meant.
    for position, after in found:
        field = _FIELD.match(after)
        if field and isinstance(rows[position], dict) and rows[position].get(field[1]):
            return position, after
    return found[0] if found else (0, rest.partition("]")[2])


_KEYS = ("id", "aff_id", "from_conversions", "code", "path")


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return to_document(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return dict(value) if isinstance(value, dict) else value


def _write_duration(seconds: int) -> str | int:
    if not seconds:
        return 0
    return next(f"{seconds // size}{unit}" for unit, size in _UNITS_S if seconds % size == 0)
