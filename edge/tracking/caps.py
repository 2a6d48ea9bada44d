"""Caps: how much of an offer may be had in a day, a week, a month or ever; by everybody, or by one partner.

Periods are made of whole UTC hours, as the roll-ups are: an hour belongs to the day of the cap's time zone in which it
begins. (In a zone that is half an hour off UTC a day's first hour is the first one that begins in it.)
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from edge.tracking.catalog_document import Caps, Override
from edge.tracking.payouts import ZERO
from edge.tracking.status_codes import PENDING_CAPPED, rejection_code
from edge.tracking.verdict import Verdict

PERIODS = ("daily", "weekly", "monthly", "total")
MEASURES = ("clicks", "conversions", "payout", "revenue")
EVER = datetime(9999, 1, 1, tzinfo=UTC)
"""The end of `total`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_NO_CAPS = Caps()


class Limit(NamedTuple):
    """One cap. `aff_id` 0: of the whole offer."""

    aff_id: int
    period: str
    measure: str
    cap: int | Decimal

    @property
    def name(self) -> str:
        """As in the catalog file, with whose it is: `daily_clicks = 100 of partner 2`."""
        whose = f"partner {self.aff_id}" if self.aff_id else "the offer"
        return f"{self.period}_{self.measure} = {self.cap} of {whose}"


Limits = Mapping[int, tuple[Limit, ...]]
"""The caps of an offer by partner; 0: of the whole offer. Empty for an offer without any."""
Capped = Mapping[tuple[int, int], int]
"""(offer, partner or 0) -> Unix milliseconds until which a cap of theirs is reached."""


class CappedItem(Protocol):
    """What the limits of an offer are made of."""

    @property
    def caps(self) -> Caps: ...
    @property
    def overrides(self) -> tuple[Override, ...]: ...


class CappedOffer(Protocol):
    """What a worker asks of an offer."""

    @property
    def id(self) -> int: ...
    @property
    def limits(self) -> Limits: ...


class Span(NamedTuple):
    """A period: from its first hour until before `end`."""

    start: datetime
    end: datetime


def limits_of(offer: CappedItem) -> Limits:
    """The caps of an offer by partner."""
    parts = [(0, offer.caps), *((one.aff_id, one.caps) for one in offer.overrides if not one.goal_id)]
    return {aff_id: _limits(aff_id, caps) for aff_id, caps in parts if caps != _NO_CAPS}


def _limits(aff_id: int, caps: Caps) -> tuple[Limit, ...]:
    named = ((period, measure, getattr(caps, f"{period}_{measure}")) for period in PERIODS for measure in MEASURES)
    return tuple(Limit(aff_id, period, measure, cap) for period, measure, cap in named if cap is not None)


def limits_for(limits: Limits, aff_id: int) -> tuple[Limit, ...]:
    """The caps that bind that partner's traffic: the offer's, then its own."""
    whole = limits.get(0, ())
    return whole + limits.get(aff_id, ()) if aff_id else whole


@lru_cache(4096)
def span_of(period: str, hour: datetime, zone: ZoneInfo) -> Span:
    """The period that holds the UTC hour beginning at `hour`."""
    if period == "total":
        return Span(_EPOCH, EVER)
    day = hour.astimezone(zone).date()
    first, after = _dates(period, day)
    return Span(_first_hour(first, zone), _first_hour(after, zone))


def _dates(period: str, day: date) -> tuple[date, date]:
    if period == "daily":
        return day, day + timedelta(days=1)
    if period == "weekly":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    first = day.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def _first_hour(day: date, zone: ZoneInfo) -> datetime:
    """The first UTC hour that begins on that day."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    hour = midnight.replace(minute=0, second=0, microsecond=0)
    return hour if hour == midnight else hour + _HOUR


def is_reached(limit: Limit, used: int | Decimal) -> bool:
    """Whether nothing more fits under the cap."""
    return used >= limit.cap


def exceeds(limit: Limit, used: int | Decimal, adding: int | Decimal) -> bool:
    """Whether `adding` takes the use beyond the cap; what adds nothing never does."""
    return adding > 0 and used + adding > limit.cap


def cap_refusal(capped: Capped, offer: CappedOffer, aff_id: int, now_ms: int) -> str:
    """`capped` if a cap of the offer, or of that partner in it, was reached when last heard of; "" if not."""
    if not offer.limits:
        return ""
    offer_id = offer.id
    until_ms = max(capped.get((offer_id, 0), 0), capped.get((offer_id, aff_id), 0))
    return "capped" if now_ms < until_ms else ""


def capped_verdict(verdict: Verdict, limit: Limit, policy: str) -> Verdict:
    """The verdict on a conversion that goes beyond `limit`. `policy`: the offer's `cap_conversions`."""
    if policy == "pending":
        return replace(
            verdict,
            status="pending",
            reason="capped",
            status_code=PENDING_CAPPED,
            explanation=f"{verdict.explanation}; beyond {limit.name}: somebody has to decide",
        )
    return replace(
        verdict,
        status="rejected",
        reason="capped",
        status_code=rejection_code("capped"),
        payout=ZERO,
        revenue=ZERO,
        claims=(),
        explanation=f"beyond {limit.name}",
    )
