"""The one way in which a stored conversion changes: its row, its change with signed deltas, its roll-ups, in one transaction.

The drain comes here with what later conversions ask for, commands with what a person wants.
"""

from collections.abc import Iterable
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
from storage.postgres.changes import Held, end_waiting, lock_conversions, update_conversions
from storage.postgres.connection import Connection
from storage.postgres.contacts import upsert_contacts
from storage.postgres.conversions import (
    ChangeRow,
    claim_keys,
    insert_changes,
    insert_conversions,
    insert_waiting,
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


async def change_conversion(
    conn: Connection, history: CatalogHistory, conversion_id: UUID, wanted: Wanted, *, actor: str, note: str = ""
) -> tuple[Held, Held]:
    """Change one conversion as a person wants it; how it was and is. ChangeRefused: nothing is changed."""
    now = datetime.now(UTC)
    async with conn.transaction():
        await end_waiting(conn, conversion_id)
        held = next(iter(await lock_conversions(conn, [conversion_id])), None)
        if held is None:
            raise ChangeRefused("there is no such conversion")
        in_force = await load_revision(conn)
        await history.load(conn, [held.catalog_revision, in_force])
        offer = history.at(held.catalog_revision).offer(held.offer_id)
        pricing = Pricing(offer.terms(held.goal_id, held.aff_id)) if offer and held.aff_id else None
        if wanted.status == "approved" and held.status_code in _RULE_CODES:
            await _claim_place(conn, held, pricing)
        hour = booking_hour(held, await closed_months(conn), now)
        zone = ZoneInfo(await recall(conn, "timezone", "UTC"))
        counts = TierCounts(zone)
        counts.need(held.offer_id, held.aff_id, hour, is_tiered=bool(offer and offer.tiers))
        await counts.lock(conn)
        after = change(state_of(held), wanted, pricing, counts.rank(held.offer_id, held.aff_id, hour))
        settled = Settled()
        changed = book_change(settled, held, after, hour, Why(actor, wanted.reason, note, history.at(in_force)))
        counts.add(held.offer_id, held.aff_id, hour, settled.changes[-1].conversions_delta)
        adds = usage_difference(held, changed)
        await follow_changes(conn, [UsageChange(held.offer_id, held.aff_id, held.booked_hour, adds)], zone)
        await counts.write(conn)
        await store_settled(conn, settled, Deltas())
    return held, changed


async def _claim_place(conn: Connection, held: Held, pricing: Pricing | None) -> None:
    """What a rule refused holds no key: once approved, it must stand in the way of a repetition.

    A key that another holds stays that one's: a person may pay both.
    """
    places = [f"{one.hex}:{held.goal_id}" for one in (held.click_id, held.named_click_id) if one]
    partner = f"{held.offer_id}:{held.aff_id}:{held.goal_id}"
    duplicates = pricing.terms.duplicates if pricing else "reject"
    if keys := keys_of(places, partner, duplicates, held.conversion_unique_id, held.event_id):
        await claim_keys(conn, dict.fromkeys(keys, Uuid(held.conversion_id.bytes)))
