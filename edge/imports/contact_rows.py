"""A row of a file of contacts: id, list, day of the sign-up; the other columns are kept beside them."""

from datetime import UTC, datetime
from typing import NamedTuple

from edge.imports.click_rows import MAX_VALUE_CHARS
from edge.imports.columns import Columns
from edge.imports.values import Calendar, ValueFault, parse_when
from edge.tracking.parameters import clean
from storage.postgres.contacts import MAX_CONTACT_CHARS

MAX_EXTRAS = 32
MAX_NAME_CHARS = 64


class PersonRow(NamedTuple):
    """A contact as a file tells it. `extras`: other columns, by their headers."""

    line: int
    values: list[str]
    contact_id: str
    list: str
    signed_up_at: datetime | None
    extras: dict[str, str]


def read_person(line: int, values: list[str], columns: Columns, calendar: Calendar) -> PersonRow:
    """The contact in a row; ValueFault says why there is none."""
    said = columns.values(values)
    contact_id = clean(said.get("contact_id", "")).strip()
    if not contact_id:
        raise ValueFault("it has no contact_id")
    if len(contact_id) > MAX_CONTACT_CHARS:
        raise ValueFault(f"its contact_id is longer than {MAX_CONTACT_CHARS} characters")
    signed_up = said.get("signed_up_at", "")
    from_ms = parse_when(signed_up, calendar).from_ms if signed_up else None
    return PersonRow(
        line,
        values,
        contact_id,
        clean(said.get("list", ""))[:MAX_CONTACT_CHARS],
        None if from_ms is None else datetime.fromtimestamp(from_ms / 1000, UTC),
        _extras(values, columns),
    )


def _extras(values: list[str], columns: Columns) -> dict[str, str]:
    extras: dict[str, str] = {}
    for place, name in columns.unused.items():
        text = clean(values[place]).strip() if place < len(values) else ""
        if len(text) > MAX_VALUE_CHARS:
            raise ValueFault(f"its {name[:40]} is longer than {MAX_VALUE_CHARS} characters")
        if text and len(extras) < MAX_EXTRAS:
            extras[clean(name)[:MAX_NAME_CHARS]] = text
    return extras
