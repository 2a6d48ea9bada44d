"""What a query asks of the sources: its plan, and what has to be said of figures that nobody knows."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from storage.postgres.connection import Connection
from storage.postgres.reports.dimensions import Dimension
from storage.postgres.reports.metrics import METRICS, components_of
from storage.postgres.reports.periods import Period
from storage.postgres.reports.planner import SOURCES, Step, effective_touch, facts_of, make_plan
from storage.postgres.reports.query import ReportQuery
from storage.postgres.reports.rollup_sources import rollup_sources
from storage.postgres.reports.sources import COST_ROWS, HOURLY, SPENDS, Need, Source
from storage.postgres.reports.statement import Arguments, Question, dimension_of
from storage.postgres.reports.value_sources import value_sources
from storage.postgres.reports.viewer import Viewer
from storage.postgres.rollups import rollup_state

_CONVERSIONS_ONLY = {"goal", "status", "promo_code"}
_CLICK_COUNTS = {"gross_clicks", "unique_clicks", "invalid_clicks", "refused_clicks", "impressions"}


async def ask(
    conn: Connection,
    query: ReportQuery,
    viewer: Viewer,
    period: Period,
    sources: Sequence[Source] = SOURCES,
    *,
    is_comparison: bool = False,
) -> tuple[Question, list[str]]:
    """The question, and notes for who reads the answer."""
    filters = {**query.filters, **own_rows(query, viewer)}
    grouped = tuple(dimension_of(name) for name in query.dimensions)
    asked = _asked(grouped, filters)
    components = components_of((METRICS[name] for name in query.metrics), viewer, query.clicks)
    facts = {name: facts_of(name, query.by) for name in components}
    need = Need(asked, facts, period, effective_touch(query.touch, asked), is_comparison)
    if HOURLY in sources and (state := await rollup_state(conn)):
        sources = [*rollup_sources(state, need), *await value_sources(conn, need), *sources]
    steps, missing = make_plan(need, sources)
    question = Question(query, viewer, period, grouped, filters, steps)
    if any(step.source is COST_ROWS for step in steps) and not await _has_costs(conn, question):
        question = question._replace(steps=[step for step in steps if step.source is not COST_ROWS])
    notes = _notes(asked, components) + await notes_on_rows(conn, steps, asked, period)
    if missing and await _has_costs(conn, question):
        whole_steps, unknown = make_plan(need._replace(dimensions=_asked((), filters)), [COST_ROWS])
        totals = [Step(step.source, tuple(name for name in step.components if name in missing)) for step in whole_steps]
        unknown_names = frozenset(name for name in missing if SPENDS & unknown.get(name, frozenset()))
        question = question._replace(totals_only=[step for step in totals if step.components], unknown=unknown_names)
        notes.append(_costs_note(asked, unknown_names))
    return question, notes


def own_rows(query: ReportQuery, viewer: Viewer) -> dict[str, tuple[int, ...]]:
    """Filters that leave the viewer its own rows; of a filter on the same dimension, what both let through."""
    return {
        name: tuple(value for value in query.filters.get(name, (own,)) if value == own)
        for name, own in viewer.own_rows.items()
    }


def _asked(grouped: Iterable[Dimension], filters: Iterable[str]) -> tuple[Dimension, ...]:
    """The dimensions that are grouped or filtered by, each once."""
    return tuple(dict.fromkeys([*grouped, *map(dimension_of, filters)]))


async def _has_costs(conn: Connection, question: Question) -> bool:
    """Whether any imported costs lie in the period that the filters which costs know let through."""
    arguments = Arguments()
    known = {
        name: values
        for name, values in question.filters.items()
        if (one := dimension_of(name)).name in COST_ROWS.columns and not COST_ROWS.column(one).joins
    }
    conditions = [_days(question.period, arguments)]
    conditions += [
        f"{COST_ROWS.columns[name].sql} = ANY({arguments.add(list(values), _array_type(name))})"
        for name, values in known.items()
    ]
    found: Any = await conn.fetchval(
        f"SELECT EXISTS (SELECT FROM {COST_ROWS.table} WHERE {' AND '.join(conditions)})", *arguments.values
    )
    return bool(found)


def _array_type(name: str) -> str:
    return "int[]" if dimension_of(name).kind == "id" else "text[]"


def _days(period: Period, arguments: Arguments) -> str:
    """All days that the period touches."""
    first, after = arguments.add(period.first_day, "date"), arguments.add(period.days_after, "date")
    return f"{COST_ROWS.moment} >= {first} AND {COST_ROWS.moment} < {after}"


def _costs_note(asked: Iterable[Dimension], unknown: frozenset[str]) -> str:
    without = [one.name for one in asked if not COST_ROWS.has(one) or one.kind == "hour"]
    why = f"by {', '.join(without)}" if without else "for parts of days"
    where = "" if unknown else " in rows; the total has them"
    return f"imported costs and sends are not known {why}: what needs them is empty{where}"


def _notes(asked: Iterable[Dimension], components: Iterable[str]) -> list[str]:
    alone = sorted(_CONVERSIONS_ONLY & {one.name for one in asked})
    if alone and _CLICK_COUNTS & set(components):
        return [f"clicks and impressions have no {' and no '.join(alone)}: they stand where it is empty"]
    return []


async def notes_on_rows(
    conn: Connection, steps: Sequence[Step], asked: Sequence[Dimension], period: Period
) -> list[str]:
    """What is counted from rows is counted only as long as they are kept; roll-ups and conversions stay."""
    of_clicks = any(step.source.ids or _READS_CLICKS(step.source.table) for step in steps)
    of_touches = any(_needs_touch(step.source, asked) for step in steps)
    if not of_clicks and not of_touches:
        return []
    row: Any = await conn.fetchrow(_FIRST_KEPT, period.starts_at, period.ends_at, of_clicks, of_touches)
    if row is None:
        return []
    first = f"{row['first_kept']:%Y-%m-%d}"
    notes = []
    if row["has_lost_clicks"]:
        notes.append(f"clicks and impressions before {first} are kept by offer, partner and the like only: none is counted")
    if row["has_lost_touches"]:
        notes.append(f"clicks before {first} are not kept: their conversions stand where what only the click knew is empty")
    return notes


_READS_CLICKS = re.compile(r" FROM click(s|_values) ").search


def _needs_touch(source: Source, asked: Iterable[Dimension]) -> bool:
    """Whether it looks the conversions' clicks up."""
    joins = {join for one in asked if source.has(one) for join in source.column(one).joins}
    return not joins.isdisjoint(("touch", "first")) or (bool(source.joins) and "last" not in source.touches)


# The first day that still has its rows: where the period has older roll-ups, or conversions of older clicks. The latter
# are looked for only so far beyond it as windows mostly are long: not in each report for ever.
_FIRST_KEPT = """
    SELECT first_kept,
        $3 AND $1 < first_kept AND EXISTS (
            SELECT FROM stats_hourly WHERE hour >= $1 AND hour < least(first_kept, $2)
            AND (gross_clicks > 0 OR impressions > 0)) AS has_lost_clicks,
        $4 AND $1 < first_kept + interval '90 days' AND EXISTS (
            SELECT FROM conversions WHERE received_at >= $1 AND received_at < first_kept + interval '90 days'
            AND touched_at < least(first_kept, $2) AND click_id IS NOT NULL) AS has_lost_touches
    FROM (
        SELECT to_date(right(min(inhrelid::regclass::text), 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS first_kept
        FROM pg_inherits WHERE inhparent = 'clicks'::regclass AND NOT inhdetachpending
    ) AS kept WHERE first_kept IS NOT NULL
"""
