"""Conversions behind a figure, newest first, each with what it adds to the figures.

By conversion date a conversion adds to a period what was booked in it: one that was approved before it and taken back in
it adds -1. By click date, and where no metric is asked for, each is taken as it is now.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from storage.postgres.connection import Connection
from storage.postgres.conversions import ConversionRow
from storage.postgres.exports.tables import TABLES
from storage.postgres.listing.cursors import encode_cursor
from storage.postgres.listing.drill import LISTABLE, Drill, Where, find_source, read_cursor, where
from storage.postgres.listing.touches import without_deleted
from storage.postgres.reports.metrics import METRICS
from storage.postgres.reports.sources import Source
from storage.postgres.reports.statement import Arguments
from storage.postgres.reports.viewer import Scope

Row = dict[str, Any]
_CHANGES, _NOW = "conversion_changes", "conversions"


class ConversionPage(NamedTuple):
    """A page of conversions, by column; with a metric each has `adds`: what it adds to each figure."""

    rows: list[Row]
    next_cursor: str | None


class Also(NamedTuple):
    """What no report asks for. `reasons` empty: whatever reason; `named`: an id or order number that they carry."""

    reasons: Sequence[str] = ()
    named: str = ""

    def conditions(self, arguments: Arguments, scope: Scope) -> Iterator[str]:
        """What must be true of `conversion`. What a viewer is not shown finds nothing for it either."""
        if self.reasons:
            yield f"conversion.reason = ANY({arguments.add(list(self.reasons), 'text[]')})"
        if uuid := _read_uuid(self.named):
            place = arguments.add(uuid, "uuid")
            yield f"(conversion.conversion_id = {place} OR conversion.click_id = {place})"
        elif self.named:
            place = arguments.add(self.named, "text")
            visible = shown_columns(scope)
            names = [name for name in ("transaction_id", "conversion_unique_id", "adv_sub1") if name in visible]
            yield f"({' OR '.join(f'conversion.{name} = {place}' for name in names)})"


async def list_conversions(conn: Connection, drill: Drill, also: Also | None = None) -> ConversionPage:
    """The conversions, with all columns that the viewer may see. QueryRefused: the cursor is none."""
    arguments = Arguments()
    after = read_cursor(drill, datetime, UUID)
    source = source_of(drill)
    found = where(drill, source, arguments)
    condition = " AND ".join([found.condition, *(also.conditions(arguments, drill.viewer.scope) if also else ())])
    if after:
        received_at, last_id = arguments.add(after[0], "timestamptz"), arguments.add(after[1], "uuid")
        condition += f" AND (conversion.received_at, conversion.conversion_id) < ({received_at}, {last_id})"
    columns = [f"conversion.{name}" for name in shown_columns(drill.viewer.scope)]
    figures = _figures(drill)
    columns += [f"coalesce({source.components[name].sql}, 0) AS adds_{name}" for name in figures]
    rows = await conn.fetch(
        f"SELECT {', '.join(columns)} FROM {found.tables} WHERE {condition}{grouping(drill, found)}"
        " ORDER BY conversion.received_at DESC, conversion.conversion_id DESC"
        f" LIMIT {arguments.add(drill.limit + 1, 'bigint')}",
        *arguments.values,
    )
    shown = [_with_adds(dict(row), figures) for row in rows[: drill.limit]]
    more = len(rows) > drill.limit
    cursor = encode_cursor([shown[-1]["received_at"], shown[-1]["conversion_id"]]) if more else None
    return ConversionPage(await without_deleted(conn, shown), cursor)


def source_of(drill: Drill) -> Source:
    """Where the rows are read from."""
    by_booking = drill.query.by == "conversion"
    if drill.metric and by_booking:
        return find_source(drill, _CHANGES, "conversions", ("changes",))
    source = find_source(drill, _NOW, "conversions", ("credits",))
    return source._replace(moment="conversion.received_at") if by_booking else source


def shown_columns(scope: Scope) -> list[str]:
    """The columns that a viewer of this scope is shown: those that it may export."""
    visible = {field.name for field in TABLES["conversions"].visible(scope)}
    return [name for name in ConversionRow._fields if name in visible]


def grouping(drill: Drill, found: Where) -> str:
    """A row for each conversion, however many changes or touches it has; only those that count in the metric."""
    if drill.metric:
        return f" GROUP BY conversion.conversion_id HAVING {found.source.components[drill.metric].sql} <> 0"
    is_spread = not found.source.touches & {"last", "first"}
    return " GROUP BY conversion.conversion_id" if is_spread else ""


def _figures(drill: Drill) -> list[str]:
    if not drill.metric:
        return []
    return [name for name in LISTABLE["conversions"] if drill.viewer.scope in METRICS[name].scopes]


def _with_adds(row: Row, figures: list[str]) -> Row:
    if figures:
        row["adds"] = {name: row.pop(f"adds_{name}") for name in figures}
    return row


def _read_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
