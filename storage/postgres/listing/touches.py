"""Clicks and impressions behind a figure, newest first."""

from typing import Any, Literal, NamedTuple
from uuid import UUID

from storage.postgres.connection import Connection
from storage.postgres.contacts import find_deleted
from storage.postgres.copy import TouchRow
from storage.postgres.exports.tables import TABLES
from storage.postgres.listing.cursors import encode_cursor
from storage.postgres.listing.drill import Drill, find_source, read_cursor, where
from storage.postgres.reports.sources import Fact, Source
from storage.postgres.reports.statement import Arguments
from storage.postgres.reports.viewer import Scope

Row = dict[str, Any]
Table = Literal["clicks", "impressions"]
_INVALID = "touch.flags && '{bot,prefetch,datacentre}'"
_VALID = f"NOT {_INVALID}"
_UNIQUE = "NOT touch.flags && '{bot,prefetch,datacentre,duplicate}'"
_CONDITIONS = {
    "": "true",
    "gross_clicks": "true",
    "impressions": "true",
    "unique_clicks": _UNIQUE,
    "invalid_clicks": _INVALID,
    "duplicate_clicks": f"{_VALID} AND NOT ({_UNIQUE})",
    "refused_clicks": f"{_VALID} AND touch.outcome IN ('fallback', 'rejected')",
    **{name: f"touch.{name} <> 0" for name in ("payout", "revenue", "cost")},
}
_COUNTED_BY = {"valid": _VALID, "gross": "true", "unique": _UNIQUE}
_FACTS: dict[Table, tuple[str, Fact]] = {"clicks": ("gross_clicks", "clicks"), "impressions": ("impressions", "views")}


class TouchPage(NamedTuple):
    """A page of rows, by column."""

    rows: list[Row]
    next_cursor: str | None


async def list_touches(conn: Connection, table: Table, drill: Drill) -> TouchPage:
    """The rows, with all columns that the viewer may see. QueryRefused: the cursor is none."""
    arguments = Arguments()
    after = read_cursor(drill, UUID)
    found = where(drill, source_of(table, drill), arguments)
    conditions = [found.condition, condition_of(drill)]
    if after:
        conditions.append(f"touch.click_id < {arguments.add(after[0], 'uuid')}")
    columns = ", ".join(f"touch.{name}" for name in shown_columns(drill.viewer.scope))
    rows = await conn.fetch(
        f"SELECT {columns} FROM {found.tables} WHERE {' AND '.join(conditions)}"
        f" ORDER BY touch.click_id DESC LIMIT {arguments.add(drill.limit + 1, 'bigint')}",
        *arguments.values,
    )
    shown = [dict(row) for row in rows[: drill.limit]]
    more = len(rows) > drill.limit
    return TouchPage(await without_deleted(conn, shown), encode_cursor([shown[-1]["click_id"]]) if more else None)


def source_of(table: Table, drill: Drill) -> Source:
    """Where the rows are read from."""
    component, fact = _FACTS[table]
    return find_source(drill, table, component, (fact,))


def condition_of(drill: Drill) -> str:
    """Whether a row counts in the metric."""
    return _COUNTED_BY[drill.query.clicks] if drill.metric == "clicks" else _CONDITIONS[drill.metric]


def shown_columns(scope: Scope) -> list[str]:
    """The columns that a viewer of this scope is shown: those that it may export."""
    visible = {field.name for field in TABLES["clicks"].visible(scope)}
    return [name for name in TouchRow._fields if name in visible]


async def without_deleted(conn: Connection, rows: list[Row]) -> list[Row]:
    """The rows as they are, but for the names of deleted contacts."""
    deleted = await find_deleted(conn, list({row["contact_id"] for row in rows if row["contact_id"]}))
    for row in rows:
        if row["contact_id"] in deleted:
            row["contact_id"] = ""
    return rows
