"""Caps and their use in the database, for whoever stores or changes what a cap counts."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from edge.tracking.caps import Limit, Limits, limits_for, limits_of, span_of
from edge.tracking.catalog_document import Caps, Override
from edge.tracking.payouts import ZERO
from storage.postgres.cap_usage import Usage, UsageKey, lock_usage, store_usage
from storage.postgres.catalog import hold_catalog, load_offers
from storage.postgres.changes import Held
from storage.postgres.connection import Connection


class UsageChange(NamedTuple):
    """What a conversion adds, or takes back, when it changes. `hour`: in which it was last decided."""

    offer_id: int
    aff_id: int
    hour: datetime
    adds: Usage


class _CappedItem(msgspec.Struct, frozen=True):
    """Of a stored offer, what its limits are made of."""

    caps: Caps = Caps()
    overrides: tuple[Override, ...] = ()


_decode = msgspec.json.Decoder(_CappedItem).decode


def limits_of_body(body: bytes) -> Limits:
    """The caps of an offer as it is stored; nothing else of it is looked at."""
    return limits_of(_decode(body))


def key_of(limit: Limit, offer_id: int, hour: datetime, zone: ZoneInfo) -> UsageKey:
    """The row that says how much of the limit is used in the period of that hour."""
    return UsageKey(offer_id, limit.aff_id, limit.period, *span_of(limit.period, hour, zone))


def keys_of(limits: Limits, offer_id: int, aff_id: int, hour: datetime, zone: ZoneInfo) -> Iterator[UsageKey]:
    """The rows in which what that partner brings is counted; some more than once."""
    return (key_of(limit, offer_id, hour, zone) for limit in limits_for(limits, aff_id))


def counted(status: str, payout: Decimal, revenue: Decimal) -> tuple[int, Decimal, Decimal]:
    """What a conversion of that status counts under caps: conversions, payout and revenue. Pending ones count."""
    return (1, payout, revenue) if status in ("approved", "pending") else (0, ZERO, ZERO)


def usage_difference(before: Held, after: Held) -> Usage:
    """What the change of a conversion adds or takes back."""
    old, new = (Usage(0, *counted(one.status, one.payout, one.revenue)) for one in (before, after))
    return Usage(0, new.conversions - old.conversions, new.payout - old.payout, new.revenue - old.revenue)


async def follow_changes(conn: Connection, changes: Sequence[UsageChange], zone: ZoneInfo) -> None:
    """Let caps follow conversions that change after they were decided; both in one transaction.

    To be called once, when the conversions' rows are locked and before anything about them is written (U1).
    """
    if not changes:
        return
    await hold_catalog(conn)
    offers = await load_offers(conn, sorted({change.offer_id for change in changes}))
    limits = {offer_id: limits_of_body(body) for offer_id, body in offers.items()}
    added = [
        (set(keys_of(limits.get(change.offer_id, {}), change.offer_id, change.aff_id, change.hour, zone)), change)
        for change in changes
    ]
    usage = await lock_usage(conn, {key for keys, _ in added for key in keys})
    for keys, change in added:
        for key in keys:
            usage[key].add(change.adds)
    await store_usage(conn, usage)
