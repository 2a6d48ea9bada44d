"""Stored lines into a statement. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

import msgspec

from edge.statements.statement import (
    MEASURES,
    ChangedConversion,
    Correction,
    CurrencyPart,
    Line,
    PartyKind,
    Statement,
    Summary,
)
from edge.tracking.minor_units import round_to_unit
from edge.tracking.payouts import ZERO
from storage.postgres.statements import AdjustedConversion, CatalogName, Span, StatedLine


class _Named(msgspec.Struct):
    id: int
    name: str = ""


class _Item(msgspec.Struct):
    id: int
    name: str = ""
    goals: list[_Named] = []


class Names:
    """What the catalog calls offers, goals, partners and advertisers."""

    def __init__(self, items: Iterable[CatalogName]) -> None:
        self._items: dict[tuple[str, int], _Item] = {}
        decoder = msgspec.json.Decoder(_Item)
        for kind, item_id, body in items:
            self._items[kind, item_id] = decoder.decode(body)

    def party(self, kind: PartyKind, party_id: int) -> str | None:
        """None: the catalog has never had it."""
        found = self._items.get((f"{kind}s", party_id))
        return found.name if found else None

    def offer(self, offer_id: int) -> str:
        found = self._items.get(("offers", offer_id))
        return found.name if found else ""

    def goal(self, offer_id: int, goal_id: int) -> str:
        found = self._items.get(("offers", offer_id))
        return next((goal.name for goal in found.goals if goal.id == goal_id), "") if found else ""


class _Sums(NamedTuple):
    """Exact figures of one line."""

    impressions: int
    clicks: int
    conversions: int
    amount: Decimal
    of_conversions: Decimal
    total: Decimal


def build_statement(
    span: Span,
    party: PartyKind,
    party_id: int,
    names: Names,
    lines: Sequence[StatedLine],
    changed: Sequence[AdjustedConversion],
) -> Statement:
    """The statement that these lines, all of that party, make; a currency without anything to say is left out."""
    writer = _Writer(span, party, names)
    by_currency: dict[str, list[StatedLine]] = {}
    for one in lines:
        by_currency.setdefault(one.currency, []).append(one)
    return Statement(
        party=party,
        id=party_id,
        name=names.party(party, party_id) or "",
        month=f"{span.month:%Y-%m}",
        starts_at=span.starts_at.astimezone(UTC),
        ends_at=span.ends_at.astimezone(UTC),
        timezone=span.timezone,
        is_final=span.closed_at is not None,
        closed_at=span.closed_at.astimezone(UTC) if span.closed_at else None,
        measure=MEASURES[party],
        parts=[
            writer.part(currency, found, [one for one in changed if one.currency == currency])
            for currency, found in sorted(by_currency.items())
        ],
    )


def summarise(statement: Statement) -> Iterator[Summary]:
    """A line for each currency."""
    for part in statement.parts:
        yield Summary(
            party=statement.party,
            id=statement.id,
            name=statement.name,
            month=statement.month,
            is_final=statement.is_final,
            measure=statement.measure,
            currency=part.currency,
            clicks=part.sums.clicks,
            conversions=part.sums.conversions,
            total=part.total,
        )


class _Writer:
    """Makes the parts of one statement."""

    def __init__(self, span: Span, party: PartyKind, names: Names) -> None:
        self._month = span.month
        self._measure = MEASURES[party]
        self._names = names

    def part(self, currency: str, rows: Sequence[StatedLine], changed: Sequence[AdjustedConversion]) -> CurrencyPart:
        own, corrections = [], []
        for (booked, made, offer_id, goal_id), found in self._grouped(rows).items():
            line = self._line(currency, offer_id, goal_id, found)
            if booked == made == self._month:
                own.append(line)
            elif made < booked:
                corrections.append(Correction(kind="changed", month=f"{made:%Y-%m}", line=line))
            else:
                corrections.append(Correction(kind="late", month=f"{booked:%Y-%m}", line=line))
        corrections.sort(key=lambda one: (one.month, one.kind, one.line.offer_id, one.line.goal_id))
        sums = _add(own)
        corrected = sum((one.line.total for one in corrections), round_to_unit(ZERO, currency))
        return CurrencyPart(
            currency=currency,
            lines=own,
            corrections=corrections,
            changed_conversions=[self._changed(one) for one in changed],
            sums=sums,
            corrected=corrected,
            total=sums.total + corrected,
            total_exact=sums.total_exact + sum((one.line.total_exact for one in corrections), ZERO),
        )

    def _grouped(self, rows: Sequence[StatedLine]) -> dict[tuple[date, date, int, int], list[StatedLine]]:
        """By what makes a line: a partner's may be of several advertisers, an advertiser's is of many partners."""
        ordered = sorted(rows, key=_line_key)
        return {key: list(found) for key, found in groupby(ordered, _line_key)}

    def _line(self, currency: str, offer_id: int, goal_id: int, rows: Sequence[StatedLine]) -> Line:
        sums = self._sums(rows)
        total, of_conversions = round_to_unit(sums.total, currency), round_to_unit(sums.of_conversions, currency)
        return Line(
            offer_id=offer_id,
            offer=self._names.offer(offer_id),
            goal_id=goal_id,
            goal=self._names.goal(offer_id, goal_id),
            impressions=sums.impressions,
            clicks=sums.clicks,
            conversions=sums.conversions,
            amount=round_to_unit(sums.amount, currency),
            of_conversions=of_conversions,
            of_clicks=total - of_conversions,
            total=total,
            total_exact=sums.total,
        )

    def _sums(self, rows: Iterable[StatedLine]) -> _Sums:
        sums = _Sums(0, 0, 0, ZERO, ZERO, ZERO)
        for row in rows:
            money = (getattr(row, f"conversion_{self._measure}"), getattr(row, self._measure))
            sums = _Sums(
                sums.impressions + row.impressions,
                sums.clicks + row.clicks,
                sums.conversions + row.conversions,
                sums.amount + row.amount,
                sums.of_conversions + money[0],
                sums.total + money[1],
            )
        return sums

    def _changed(self, one: AdjustedConversion) -> ChangedConversion:
        return ChangedConversion(
            conversion_id=one.conversion_id.hex,
            month=f"{one.made_in:%Y-%m}",
            changed_at=one.changed_at.astimezone(UTC),
            status=one.status,
            reason=one.reason,
            offer_id=one.offer_id,
            goal_id=one.goal_id,
            amount=one.amount,
            total=getattr(one, self._measure),
        )


def _line_key(row: StatedLine) -> tuple[date, date, int, int]:
    return row.booked_in, row.made_in, row.offer_id, row.goal_id


def _add(lines: Sequence[Line]) -> Line:
    """The line below them: sums of what they show."""
    counted: Mapping[str, int] = {
        name: sum(getattr(one, name) for one in lines) for name in ("impressions", "clicks", "conversions")
    }
    money: Mapping[str, Decimal] = {
        name: sum((getattr(one, name) for one in lines), ZERO)
        for name in ("amount", "of_conversions", "of_clicks", "total", "total_exact")
    }
    return Line(
        offer_id=0,
        offer="",
        goal_id=0,
        goal="",
        impressions=counted["impressions"],
        clicks=counted["clicks"],
        conversions=counted["conversions"],
        **money,
    )
