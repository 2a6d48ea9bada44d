"""A report's result as a table: cells of text, each figure with the way to its rows, each value with the way to its report. Pure."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from edge.admin.console import formats
from edge.admin.console.reports.urls import Pairs, names_of, replaced, to_url, with_filters, without
from storage.postgres.listing.drill import LISTABLE
from storage.postgres.reports.dimensions import find_dimension
from storage.postgres.reports.labels import label_of
from storage.postgres.reports.metrics import METRICS
from storage.postgres.reports.periods import Period
from storage.postgres.reports.report import Column, Report, Row
from storage.postgres.reports.viewer import Viewer

NOTHING = "\u2014"
MINUS = "\u2212"
CURRENCY = "currency"
_FOUR = Decimal("0.0001")
_BAD = frozenset(("invalid_clicks", "duplicate_clicks", "refused_clicks", "rejected", "reversed", "cost_per_send"))
_NEITHER = frozenset(("payout", "cost", "cpa", "cpc", "cpm", "sends", "pending", "gross_clicks"))
_KINDS = ("conversions", "clicks", "impressions")


class Change(NamedTuple):
    """`text`: +12 %; `tone`: good, bad or same; `before`: what the figure was."""

    text: str
    tone: str
    before: str


class Figure(NamedTuple):
    """`text`: as it is shown; `unit`: a currency; `rows`: where the rows behind it are, "" for a figure of none."""

    text: str
    unit: str = ""
    rows: str = ""
    change: Change | None = None


class Value(NamedTuple):
    """A dimension's value: its text, the name of an id, and the report of it alone."""

    text: str
    name: str = ""
    filter: str = ""
    is_time: bool = False


class Line(NamedTuple):
    """A row. `open`: where the next dimension for it is chosen; "" for a total."""

    values: list[Value]
    figures: list[Figure]
    open: str = ""
    what: str = ""


class Head(NamedTuple):
    """A column's header. `sort`: the report sorted by it; `direction`: as it is sorted now, "" if by another."""

    name: str
    label: str
    title: str
    sort: str
    direction: str
    is_number: bool


class Table(NamedTuple):
    """`totals`: the real ones, then those of each currency."""

    heads: list[Head]
    lines: list[Line]
    totals: list[Line]


class _Maker:
    """What all cells of one report share."""

    def __init__(self, report: Report, pairs: Pairs, viewer: Viewer) -> None:
        self.report = report
        self.pairs = without(pairs, "cursor", "limit")
        self.viewer = viewer

    def line(self, row: Row) -> Line:
        filters = [(name, filter_text(value)) for name, value in row.dimensions.items()]
        values = [self.value(column, row, filters) for column in self.report.dimensions]
        deeper = with_filters(self.pairs, filters)
        behind = without(deeper, "compare")
        figures = [self.figure(column, row, behind) for column in self.report.metrics]
        return Line(values, figures, to_url(deeper, "/reports/open"), ", ".join(one.name or one.text for one in values))

    def total(self, row: Row, label: str) -> Line:
        filters = [(CURRENCY, str(row.dimensions[CURRENCY]))] if CURRENCY in row.dimensions else []
        behind = without(with_filters(self.pairs, filters) if filters else self.pairs, "compare")
        return Line([Value(label)], [self.figure(column, row, behind) for column in self.report.metrics])

    def value(self, column: Column, row: Row, filters: Pairs) -> Value:
        value = row.dimensions.get(column.name)
        if column.name not in row.dimensions:
            return Value(NOTHING)
        name = label_of(self.report.labels, row.dimensions, column.name)
        alone = [pair for pair in filters if pair[0] == column.name]
        return Value(value_text(column.kind, value), name, to_url(with_filters(self.pairs, alone)), column.kind not in ("id", "text"))

    def figure(self, column: Column, row: Row, behind: Pairs) -> Figure:
        value = row.metrics.get(column.name)
        unit = self.currency(row) if column.kind == "money" and value is not None else ""
        rows = rows_url(column.name, behind, self.viewer) if value else ""
        change = self.change(column, row) if row.previous is not None else None
        return Figure(figure_text(value, column.kind), unit, rows, change)

    def currency(self, row: Row) -> str:
        """Whose money it is; "" where that is not said."""
        if CURRENCY in row.dimensions:
            return str(row.dimensions[CURRENCY])
        return self.report.currencies[0] if len(self.report.currencies) == 1 else ""

    def change(self, column: Column, row: Row) -> Change:
        now, before = row.metrics.get(column.name), (row.previous or {}).get(column.name)
        text = formats.change(now, before)
        if not text and now and before is not None:
            text = "new"
        is_more = bool(now and now > 0) if text == "new" else text[:1] != "-"
        is_same = not text or text in ("+0 %", "-0 %") or self.is_neither(column.name)
        tone = "same" if is_same else "good" if is_more != (column.name in _BAD) else "bad"
        return Change(text.replace("-", MINUS), tone, figure_text(before, column.kind))

    def is_neither(self, name: str) -> bool:
        """Whether more of it is no news; to partners their payout is."""
        return name in _NEITHER and not (self.viewer.scope == "partner" and name in ("payout", "cpa", "cpc", "cpm"))


def make_table(report: Report, pairs: Pairs, viewer: Viewer) -> Table:
    """The report's page as a table."""
    maker = _Maker(report, pairs, viewer)
    totals = [maker.total(report.totals, "Total" if len(report.currencies) < 2 else "Total, all currencies")]
    totals += [
        maker.total(row, f"Total {row.dimensions.get(CURRENCY) or 'without a currency'}")
        for row in report.totals_by_currency
    ]
    return Table(_heads(report, pairs), [maker.line(row) for row in report.rows], totals)


def rows_url(metric: str, pairs: Pairs, viewer: Viewer) -> str:
    """The rows that make a figure: of a ratio those above its line; "" for one that has none."""
    name = _listable(metric, viewer)
    kind = next((one for one in _KINDS if name in LISTABLE[one]), "")  # type: ignore[index]
    return to_url([*pairs, ("metric", name)], f"/reports/{kind}") if kind else ""


def figure_text(value: Decimal | int | None, kind: str) -> str:
    """12,345 or 1,234.50 or 4.25 %; a dash for nothing."""
    if value is None:
        return NOTHING
    if kind == "count":
        whole = value == int(value)
        return f"{int(value):,}" if whole else f"{Decimal(value).quantize(_FOUR):,}".rstrip("0")
    return formats.percent(Decimal(value)) if kind == "percent" else formats.money(Decimal(value))


def period_text(period: Period) -> str:
    """16 Nov 2026 to 21 Nov 2026, both included; with times where it is not whole days."""
    if period.is_whole_days:
        first, last = period.first_day, period.days_after - timedelta(days=1)
        return f"{first:%d %b %Y}" if first == last else f"{first:%d %b %Y} to {last:%d %b %Y}"
    return " to ".join(f"{at.astimezone(period.zone):%d %b %Y %H:%M}" for at in (period.starts_at, period.ends_at))


def value_text(kind: str, value: Any) -> str:
    """A dimension's value for people; a dash for none."""
    if isinstance(value, datetime):
        return f"{value:%a %d %b %Y %H:%M}"
    if isinstance(value, date):
        return {"month": f"{value:%B %Y}", "week": f"Week of {value:%d %b %Y}"}.get(kind, f"{value:%a %d %b %Y}")
    return str(value) if value else NOTHING


def filter_text(value: Any) -> str:
    """A dimension's value as a filter's parameter has it."""
    return value.isoformat() if isinstance(value, date) else str(value)


def _listable(metric: str, viewer: Viewer) -> str:
    if any(metric in names for names in LISTABLE.values()):
        return metric
    first = METRICS[metric].plus[0]
    return viewer.earnings if first == "earnings" else first


def _heads(report: Report, pairs: Sequence[tuple[str, str]]) -> list[Head]:
    query, heads = report.query, []
    asked = names_of(pairs, "dimensions")
    for column in [*report.dimensions, *report.metrics]:
        is_metric = column.name in query.metrics and column.name not in query.dimensions
        is_sorted = query.sort == column.name
        descends = not query.descending if is_sorted else is_metric
        can_sort = is_metric or column.name in asked
        sort = to_url(replaced(pairs, sort=f"-{column.name}" if descends else column.name)) if can_sort else ""
        direction = ("descending" if query.descending else "ascending") if is_sorted else ""
        title = column.formula if is_metric else _meaning(column.name)
        heads.append(Head(column.name, column.label, title, sort, direction, is_metric))
    return heads


def _meaning(name: str) -> str:
    found = find_dimension(name)
    return found.meaning.replace("`", "") if found else ""
