"""The conversions of a window in the order in which they were decided, through the drain's own resolver."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from edge.drain.caps import CapJudge
from edge.drain.matching import Matcher, Received
from edge.drain.replay import records
from edge.drain.replay.crediting import Crediting
from edge.drain.replay.figures import Tally
from edge.drain.replay.people import redo
from edge.drain.replay.rules import ReplayHistory, RuleChange
from edge.drain.replay.state import KeyMemory, ReplayCaps, ReplayLedger, ReplayTiers
from edge.drain.resolving import Resolver, Turn
from edge.drain.rows import RowMaker, Touched, hour_of, moment
from edge.drain.settle import Decided, Settled, Settler
from edge.settings import Settings
from edge.tracking.asking import keys_of
from edge.tracking.click_id import ms_of
from edge.tracking.payouts import ZERO
from edge.tracking.status_codes import rejection_code
from storage.postgres.cap_usage import Usage
from storage.postgres.connection import Connection
from storage.postgres.copy import Uuid
from storage.postgres.months import ClosedMonth
from storage.postgres.replays import Window, changes_outside, find_held, revision_times, stream_decided, uuid_of
from storage.postgres.sessions import find_sessions

Row = Mapping[str, Any]
BATCH = 1000
_FOLLOWED = ("booked_hour", "conversions_delta", "status_before", "status_after", "payout_after", "revenue_after")
BeforeMoment = Callable[[Connection, datetime], Awaitable[None]]


class Batch(NamedTuple):
    """What is decided together, in one hour; or one person's change, or one erased. `came_at`: not after the first of it came."""

    hour: datetime
    came_at: datetime
    rows: list[Row]


class _NoRows(RowMaker):
    """Makes no rows of clicks, and stores no address."""

    def __init__(self) -> None:
        self._ip_storage = "none"


class ConversionReplay:
    """One pass over the window."""

    def __init__(self, window: Window, rules: RuleChange, history: ReplayHistory, zone: ZoneInfo, tally: Tally) -> None:
        self._window = window
        self._history = history
        self._tally = tally
        self._judge = CapJudge(history, zone)
        matcher = Matcher(_NoRows(), Settings(data_dir=""), history)
        self._settler = Settler(history, _NoRows(), matcher)
        self._resolver = Resolver(self._settler, history, self._judge, zone)
        self._crediting = Crediting(rules, history, matcher)
        self._ledger = ReplayLedger(tally.count_after)
        self._keys = KeyMemory(window)
        self.counts = ReplayTiers(window, zone)
        self.caps = ReplayCaps(window, zone, tally.count_after)
        self._times: list[tuple[datetime, int]] = []
        self._kept: set[UUID] = set()
        """Clicks of which a conversion may be met by one of another click."""

    async def run(
        self,
        conn: Connection,
        on_progress: Callable[[int], None],
        before: BeforeMoment | None = None,
        *,
        is_fine: bool = False,
    ) -> None:
        """All of it. `before`: awaited with a moment that is about to be replayed, for clicks fill caps too: each hour, or
        with `is_fine` each second.
        """
        self._times = await revision_times(conn)
        earlier = changes_outside(conn, self._window)
        ahead = await anext(earlier, None)
        async for hour, came_at, rows in _batches(stream_decided(conn, self._window), is_fine=is_fine):
            while ahead is not None and ahead["change_id"] < rows[0]["change_change_id"]:
                self._follow(ahead)
                ahead = await anext(earlier, None)
            if before:
                await before(conn, came_at)
            if _is_erased(rows[0]):
                self._pass_over(rows[0])
            elif _is_by_person(rows[0]):
                await self._redo(conn, rows[0])
            else:
                await self._decide(conn, hour, rows)
            self._forget(rows)
            on_progress(sum(row["change_kind"] == "decided" for row in rows))

    async def _decide(self, conn: Connection, hour: datetime, batch: Sequence[Row]) -> None:
        """Conversions, and those that changed another: all of one hour."""
        tried = await self._try(conn, batch)
        ready = [one for one in tried if one is not None]
        keys = await self._keys.open(conn, ready)
        places = {(one.touched.session.offer_id, one.touched.session.aff_id) for one in ready if one.touched}
        await self.counts.prepare(conn, places, hour)
        cases = {Uuid(one.received.event.conversion_id): self._judge.case_of(one, hour) for one in ready}
        await self.caps.prepare(conn, cases, hour)
        for row, one in zip(batch, tried, strict=True):
            if row["change_kind"] == "decided":
                self._tally.count_before(_Now(row))
            if one is None:
                self._keep(row)
                continue
            self._ledger.closed = _closing(row)
            now = row["change_booked_hour"] if self._ledger.closed else hour
            self._resolver.settle_one(one, Turn(keys, self._ledger, self.counts, self.caps, now, Settled()))
        self._keys.close(keys)

    async def _try(self, conn: Connection, batch: Sequence[Row]) -> list[Decided | None]:
        """The verdict on each by the changed rules, claims not yet tried; None: it stays as it was."""
        touch_revisions = await _touch_revisions(conn, batch)
        pairs = [(self._received(row), records.touched_of(row, touch_revisions)) for row in batch]
        revisions = {one.event.revision for one, _ in pairs} | {touch.session.revision for _, touch in pairs if touch}
        await self._history.load(conn, revisions)
        credited = await self._crediting.credit(conn, pairs)
        await self._history.load(conn, revisions | {touch.session.revision for touch in credited if touch})
        tried = [
            None if _stays(row, touch) else self._settler.decide(one, touch)
            for row, (one, _), touch in zip(batch, pairs, credited, strict=True)
        ]
        repeats = [_repeats(row, one) for row, one in zip(batch, tried, strict=True)]
        held = await find_held(conn, filter(None, repeats))
        return [None if key and key not in held else one for one, key in zip(tried, repeats, strict=True)]

    def _received(self, row: Row) -> Received:
        if row["change_kind"] == "decided":
            return records.received_of(row)
        revision = records.revision_at(self._times, _cause_time(row))
        return records.cause_of(row, max(row["catalog_revision"], revision))

    def _keep(self, row: Row) -> None:
        reason, status = row["change_reason"], row["change_status_after"]
        code = rejection_code(reason) if status == "rejected" else row["status_code"]
        self._ledger.put(records.held_of(row, reason, code))

    async def _redo(self, conn: Connection, row: Row) -> None:
        """What a person did to a conversion, done to what it is now."""
        held = self._ledger.held.get(row["conversion_id"])
        if held is None:  # it became a change of another
            return
        await self._history.load(conn, [held.catalog_revision])
        place, hour = (held.offer_id, held.aff_id), row["change_booked_hour"]
        await self.counts.prepare(conn, [place], hour)
        redone = redo(row, held, self._history, self.counts.rank(*place, hour))
        if redone is None:
            return
        after, keys = redone
        for key in keys:
            self._keys.take(key, Uuid(held.conversion_id.bytes))
        self._ledger.change(after)
        self.counts.add(*place, hour, (after.status == "approved") - (held.status == "approved"))
        self.caps.change(held, after)

    def _pass_over(self, row: Row) -> None:
        """An erased conversion: what it sent is gone, so it stays what it is, and what tiers and caps felt of it."""
        if row["change_kind"] == "decided":
            self._tally.count_erased(_Now(row))
        self._follow({**row, **{name: row[f"change_{name}"] for name in _FOLLOWED}})

    def _follow(self, row: Row) -> None:
        """A change of a conversion that is not decided again: tiers and caps felt it."""
        place = row["offer_id"], row["aff_id"]
        self.counts.add(*place, row["booked_hour"], row["conversions_delta"])
        old, new = (int(row[f"status_{side}"] in ("approved", "pending")) for side in ("before", "after"))
        payout, revenue = (
            new * (row[f"{name}_after"] or ZERO) - old * (row[f"{name}_before"] or ZERO) for name in ("payout", "revenue")
        )
        self.caps.use(*place, row["decided_hour"], Usage(0, new - old, payout, revenue))

    def _forget(self, batch: Sequence[Row]) -> None:
        """What nothing later has to do with. A conversion that may move to another click is met by who knows whom."""
        if not self._crediting.joins_clicks:
            self._kept |= {_group_of(row) for row in batch if row["is_repeated"] or _is_joined(row)}
            ended = {_group_of(row) for row in batch if row["is_last"]} - self._kept
            self._keys.forget(self._ledger.forget(ended))


def _group_of(row: Row) -> UUID:
    group: UUID = row["click_id"] or row["conversion_id"]
    return group


def _is_joined(row: Row) -> bool:
    """Whether it holds keys of two clicks, and something later has to do with one of them."""
    return row["named_click_id"] not in (None, row["click_id"]) and not row["is_last"]


class _Now:
    """A conversion as its row is now."""

    def __init__(self, row: Row) -> None:
        self.offer_id: int = row["offer_id"]
        self.aff_id: int = row["aff_id"]
        self.currency: str = row["currency"]
        self.status: str = row["status"]
        self.reason: str = row["reason"]
        self.amount: Decimal = row["amount"]
        self.payout: Decimal = row["payout"]
        self.revenue: Decimal = row["revenue"]


async def _batches(rows: AsyncIterator[Row], *, is_fine: bool) -> AsyncIterator[Batch]:
    """Rows in a row that can be decided together: of one hour, or second; what is not decided stands alone."""
    hour = came_at = datetime.min.replace(tzinfo=UTC)
    batch = list[Row]()
    async for row in rows:
        is_alone, next_hour = _is_by_person(row) or _is_erased(row), _hour_of(row, hour)
        next_came_at = _second_of(row, came_at) if is_fine else next_hour
        if batch and (is_alone or (next_hour, next_came_at) != (hour, came_at) or len(batch) == BATCH):
            yield Batch(hour, came_at, batch)
            batch = []
        hour, came_at = next_hour, next_came_at
        if is_alone:
            yield Batch(hour, came_at, [row])
        else:
            batch.append(row)
    if batch:
        yield Batch(hour, came_at, batch)


def _second_of(row: Row, latest: datetime) -> datetime:
    """When it came. What a person changes comes when its neighbours do."""
    if _is_by_person(row):
        return latest
    came: datetime = row["received_at"] if row["change_kind"] == "decided" else _cause_time(row)
    return max(latest, came.replace(microsecond=0))


def _hour_of(row: Row, latest: datetime) -> datetime:
    """The hour in which it was decided. A change is booked elsewhere: it came at its cause's time, or when its neighbours did."""
    if row["change_kind"] == "decided":
        hour: datetime = row["change_booked_hour"]
        return hour
    return max(latest, hour_of(_cause_time(row))) if row["change_cause_id"] else latest


def _is_by_person(row: Row) -> bool:
    return row["change_kind"] != "decided" and row["change_cause_id"] is None


def _is_erased(row: Row) -> bool:
    return row["erased_at"] is not None


def _cause_time(row: Row) -> datetime:
    return moment(ms_of(row["change_cause_id"].bytes))


def _repeats(row: Row, one: Decided | None) -> str:
    """The key that made it a duplicate, where the click is none. If nobody holds it now, an erased conversion does, as a hash."""
    was_duplicate = one is not None and row["change_kind"] == "decided" and row["change_reason"] == "duplicate"
    unique_id, event_id = row["conversion_unique_id"], row["extras"].get("adv_unique1", "")
    if not was_duplicate or (row["click_id"] and not unique_id):
        return ""
    partner = f"{row['offer_id']}:{row['aff_id']}:{row['goal_id']}"
    return next(iter(keys_of((), partner, "reject", unique_id, event_id)), "")


def _closing(row: Row) -> list[ClosedMonth]:
    """The month that was closed when this change was made, as far as it matters: the hour of the conversion's decision."""
    decided = row["decided_hour"]
    if row["change_kind"] == "decided" or row["change_booked_hour"] == decided:
        return []
    return [ClosedMonth(decided.date().replace(day=1), decided, decided + timedelta(hours=1), decided, "")]


def _stays(row: Row, touched: Touched | None) -> bool:
    """Whether it is as it was. Whose click is unknown may be somebody's by a promo code now."""
    is_found = row["change_reason"] == "unknown_click" and touched is not None
    return row["change_kind"] == "decided" and records.is_kept(row) and not is_found


async def _touch_revisions(conn: Connection, batch: Sequence[Row]) -> dict[bytes, int]:
    """The catalog revision of each touch that is still stored."""
    ids = {uuid_of(row["click_id"]) for row in batch} - {b""}
    found = {**await find_sessions(conn, ids, "impressions"), **await find_sessions(conn, ids)}
    return {id_: stored.revision for id_, stored in found.items()}
