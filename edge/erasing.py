"""People erased: first what lets every drain know, then their rows, a batch a transaction; again, it ends the same.

A killed run leaves the tombstones, so that nothing comes back meanwhile, and the rows that it did not come to, which the
next run finds as the first would have: what leads from one row to others goes last.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from edge.tracking.naming import Naming
from edge.tracking.tombstones import (
    Target,
    Tombstone,
    Tombstones,
    click_hash,
    hash_target,
    masked_key,
    nameless_event,
)
from storage.journal.events import Conversion, decode, decode_session, encode
from storage.postgres import erased_texts as texts
from storage.postgres import erasing as rows
from storage.postgres.audit import Entry, add_entry
from storage.postgres.connection import Connection
from storage.postgres.erasures import Erasure, add_erasures, erased_click_hashes, shut_out_drains
from storage.postgres.partitions import day_of_id

BATCH_ROWS = 500
CLOCKS_DIFFER_BY = timedelta(minutes=1)
"""At most so far ahead of the database's clock a node's is believed to be."""

Tell = Callable[[str, int], None]
"""Hears of each batch: the table, and how many of its rows."""


class Order(NamedTuple):
    """Whom to erase. `secret`: the first of EDGE_SECRET; `address`: where the order came from, for the audit log."""

    targets: Sequence[Target]
    secret: str
    actor: str
    address: str = ""


class Report(NamedTuple):
    """What was done: rows by table, and until when everything was looked at."""

    until: datetime
    rows: dict[str, int]


async def erase(conn: Connection, order: Order, tell: Tell = lambda table, count: None) -> Report:
    """Erase all that is known of these people by now. Outside a transaction."""
    async with conn.transaction():
        await shut_out_drains(conn)
        until = await _now(conn)
        await add_erasures(conn, (tombstone_row(one, order, until) for one in order.targets))
        await add_entry(conn, audit_entry(order))
    eraser = Eraser(conn, order, until, tell)
    await eraser.run()
    return Report(until, dict(eraser.counts))


async def count(conn: Connection, order: Order) -> Report:
    """What `erase` would do: all of it, taken back."""
    undo = conn.transaction()
    await undo.start()
    try:
        until = await _now(conn)
        eraser = Eraser(conn, order, until, is_rehearsal=True)
        await eraser.run()
    finally:
        await undo.rollback()
    return Report(until, dict(eraser.counts))


def tombstone_row(target: Target, order: Order, until: datetime) -> Erasure:
    """What is remembered of an erased value."""
    value_hash, prefix = hash_target(target, order.secret)
    id_day = day_of_id(target.value) if isinstance(target.value, bytes) else None
    return Erasure(target.kind, value_hash, prefix, until, id_day, actor=order.actor)


def audit_entry(order: Order) -> Entry:
    """The order as the audit log has it: how many of each kind, and their hashes."""
    hashes = [f"{one.kind}:{hash_target(one, order.secret)[0].hex()}" for one in order.targets[:20]]
    detail = {"values": len(order.targets), "hashes": hashes}
    return Entry(order.actor, "erase", ", ".join(sorted({one.kind for one in order.targets})), detail, order.address)


async def _now(conn: Connection) -> datetime:
    """The database's time, or that of the node that is furthest ahead of it."""
    now: datetime = await conn.fetchval(
        "SELECT greatest(clock_timestamp(), least(clock_timestamp() + $1,"
        " to_timestamp((max(watermark_ms) + 1) / 1000.0))) FROM journal_positions",
        CLOCKS_DIFFER_BY,
    )
    return now


class Eraser:
    """One run over all tables. `until`: what happened later stays."""

    def __init__(
        self,
        conn: Connection,
        order: Order,
        until: datetime,
        tell: Tell = lambda table, count: None,
        *,
        is_rehearsal: bool = False,
    ) -> None:
        self._conn = conn
        self._order = order
        self._until = until
        self._until_ms = int(until.timestamp() * 1000)
        self._below = UUID(int=(self._until_ms + 1) << 80)
        self._tell = tell
        self._is_rehearsal = is_rehearsal
        self._stones = Tombstones([order.secret], map(self._stone, order.targets))
        self._click_ids = [one.value for one in order.targets if isinstance(one.value, bytes)]
        self._contacts = [one.value for one in order.targets if isinstance(one.value, str)]
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Everything, in the order in which one leads to another."""
        for table in rows.TOUCH_TABLES:
            for day in await rows.partition_days(self._conn, table):
                await self._erase_day(table, day)
        await self._erase_of_ids([UUID(bytes=one) for one in self._click_ids])
        await self._erase_waiting()
        for target in self._order.targets:
            await self._erase_conversions(target)
        await self._erase_texts()
        await self._erase_contacts()

    async def _erase_day(self, table: str, day: date) -> None:
        for target in self._order.targets:
            while found := await self._find(table, day, target):
                await self._erase_touches(table, day, found)
                if len(found) < BATCH_ROWS:
                    break

    async def _find(self, table: str, day: date, target: Target) -> list[rows.Found]:
        value = target.value
        if isinstance(value, bytes):
            return await rows.find_by_id(self._conn, table, day, UUID(bytes=value)) if day_of_id(value) == day else []
        find = rows.find_by_contact if isinstance(value, str) else rows.find_by_address
        return await find(self._conn, table, day, str(value), self._below, BATCH_ROWS)

    async def _erase_touches(self, table: str, day: date, found: Sequence[rows.Found]) -> None:
        """A batch: what hangs on the touches, then they themselves. Whoever found one there has committed, or finds none."""
        ids = [one.click_id for one in found]
        others = {one.contact_id for one in found}.difference(self._contacts, {""})
        async with self._shut():
            await self._strip(ids)
            self._note(table, await rows.delete_touches(self._conn, table, day, ids))
            await rows.renew_first_clicks(self._conn, others)
            derived = [
                Erasure("click", click_hash(one.bytes), 0, self._until, day, True, self._order.actor) for one in ids
            ]
            await add_erasures(self._conn, derived)
        if table == "clicks":
            async with self._conn.transaction():  # once more: a day may have been summed while its clicks went
                await rows.forget_values(self._conn, [day])

    async def _erase_of_ids(self, ids: Sequence[UUID]) -> None:
        """What hangs on clicks that were not stored, or whose rows went earlier."""
        for start in range(0, len(ids), BATCH_ROWS):
            async with self._conn.transaction():
                await self._strip(ids[start : start + BATCH_ROWS])

    async def _strip(self, click_ids: Sequence[UUID]) -> None:
        waiting = await rows.lock_waiting(self._conn, click_ids, self._until)
        await self._rewrite({one: event for one, event in waiting if event != self._nameless(event)})
        await self._strip_conversions(await rows.conversions_of_clicks(self._conn, click_ids, self._until))

    async def _strip_conversions(self, ids: Sequence[UUID]) -> None:
        stripped = await rows.strip_conversions(
            self._conn, ids, datetime.now(UTC), lambda key: masked_key(self._order.secret, key)
        )
        for table, number in stripped.items():
            self._note(table, number)

    async def _erase_waiting(self) -> None:
        """Waiting conversions that name somebody themselves."""
        after = UUID(int=0)
        while page := await rows.page_waiting(self._conn, self._until, after):
            after = page[-1][0]
            named = {one: event for one, event in page if self._names(event)}
            async with self._conn.transaction():
                await self._rewrite(named)

    async def _rewrite(self, events: dict[UUID, bytes]) -> None:
        fresh = {one: self._nameless(event) for one, event in events.items()}
        self._note("conversions_waiting", await rows.rewrite_waiting(self._conn, fresh))

    def _names(self, payload: bytes) -> bool:
        event = _conversion(payload)
        if event is None:
            return False
        session = decode_session(event.session) if event.session else None
        touch_ms = self._stones.touch_until_ms(session) if session else 0
        return bool(touch_ms or self._stones.conversion_until_ms(event)) and payload != self._nameless(payload)

    def _nameless(self, payload: bytes) -> bytes:
        event = _conversion(payload)
        if event is None:
            return payload
        return encode(nameless_event(event, keeps_sender=not self._stones.address_until_ms(event.ip)))

    async def _erase_conversions(self, target: Target) -> None:
        """Conversions that name the contact, or came from the network."""
        value = target.value
        while not isinstance(value, bytes):
            find = rows.conversions_of_contact if isinstance(value, str) else rows.conversions_of_network
            async with self._conn.transaction():
                ids = await find(self._conn, str(value), self._until, BATCH_ROWS)
                await self._strip_conversions(ids)
            if len(ids) < BATCH_ROWS:
                return

    async def _erase_texts(self) -> None:
        """What is kept as it came, or as it was answered."""
        # Those of earlier runs too: a killed one did not come here.
        hashes = {*map(click_hash, self._click_ids), *await erased_click_hashes(self._conn)}
        naming = Naming(self._order.targets, lambda click_id: click_hash(click_id) in hashes)
        async with self._conn.transaction():
            self._note("quarantine", await texts.empty_quarantine(self._conn, naming.names, self._until))
            self._note("imports", await texts.empty_imports(self._conn, naming.names))
            self._note("idempotent_answers", await texts.empty_answers(self._conn, naming.names))
            self._note("saved_reports", await texts.delete_saved_reports(self._conn, naming.is_asked_for))

    async def _erase_contacts(self) -> None:
        for contact_id in self._contacts:
            async with self._shut():
                self._note("contacts", await rows.erase_contact(self._conn, contact_id))

    @asynccontextmanager
    async def _shut(self) -> AsyncIterator[None]:
        """A transaction while nobody is in the midst of storing (E1); a rehearsal stops nobody."""
        async with self._conn.transaction():
            if not self._is_rehearsal:
                await shut_out_drains(self._conn)
            yield

    def _stone(self, target: Target) -> Tombstone:
        return Tombstone(target.kind, *hash_target(target, self._order.secret), self._until_ms)

    def _note(self, table: str, number: int) -> None:
        if number:
            self.counts[table] += number
            self._tell(table, number)


def _conversion(payload: bytes) -> Conversion | None:
    try:
        event = decode(payload)
    except (msgspec.MsgspecError, ValueError):
        return None
    return event if isinstance(event, Conversion) else None
