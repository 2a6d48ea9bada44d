"""Events of people who were erased, as a drain meets them in a journal: it was written before, or is drained once more.

A click or impression that happened before is counted as any other, and its row is not stored. A conversion is decided and
booked as any other, and its row names nobody. So it ends as if the erasure had come after. What happens later is new, and
stored; but a session that a worker still held of an erased click is not believed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import msgspec

from edge.drain.matching import Received
from edge.drain.settle import Decided
from edge.tracking.click_id import ms_of
from edge.tracking.tombstones import Tombstone, Tombstones, click_hash, is_telling, masked_key, nameless_event
from storage.journal.events import Session, decode_session, encode
from storage.postgres.connection import Connection
from storage.postgres.erasing import find_masked
from storage.postgres.erasures import (
    Erasure,
    add_erasures,
    find_erased_clicks,
    hold_erasures,
    latest_until,
    load_erasures,
)
from storage.postgres.partitions import day_of_id

ErasedTouches = Mapping[bytes, int]
"""By click id: until which Unix millisecond what names it is erased."""


class Conversions(NamedTuple):
    """Conversions as they are to be settled; `hidden`: clicks whose session is not to be remembered."""

    received: list[Received]
    hidden: frozenset[bytes]


class Erasures:
    """What one drain knows of erasures. In each of its transactions `hold` comes first."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._version = 0
        self._stones = Tombstones()
        self.latest_ms = 0
        """What happened later is nobody's who is erased; 0: nobody is."""

    def doubt(self) -> None:
        """The database may be another one, with the same version and other erasures."""
        self._version = -1

    async def hold(self, conn: Connection) -> None:
        """Until the transaction's end, know of all (E1)."""
        version = await hold_erasures(conn)
        if version == self._version:
            return
        until = await latest_until(conn)
        rows = [Tombstone("contact" if one.kind == "contact" else "ip", *one[1:3], unix_ms(one.until))
                for one in await load_erasures(conn)]  # fmt: skip
        self._stones = Tombstones(self._secrets, rows)
        self.latest_ms = unix_ms(until) if until else 0
        self._version = version

    async def touches(self, conn: Connection, sessions: Iterable[Session]) -> dict[bytes, int]:
        """Those of these clicks or impressions that are erased."""
        early = [one for one in sessions if ms_of(one.click_id) <= self.latest_ms]
        erased = await self._of_ids(conn, {one.click_id for one in early})
        for one in early:
            if until_ms := self._stones.touch_until_ms(one):
                erased[one.click_id] = max(until_ms, erased.get(one.click_id, 0))
        return erased

    async def conversions(self, conn: Connection, received: Sequence[Received], touches: ErasedTouches) -> Conversions:
        """Mark what is erased. `touches`: what is known of the same batch's clicks."""
        if not received or not self.latest_ms:
            return Conversions(list(received), frozenset())
        ids = {id_ for one in received if (id_ := one.event.click_id) and ms_of(id_) <= self.latest_ms}
        known = {**await self._of_ids(conn, ids - touches.keys()), **touches}
        marked, hidden = [], set[bytes]()
        for one in received:
            click_ms = max(known.get(one.event.click_id, 0), self._session_until_ms(one.event.session))
            until_ms = max(self._stones.conversion_until_ms(one.event), click_ms)
            if one.event.received_ms <= until_ms:
                marked.append(self._nameless(one))
            elif click_ms:
                hidden.add(one.event.click_id)
                marked.append(_without_session(one))
            else:
                marked.append(one)
        return Conversions(marked, frozenset(hidden))

    def _nameless(self, one: Received) -> Received:
        keeps_sender = not self._stones.address_until_ms(one.event.ip)
        return one._replace(payload=encode(nameless_event(one.event, keeps_sender=keeps_sender)), is_erased=True)

    def _session_until_ms(self, session: bytes) -> int:
        return self._stones.touch_until_ms(decode_session(session)) if session else 0

    async def _of_ids(self, conn: Connection, click_ids: Collection[bytes]) -> dict[bytes, int]:
        by_hash = {click_hash(one): one for one in click_ids}
        found = await find_erased_clicks(conn, by_hash.keys())
        return {by_hash[value_hash]: unix_ms(until) for value_hash, until in found.items()}


async def remember_touches(conn: Connection, erased: ErasedTouches) -> None:
    """Clicks that went with their contact or address are erased by their ids too: what names them need not say more."""
    rows = [
        Erasure("click", click_hash(one), 0, datetime.fromtimestamp(until_ms / 1000, UTC), _day(one), True, "drain")
        for one, until_ms in erased.items()
    ]
    await add_erasures(conn, rows)


async def mask_claims(conn: Connection, tried: Sequence[Decided], secrets: Sequence[str]) -> list[Decided]:
    """The verdicts, keys that hold an erased order's id replaced by what stands for them."""
    wanted = {key: one.received.is_erased for one in tried for key in _keys(one) if is_telling(key)}
    if not wanted or not secrets:
        return list(tried)
    masks = {masked_key(secret, key): key for key in wanted for secret in secrets}
    held = {masks[mask]: mask for mask in await find_masked(conn, masks)}
    own = {key: masked_key(secrets[0], key) for key, is_erased in wanted.items() if is_erased}
    return [_masked(one, {**own, **held} if one.received.is_erased else held) for one in tried]


def _keys(one: Decided) -> tuple[str, ...]:
    return (*one.verdict.claims, *(one.verdict.ask.seeks if one.verdict.ask else ()))


def _masked(one: Decided, masks: Mapping[str, str]) -> Decided:
    if masks.keys().isdisjoint(_keys(one)):
        return one
    verdict, ask = one.verdict, one.verdict.ask
    if ask:
        ask = msgspec.structs.replace(ask, seeks=tuple(masks.get(key, key) for key in ask.seeks))
    claims = tuple(masks.get(key, key) for key in verdict.claims)
    return one._replace(verdict=msgspec.structs.replace(verdict, claims=claims, ask=ask))


def _without_session(one: Received) -> Received:
    if not one.event.session:
        return one
    event = msgspec.structs.replace(one.event, session=b"")
    return one._replace(event=event, payload=encode(event))


def _day(click_id: bytes) -> date:
    return day_of_id(click_id)


def unix_ms(moment: datetime) -> int:
    """A moment in whole Unix milliseconds."""
    return int(moment.timestamp() * 1000)
