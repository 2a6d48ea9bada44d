"""What to read for an export, as SQL: columns from the tables above, every value a parameter."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from storage.postgres.exports.tables import Field, Table
from storage.postgres.reports.dimensions import EXTRA, SQL_TYPES, Dimension, find_dimension
from storage.postgres.reports.periods import Period
from storage.postgres.reports.sources import Source, extra_of
from storage.postgres.reports.statement import Arguments, within
from storage.postgres.reports.viewer import Viewer

_FORMULA = "'^[=+@\\t\\r\\n\uff1d\uff0b\uff0d\uff20-]'"
_NO_VALUE: tuple[Any, ...] = ()


class Selection(NamedTuple):
    """Rows of a table. `period` None: of all times; `filters`: by dimension, the values that are let through."""

    table: Table
    fields: Sequence[Field]
    viewer: Viewer
    period: Period | None
    filters: Mapping[str, tuple[Any, ...]]
    by_click: bool = False

    @property
    def source(self) -> Source:
        """Its rows, by the time that is asked for."""
        return (self.table.by_click or self.table.source) if self.by_click else self.table.source


class Query(NamedTuple):
    """A statement and its parameters."""

    sql: str
    arguments: list[Any]


def select_values(selection: Selection) -> Query:
    """Columns as Python values: ids and addresses as text, the rest as it is stored."""
    return _select(selection, [_value(field, selection.table.expression(field)) for field in selection.fields])


def select_texts(selection: Selection, *, is_defused: bool) -> Query:
    """Columns as CSV has them. `is_defused`: texts that a spreadsheet would calculate get an apostrophe in front."""
    columns = [
        _text(field, selection.table.expression(field), is_defused=is_defused) for field in selection.fields
    ]
    return _select(selection, columns)


def can_filter(selection: Selection, name: str) -> bool:
    """Whether the table knows that dimension."""
    found = find_dimension(name)
    return found is not None and selection.source.has(found)


def _select(selection: Selection, columns: Sequence[str]) -> Query:
    arguments = Arguments()
    used: list[str] = []
    source = selection.source
    conditions = [within(source, selection.period, arguments)] if selection.period else []
    for name, values in {**selection.filters, **_own(selection)}.items():
        conditions.append(_condition(selection, name, values, arguments, used))
    for name, values in selection.filters.items():
        if name in selection.viewer.own_rows:
            conditions.append(_condition(selection, name, values, arguments, used))
    named = ", ".join(f'{sql} AS "{field.name}"' for field, sql in zip(selection.fields, columns, strict=True))
    joins = "".join(sql for name, sql in source.joins.items() if name in used)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return Query(
        f"SELECT {named} FROM {source.table}{joins}{where} ORDER BY {selection.table.order}", arguments.values
    )


def _own(selection: Selection) -> dict[str, tuple[Any, ...]]:
    """What keeps a viewer to its own rows, whatever else it asks for."""
    return {name: (value,) for name, value in selection.viewer.own_rows.items()}


def _condition(
    selection: Selection, name: str, values: tuple[Any, ...], arguments: Arguments, used: list[str]
) -> str:
    dimension = find_dimension(name)
    if dimension is None:
        raise ValueError(f"there is no dimension {name!a}")
    sql = _use(selection, dimension, arguments, used)
    return f"{sql} = ANY({arguments.add(list(values), SQL_TYPES[dimension.kind] + '[]')})"


def _use(selection: Selection, dimension: Dimension, arguments: Arguments, used: list[str]) -> str:
    column = selection.source.column(dimension)
    used.extend(column.joins)
    if "{zone}" in column.sql:
        zone = selection.period.timezone if selection.period else "UTC"
        return column.sql.replace("{zone}", arguments.add(zone, "text"))
    if dimension.name.startswith(EXTRA):
        return extra_of(column, arguments.add(dimension.name.removeprefix(EXTRA), "text"), selection.viewer.scope)
    return column.sql


def _value(field: Field, sql: str) -> str:
    if field.kind == "id":
        return f"replace({sql}::text, '-', '')"
    return f"host({sql})" if field.kind == "ip" else sql


def _text(field: Field, sql: str, *, is_defused: bool) -> str:
    match field.kind:
        case "time":
            return f"to_char({sql} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        case "texts":
            return f"array_to_string({sql}, ' ')"
        case "money" | "json":
            return f"({sql})::text"
        case "text":
            sql = f"nullif({sql}, '')"
            return f"CASE WHEN {sql} ~ {_FORMULA} THEN '''' || {sql} ELSE {sql} END" if is_defused else sql
        case _:
            return _value(field, sql)
