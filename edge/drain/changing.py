"""The one way in which a stored conversion changes: its row, its change with signed deltas, its roll-ups, in one transaction.

The drain comes here with what later conversions ask for, commands with what a person wants.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from edge.announcing import Announcement, outbox_rows
from edge.cap_usage import UsageChange, follow_changes, usage_difference
from edge.drain.catalogs import CatalogHistory
from edge.drain.rows import hour_of
from edge.drain.settle import NOT_EXTRA, Settled, stats_key
from edge.drain.tiers import TierCounts
from edge.tracking.asking import keys_of
from edge.tracking.catalog import Catalog
from edge.tracking.changes import ChangeRefused, State, Wanted, change, gain_of, kind_of
from edge.tracking.status_codes import STATUS_CODES
from edge.tracking.verdict import Pricing
from storage.journal.events import Conversion
from storage.postgres.catalog import load_revision
from storage.postgres.changes import Held, end_waiting, hold_waiting, lock_conversions, update_conversions
from storage.postgres.connection import Connection
from storage.postgres.contacts import upsert_contacts
from storage.postgres.conversions import (
    ChangeRow,
    claim_keys,
    insert_changes,
    insert_conversions,
    insert_waiting,
    release_keys,
    replace_conversions,
)
from storage.postgres.copy import Uuid
from storage.postgres.installation import recall
from storage.postgres.months import ClosedMonth, closed_months
from storage.postgres.outbox import queue
from storage.postgres.stats import Deltas, upsert

_RULE_CODES = frozenset(row.code for row in STATUS_CODES if row.status == "rejected" and row.reason)


class Why(NamedTuple):
    """Who changes a conversion and why. `catalog`: it says who is to be told; `cause`: the conversion that asked for it."""

    actor: str
    reason: str
    note: str
    catalog: Catalog
    cause: Conversion | None = None


def state_of(held: Held) -> State:
    """What can change about it."""
    return State(held.status, held.reason, held.status_code, held.amount, held.payout, held.revenue, held.tier)


def booking_hour(held: Held, closed: Iterable[ClosedMonth], now: datetime) -> datetime:
    """The hour of its decision, while that month is open; then the hour of the change."""
    is_closed = any(month.starts_at <= held.booked_hour < month.ends_at for month in closed)
    return hour_of(now) if is_closed else held.booked_hour


def book_change(settled: Settled, held: Held, after: State, hour: datetime, why: Why) -> Held:
    """Add the change of a locked conversion to what the transaction stores; the conversion as it is then."""
    before = state_of(held)
    gain, changed = gain_of(before, after), held._replace(**after._asdict())
    settled.changed[held.conversion_id] = changed
    settled.deltas.add(stats_key(held, hour), **gain._asdict())
    cause = why.cause
    if before.status != after.status:
        # A partner that heard of a status hears of no other amount: it would count it once more.
        event = f"change {cause.conversion_id.hex() if cause else uuid4().hex}"
        settled.postbacks.extend(outbox_rows(why.catalog, _announcement(changed, event)))
    settled.changes.append(
        ChangeRow(
            Uuid(held.conversion_id.bytes),
            hour,
            why.actor,
            kind_of(before, after),
            before.status,
            after.status,
            why.reason,
            gain.amount,
            gain.payout,
            gain.revenue,
            gain.conversions,
            gain.pending,
            gain.rejected,
            why.note,
            after.amount,
            after.payout,
            after.revenue,
            Uuid(cause.conversion_id) if cause else None,
            {name: value for name, value in cause.params.items() if name not in _UNSAID} if cause else {},
        )
    )
    return changed


def _announcement(held: Held, event: str) -> Announcement:
    shared = held._asdict()
    own = {"conversion_id": Uuid(held.conversion_id.bytes), "event": event}
    return Announcement._make(own[name] if name in own else shared[name] for name in Announcement._fields)


# Of a cause everything is kept but secrets and addresses.
_UNSAID = NOT_EXTRA - {"amount", "adv_sub1", "adv_sub2", "adv_sub3", "adv_sub4", "adv_sub5", "conversion_unique_id"}


async def store_settled(conn: Connection, settled: Settled, deltas: Deltas) -> None:
    """Write what was settled; `deltas`: what else the transaction adds to the roll-ups, which come last."""
    await insert_conversions(conn, settled.new)
    await replace_conversions(conn, settled.replaced)
    await update_conversions(conn, sorted(settled.changed.values(), key=lambda held: held.conversion_id.bytes))
    await insert_changes(conn, settled.changes)
    await insert_waiting(conn, settled.waiting)
    await queue(conn, settled.postbacks)
    await upsert_contacts(conn, settled.contacts.rows())
    deltas.merge(settled.deltas)
    await upsert(conn, deltas)


Changed = tuple[Held, Held]
"""A conversion as it was and as it is."""


async def change_conversion(
    conn: Connection,
    history: CatalogHistory,
    conversion_id: UUID,
    wanted: Wanted,
    *,
    actor: str,
    note: str = "",
    tells_partners: bool = True,
) -> Changed:
    """Change one conversion as a person wants it; how it was and is. ChangeRefused: nothing is changed."""
    order = Order(wanted, actor, note, tells_partners)
    [made] = await change_conversions(conn, history, [conversion_id], order)
    if isinstance(made, ChangeRefused):
        raise made
    return made


class Order(NamedTuple):
    """What a person wants of some conversions, and who hears of it."""

    wanted: Wanted
    actor: str
    note: str = ""
    tells_partners: bool = True


class _Case(NamedTuple):
    """A locked conversion that is to be changed, the hour that takes the change, and the terms that it is of."""

    held: Held
    hour: datetime
    pricing: Pricing | None
    is_tiered: bool


async def change_conversions(
    conn: Connection, history: CatalogHistory, ids: Sequence[UUID], order: Order
) -> list[Changed | ChangeRefused]:
    """Change these conversions in one transaction, its locks taken in order; each in turn, or why it stays as it is."""
    now = datetime.now(UTC)
    async with conn.transaction():
        await hold_waiting(conn, ids)
        in_force = await load_revision(conn)
        claimed = await _claim_places(conn, history, ids) if order.wanted.status == "approved" else {}
        held = await lock_conversions(conn, ids)
        await history.load(conn, [in_force, *(one.catalog_revision for one in held)])
        closed = await closed_months(conn)
        cases = {one.conversion_id: _case_of(one, booking_hour(one, closed, now), history) for one in held}
        zone = ZoneInfo(await recall(conn, "timezone", "UTC"))
        counts = TierCounts(zone)
        for one, hour, _, is_tiered in cases.values():
            counts.need(one.offer_id, one.aff_id, hour, is_tiered=is_tiered)
        await counts.lock(conn)
        settled = Settled()
        made = [_make(cases.get(one), order, counts, settled, history.at(in_force)) for one in ids]
        done = [one for one in made if not isinstance(one, ChangeRefused)]
        if done:
            uses = [UsageChange(a.offer_id, a.aff_id, a.booked_hour, usage_difference(a, b)) for a, b in done]
            await follow_changes(conn, uses, zone)
            await counts.write(conn)
        taken = {after.conversion_id for _, after in done}
        await release_keys(conn, {key: one for key, one in claimed.items() if UUID(bytes=one.bytes) not in taken})
        await end_waiting(conn, taken)
        if not order.tells_partners:
            settled.postbacks.clear()
        await store_settled(conn, settled, Deltas())
    return made


def _case_of(held: Held, hour: datetime, history: CatalogHistory) -> _Case:
    offer = history.at(held.catalog_revision).offer(held.offer_id)
    pricing = Pricing(offer.terms(held.goal_id, held.aff_id)) if offer and held.aff_id else None
    return _Case(held, hour, pricing, bool(offer and offer.tiers))


def _make(
    case: _Case | None, order: Order, counts: TierCounts, settled: Settled, catalog: Catalog
) -> Changed | ChangeRefused:
    """Book what becomes of one conversion; those before it count."""
    if case is None:
        return ChangeRefused("there is no such conversion")
    held, hour = case.held, case.hour
    now = settled.changed.get(held.conversion_id, held)
    rank = counts.rank(held.offer_id, held.aff_id, hour)
    try:
        after = change(state_of(now), order.wanted, case.pricing, rank)
    except ChangeRefused as refused:
        return refused
    changed = book_change(settled, now, after, hour, Why(order.actor, order.wanted.reason, order.note, catalog))
    counts.add(held.offer_id, held.aff_id, hour, settled.changes[-1].conversions_delta)
    return now, changed


async def _claim_places(conn: Connection, history: CatalogHistory, ids: Sequence[UUID]) -> dict[str, Uuid]:
    """What a rule refused holds no key: once approved, it must stand in the way of a repetition. The keys that were free.

    A key that another holds stays that one's: a person may pay both.
    """
    seen = await lock_conversions(conn, ids, is_look=True)
    await history.load(conn, [one.catalog_revision for one in seen])
    wanted: dict[str, Uuid] = {}
    for one in seen:
        for key in place_keys(one, _case_of(one, one.booked_hour, history).pricing):
            wanted.setdefault(key, Uuid(one.conversion_id.bytes))
    won = await claim_keys(conn, wanted)
    return {key: wanted[key] for key in won}


def place_keys(held: Held, pricing: Pricing | None) -> tuple[str, ...]:
    """The keys of a conversion that is approved by hand; none where a rule did not refuse it."""
    if held.status_code not in _RULE_CODES:
        return ()
    places = [f"{one.hex}:{held.goal_id}" for one in (held.click_id, held.named_click_id) if one]
    partner = f"{held.offer_id}:{held.aff_id}:{held.goal_id}"
    duplicates = pricing.terms.duplicates if pricing else "reject"
    return keys_of(places, partner, duplicates, held.conversion_unique_id, held.event_id)
