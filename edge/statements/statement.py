"""What a statement says: lines per offer and goal, rounded, so that what is printed adds up to what is printed below it.

A line's figures are rounded half-even to the currency's minor unit; totals are the sums of the rounded lines. The exact
figure stands beside (`total_exact`), and is the report's. Currencies are never added.
"""

from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec

PartyKind = Literal["partner", "advertiser"]
MEASURES: dict[PartyKind, Literal["payout", "revenue"]] = {"partner": "payout", "advertiser": "revenue"}
"""What each is owed or owes."""


class Line(msgspec.Struct, kw_only=True, frozen=True):
    """An offer's goal (0: the offer's own) in the month. Money of its currency; `total` is `measure` of the statement.

    `of_clicks`: what clicks and impressions earned (cpc, cpm).
    """

    offer_id: int
    offer: str
    goal_id: int
    goal: str
    impressions: int
    clicks: int
    conversions: int
    amount: Decimal
    of_conversions: Decimal
    of_clicks: Decimal
    total: Decimal
    total_exact: Decimal


class Correction(msgspec.Struct, kw_only=True, frozen=True):
    """What this month has of an earlier, closed one. Kind `changed`: conversions decided then that were changed since;
    `late`: clicks and impressions of then that were stored only after that month was closed.
    """

    kind: Literal["changed", "late"]
    month: str
    line: Line


class ChangedConversion(msgspec.Struct, kw_only=True, frozen=True):
    """One change behind the corrections, exact: what it added to the amount and to the total."""

    conversion_id: str
    month: str
    changed_at: datetime
    status: str
    reason: str
    offer_id: int
    goal_id: int
    amount: Decimal
    total: Decimal


class CurrencyPart(msgspec.Struct, kw_only=True, frozen=True):
    """Everything in one currency. `sums`: of the lines; `corrected`: of the corrections; `total`: what is due."""

    currency: str
    lines: list[Line]
    corrections: list[Correction]
    changed_conversions: list[ChangedConversion]
    sums: Line
    corrected: Decimal
    total: Decimal
    total_exact: Decimal


class Statement(msgspec.Struct, kw_only=True, frozen=True):
    """One party's month. Not `is_final`: the month is open, and everything may still change."""

    party: PartyKind
    id: int
    name: str
    month: str
    starts_at: datetime
    ends_at: datetime
    timezone: str
    is_final: bool
    closed_at: datetime | None
    measure: Literal["payout", "revenue"]
    parts: list[CurrencyPart]


class Summary(msgspec.Struct, kw_only=True, frozen=True):
    """A statement's total in one currency, for a list of them."""

    party: PartyKind
    id: int
    name: str
    month: str
    is_final: bool
    measure: Literal["payout", "revenue"]
    currency: str
    clicks: int
    conversions: int
    total: Decimal
