"""A catalog file, read: every fault of the text found in one go, each with its table, id and field."""

import re
import tomllib
from collections.abc import Callable, Iterator
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from edge.errors import UserError
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import TABLES, Advertiser, Alias, Item, Offer, Part, Partner
from edge.tracking.catalog_fields import Check, Refused, parse
from edge.tracking.catalog_references import Fault, find_faults, find_postback_faults

MAX_SHOWN_CHARS = 80
_PLACE = re.compile(r"(?P<problem>.*) \(at (?P<place>line \d+, column \d+|end of document)\)", re.DOTALL)
_FAULTY: Any = object()
"""Stands for a value that could not be read; the fault has been noted."""

Read = Callable[[object, str, list[Fault]], Any]


class CatalogFaults(UserError):
    """A catalog file that cannot be applied. One line per fault: `file: table[id].field: what is wrong`."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        """`faults`: at least one."""
        self.file = file
        self.faults = faults
        super().__init__("\n".join(f"{file}: {fault.where}: {fault.problem}" for fault in faults))


class Document(msgspec.Struct, frozen=True):
    """What a file names, by table and id as stored."""

    advertisers: dict[str, Advertiser]
    partners: dict[str, Partner]
    offers: dict[str, Offer]
    aliases: dict[str, Alias]

    def items(self) -> Iterator[tuple[str, str, Item]]:
        """Table, id and item of everything named."""
        for kind in TABLES:
            for item_id, item in getattr(self, kind).items():
                yield kind, item_id, item


class _Field(NamedTuple):
    attribute: str
    read: Read
    missing: str
    """What to say when a file leaves the field out; "" where it may."""


def read_catalog(text: str, file: str, existing: Catalog) -> Document:
    """The document in `text`; CatalogFaults names all that is wrong. References may lead to what `existing` holds."""
    return read_tables(_parse_toml(text, file), file, existing)


def read_tables(tables: dict[str, Any], file: str, existing: Catalog) -> Document:
    """The document in the tables of a TOML or JSON text (numbers with a point as Decimal); errors as `read_catalog`."""
    faults = [
        Fault(name, f"is no table of a catalog{_suggest(name, TABLES)}; allowed: {', '.join(TABLES)}")
        for name in tables
        if name not in TABLES
    ]
    named: dict[str, set[str]] = {}
    read: dict[str, Any] = {}
    for kind, struct in TABLES.items():
        rows = _read_rows(struct)(tables.get(kind, []), kind, faults)
        # A faulty item is named all the same: what refers to it has no fault of its own.
        named[kind] = set(_ids(tables.get(kind), struct.key[0]))
        read[kind] = {str(getattr(item, struct.key[0])): item for item in (rows if rows is not _FAULTY else ())}
    document = Document(**read)
    faults += find_faults(document.offers, document.aliases, named, existing)
    faults += find_postback_faults(document.partners, named, existing)
    if faults:
        raise CatalogFaults(file, faults)
    return document


def _parse_toml(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        found = _PLACE.fullmatch(str(error))
        fault = Fault(found["place"], found["problem"]) if found else Fault("the file", f"is no TOML: {error}")
        raise CatalogFaults(file, [fault]) from error


def _ids(rows: object, key: str) -> Iterator[str]:
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and key in row:
            yield str(row[key])


@cache
def _fields(struct: type[Part]) -> dict[str, _Field]:
    """How to read each field of a table, by its name in the file."""
    fields = {}
    for field in msgspec.structs.fields(struct):
        read, allowed = _reader_of(field.type)
        fields[field.encode_name] = _Field(
            field.name, read, f"is missing; allowed: {allowed}" if field.required else ""
        )
    return fields


def _reader_of(hint: Any) -> tuple[Read, str]:
    """How to read a value of that type, and what is allowed."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        check: Check = args[1]
        return _read_value(check), check.allowed
    if origin is Literal:
        allowed = " | ".join(args)
        return _read_value(Check(_one_of(args), allowed)), allowed
    if hint is bool:
        return _read_value(Check(_true_or_false, "true or false")), "true or false"
    if origin is tuple:
        return _read_rows(args[0]), "a list of tables"
    if isinstance(hint, type) and issubclass(hint, Part):
        return _read_table(hint), "a table"
    return _reader_of(next(one for one in args if one is not type(None)))


def _one_of(allowed: tuple[str, ...]) -> Callable[[object], object]:
    def parse_one(value: object) -> object:
        # TOML has no reason to quote 302.
        value = str(value) if type(value) is int else value
        if value not in allowed:
            raise ValueError
        return value

    return parse_one


def _true_or_false(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _read_value(check: Check) -> Read:
    def read(value: object, where: str, faults: list[Fault]) -> Any:
        try:
            return parse(check, value)
        except Refused as refused:
            shown = "the value" if check.is_secret else _show(value)
            faults.append(Fault(where, f"{shown} {str(refused) or 'is not allowed'}; allowed: {check.allowed}"))
            return _FAULTY

    return read


def _read_table(struct: type[Part]) -> Read:
    def read(table: object, where: str, faults: list[Fault]) -> Any:
        if not isinstance(table, dict):
            faults.append(Fault(where, f"{_show(table)} is not a table"))
            return _FAULTY
        fields = _fields(struct)
        values = {}
        known = len(faults)
        for name, value in table.items():
            field = fields.get(name)
            if field is None:
                faults.append(Fault(f"{where}.{name}", f"is no field of this table{_suggest(name, fields)}"))
            else:
                values[field.attribute] = field.read(value, f"{where}.{name}", faults)
        for name, field in fields.items():
            if field.missing and name not in table:
                faults.append(Fault(f"{where}.{name}", field.missing))
        return struct(**values) if len(faults) == known else _FAULTY

    return read


def _read_rows(struct: type[Part]) -> Read:
    """A list of tables, each named by its key; the same key twice is a fault."""

    def read(rows: object, where: str, faults: list[Fault]) -> Any:
        if not isinstance(rows, list):
            faults.append(Fault(where, f"is not a list of tables: write [[{where.rpartition('.')[2]}]]"))
            return _FAULTY
        items = []
        seen = set()
        for position, row in enumerate(rows, 1):
            label = row.get(struct.key[0], f"#{position}") if struct.key and isinstance(row, dict) else f"#{position}"
            item = _read_table(struct)(row, f"{where}[{_show(label, quote=False)}]", faults)
            if item is _FAULTY:
                continue
            key = tuple(getattr(item, name) for name in struct.key)
            if key and key in seen:
                faults.append(Fault(f"{where}[{label}]", f"is there twice: {' and '.join(struct.key)} must be unique"))
            seen.add(key)
            items.append(item)
        return tuple(items)

    return read


def _show(value: object, *, quote: bool = True) -> str:
    """The value as a fault shows it: short, on one line."""
    text = repr(value) if quote and isinstance(value, str) else str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"


def _suggest(name: str, known: dict[str, Any]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
