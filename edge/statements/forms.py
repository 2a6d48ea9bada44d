"""A statement as CSV, as text for a terminal, as a page to print. The same statement gives the same bytes."""

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache
from typing import Any

from edge.exports.cells import defuse
from edge.statements.statement import CurrencyPart, Line, Statement, Summary

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")  # fmt: skip
_HEAD = ("month", "party", "id", "name", "final", "currency", "kind", "of_month")
_COUNTED = ("offer_id", "offer", "goal_id", "goal", "impressions", "clicks", "conversions", "amount")
_TAIL = ("total_exact", "conversion_id", "changed_at", "status", "reason")


def to_csv(statements: Iterable[Statement]) -> str:
    """One table. `kind`: `line`; `changed`, `late`: corrections; `total`: their sum; `conversion`: what is behind `changed`.

    Money stands under `payout` or `revenue`, of partners and advertisers together under `due`. Texts that a spreadsheet would
    calculate begin with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    found = list(statements)
    measures = {statement.measure for statement in found}
    for number, statement in enumerate(found):
        if not number:
            earned = statement.measure if len(measures) == 1 else "due"
            writer.writerow((*_HEAD, *_COUNTED, f"{earned}_of_conversions", f"{earned}_of_clicks", earned, *_TAIL))
        head = (statement.month, statement.party, statement.id, defuse(statement.name), _yes(statement.is_final))
        for part in statement.parts:
            writer.writerows((*head, part.currency, *row) for row in _csv_rows(statement, part))
    return out.getvalue()


def to_text(statement: Statement) -> str:
    """For a terminal: a table for each currency."""
    state = "final" if statement.is_final else "PRELIMINARY: the month is open"
    lines = [
        f"{statement.party} {statement.id} {statement.name}  {statement.month}  {state}",
        f"{statement.starts_at} to {statement.ends_at} ({statement.timezone})",
    ]
    for part in statement.parts:
        rows: list[tuple[str, ...]] = [("offer", "goal", "clicks", "conversions", "amount", statement.measure, part.currency)]
        rows += [_text_row(line, "") for line in part.lines]
        rows += [_text_row(one.line, f"{one.kind}, {one.month}") for one in part.corrections]
        rows.append(("total", "", str(part.sums.clicks), str(part.sums.conversions), "", str(part.total), ""))
        lines += ["", *_aligned(rows)]
    return "\n".join(lines if statement.parts else [*lines, "", "nothing in this month"]) + "\n"


def to_overview(summaries: Iterable[Summary]) -> str:
    """For a terminal: a line for each party and currency."""
    rows: list[tuple[str, ...]] = [("party", "id", "name", "clicks", "conversions", "due", "")]
    rows += [
        (one.party, str(one.id), one.name, str(one.clicks), str(one.conversions), f"{one.total} {one.currency}", _mark(one))
        for one in summaries
    ]
    return "\n".join(_aligned(rows)) + "\n"


def to_page(statement: Statement) -> str:
    """A page of HTML by itself, made to be printed; names are text, whatever is in them."""
    return str(_template().render(statement=statement, month_name=month_name, money=_money, count=_count))


@cache
def page_headers() -> dict[str, str]:
    """What the page is sent with: nothing but its own style is let in."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'self'; base-uri 'none'"
    return {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}


def _csv_rows(statement: Statement, part: CurrencyPart) -> Iterator[tuple[Any, ...]]:
    no_conversion = ("",) * 4
    for line in part.lines:
        yield ("line", statement.month, *_csv_line(line), *no_conversion)
    for one in part.corrections:
        yield (one.kind, one.month, *_csv_line(one.line), *no_conversion)
    sums = part.sums
    counted = (sums.impressions, sums.clicks, sums.conversions)
    yield ("total", "", "", "", "", "", *counted, "", "", "", part.total, part.total_exact, *no_conversion)
    for changed in part.changed_conversions:
        place = (changed.offer_id, "", changed.goal_id, "", "", "", "")
        what = (changed.conversion_id, changed.changed_at.isoformat(), changed.status, changed.reason)
        yield ("conversion", changed.month, *place, changed.amount, "", "", "", changed.total, *what)


def _csv_line(line: Line) -> tuple[Any, ...]:
    counted = (line.impressions, line.clicks, line.conversions, line.amount)
    money = (line.of_conversions, line.of_clicks, line.total, line.total_exact)
    return (line.offer_id, defuse(line.offer), line.goal_id, defuse(line.goal), *counted, *money)


def _text_row(line: Line, what: str) -> tuple[str, ...]:
    offer = f"{line.offer_id} {line.offer}".strip()
    goal = f"{line.goal_id} {line.goal}".strip() if line.goal_id else ""
    return (offer, goal, str(line.clicks), str(line.conversions), str(line.amount), str(line.total), what)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _mark(one: Summary) -> str:
    return "" if one.is_final else "preliminary"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def month_name(month: str) -> str:
    """October 2026, of 2026-10."""
    year, number = month.split("-")
    return f"{_MONTHS[int(number) - 1]} {year}"


def _money(value: Decimal) -> str:
    return f"{value:,f}".replace("-", "\u2212")


def _count(value: int) -> str:
    return f"{value:,}".replace("-", "\u2212")


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only a page needs it

    loader = PackageLoader("edge.statements")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("statement.html")


def _style() -> str:
    source = str(_template().environment.loader.get_source(_template().environment, "statement.html")[0])
    return source.partition("<style>")[2].partition("</style>")[0]
