"""Files of an export into records by table: JSON as an API answers it, or CSV as a page saves it.

Every value arrives as text, exactly as it was written; a boolean as `1` or `0`; what is nested stays as it is.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.errors import UserError
from edge.imports.table_file import TableFile
from edge.tracking.parameters import clean

Record = dict[str, Any]
Tables = dict[str, dict[str, Record]]
"""Records by table and id."""
Guess = Callable[[Mapping[str, Any], str], str]
"""The table of a record, from its field names and the file's name; "" for none."""
MAX_JSON_BYTES = 512 * 2**20
_ZERO = re.compile(r"0*(\.0*)?|0000-00-00.*")


def read_json(path: Path) -> Any:
    """The document; None if the file is not JSON. UserError if it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
            if start[:1] not in (b"{", b"["):
                return None
            file.seek(0)
            return json.loads(file.read(MAX_JSON_BYTES).decode("utf-8-sig"), parse_int=str, parse_float=str)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error


def read_csv(path: Path) -> Iterator[Record]:
    """The rows by header; UserError if it cannot be read."""
    file = TableFile(path)
    try:
        for row in file.rows():
            if row.fault:
                raise UserError(f"{path}: line {row.line}: {row.fault}")
            yield dict(zip(file.header, row.values, strict=False))
    finally:
        file.close()


def keep(tables: Tables, table: str, key: str, record: Mapping[str, Any]) -> None:
    """Keep a record; seen before, it is completed: an API names the same thing in several places, here more, there less."""
    known = tables.setdefault(table, {}).setdefault(key, {})
    for name, value in record.items():
        if name not in known or is_empty(known[name]):
            known[name] = value


def as_text(value: object) -> str:
    """A plain value as clean text; "" for None and for what is nested."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str):
        text = clean(value.replace("\r", " ").replace("\n", " ").replace("\t", " ")).strip()
        return "" if text in ("NULL", "\\N") else text
    return ""


def is_empty(value: object) -> bool:
    """Whether a field says nothing: absent, zero, off, an empty list."""
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    if isinstance(value, list):
        return all(map(is_empty, value))
    return bool(_ZERO.fullmatch(as_text(value)))


class Source:
    """A record whose fields are taken one by one, so that what nobody took can be told."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._record = record
        self._taken: set[str] = set()

    def take(self, *names: str) -> str:
        """The first of the fields that says something, as text; "" if none does."""
        self._taken.update(names)
        return next((text for name in names if (text := as_text(self._record.get(name)))), "")

    def is_set(self, *names: str) -> bool:
        """Whether a switch is on."""
        return self.take(*names).lower() in ("1", "true", "yes", "on", "enabled")

    def nested(self, name: str) -> Any:
        """What is nested in that field; an empty table for none."""
        self._taken.add(name)
        value = self._record.get(name)
        return value if isinstance(value, dict | list) else {}

    def skip(self, *names: str) -> None:
        """Fields that say nothing to a tracker."""
        self._taken.update(names)

    def left(self) -> Iterator[tuple[str, str]]:
        """What was not taken and says something, in order of names: field and value."""
        for name, value in sorted(self._record.items()):
            if name not in self._taken and not is_empty(value):
                yield name, as_text(value) or json.dumps(value, sort_keys=True)


def entries(value: Any) -> list[Record]:
    """The records in `{"entries": […]}`, in a list, or in a table by id."""
    if isinstance(value, dict):
        value = value.get("entries", list(value.values()))
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
