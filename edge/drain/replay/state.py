"""What decisions hang on besides the rules, as a replay goes along: keys, earlier conversions, tiers, caps. All in memory.

Kept is what a later row may still meet, and no longer: memory does not grow with the rows replayed but for ids that are
repeated. What was there before the period is looked up.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from edge.drain.caps import CapBench, Case
from edge.drain.claims import Keys
from edge.drain.resolving import Ledger, places_of
from edge.drain.settle import Decided
from edge.drain.tiers import TierCounts
from edge.tracking.months import span_of
from storage.postgres.cap_usage import Usage, UsageKey
from storage.postgres.changes import Held
from storage.postgres.connection import Connection
from storage.postgres.conversions import ConversionRow
from storage.postgres.copy import Uuid
from storage.postgres.replays import Window, count_approved_before, count_used_before, find_earlier_holders
from storage.postgres.tiers import TierKey

Booked = Callable[[Held | None, Held], None]
"""Told of each conversion that is booked (None: it is new) or changed."""


class ReplayLedger(Ledger):
    """The conversions replayed so far that something later may change."""

    def __init__(self, booked: Booked) -> None:
        super().__init__()
        self._is_asked = True
        self._booked = booked
        self._groups: dict[UUID, list[UUID]] = defaultdict(list)
        """The conversions of a click; one without is a group by itself."""

    def add(self, row: ConversionRow, event_id: str, hour: datetime) -> None:
        super().add(row, event_id, hour)
        self._book(self.held[UUID(bytes=row.conversion_id.bytes)])

    def put(self, held: Held) -> None:
        """A conversion whose decision stays as it was."""
        self.held[held.conversion_id] = held
        if held.status != "rejected":
            for place in places_of(held):
                self._made[place].append(held.conversion_id)
        self._book(held)

    def change(self, after: Held) -> None:
        """A conversion is another by a person's hand; one that a rule had refused may be meant from now on."""
        self.held[after.conversion_id] = after
        for place in places_of(after):
            made = self._made[place]
            if after.status != "rejected" and after.conversion_id not in made:
                made.append(after.conversion_id)
                self._sort(after)

    def forget(self, groups: Iterable[UUID]) -> list[UUID]:
        """Nothing later has to do with these clicks, or conversions without one; whose they were."""
        ids = [id_ for group in groups for id_ in self._groups.pop(group, ())]
        for id_ in ids:
            held = self.held.pop(id_, None)
            for place in places_of(held) if held else ():
                made = [one for one in self._made.pop(place, ()) if one != id_]
                if made:
                    self._made[place] = made
        return ids

    def _book(self, held: Held) -> None:
        self._groups[held.click_id or held.conversion_id].append(held.conversion_id)
        self._sort(held)
        self._booked(None, held)

    def _sort(self, held: Held) -> None:
        """Of several the advertiser means the one that was received last, whenever it was accepted."""
        for place in places_of(held):
            self._made[place].sort(key=lambda id_: (self.held[id_].received_at, id_))


class ReplayTiers(TierCounts):
    """Approved conversions by offer, partner and month: those booked before the window, and those of the replay."""

    def __init__(self, window: Window, zone: ZoneInfo) -> None:
        super().__init__(zone)
        self._window = window
        self._earlier: dict[TierKey, int] = {}

    async def prepare(self, conn: Connection, places: Iterable[tuple[int, int]], hour: datetime) -> None:
        """Look up what was booked in the hour's month before the window, of these offers and partners."""
        keys = {self._key(*place, hour): place for place in places}
        missing = {key: place for key, place in keys.items() if key not in self._earlier}
        if not missing:
            return
        self._earlier |= dict.fromkeys(missing, 0)
        starts_at = span_of(next(iter(missing)).month, self._zone).starts_at
        if starts_at < self._window.starts_at:
            found = await count_approved_before(conn, self._window, missing.values(), starts_at)
            self._earlier |= {key: found.get(place, 0) for key, place in missing.items()}

    def rank(self, offer_id: int, aff_id: int, hour: datetime) -> int:
        key = self._key(offer_id, aff_id, hour)
        return self._earlier.get(key, 0) + self._counts.get(key, 0) + 1

    def add(self, offer_id: int, aff_id: int, hour: datetime, conversions: int) -> None:
        key = self._key(offer_id, aff_id, hour)
        self._counts[key] = self._counts.get(key, 0) + conversions


class ReplayCaps(CapBench):
    """The use of caps, as the window found it and as the replay goes on."""

    def __init__(self, window: Window, zone: ZoneInfo, booked: Booked) -> None:
        super().__init__({}, {}, set(), window.starts_at)
        self._window = window
        self._zone = zone
        self._booked = booked
        self._by_day: dict[tuple[int, int], dict[datetime, Usage]] = defaultdict(lambda: defaultdict(Usage))
        self._days: dict[datetime, datetime] = {}

    async def prepare(self, conn: Connection, cases: dict[Uuid, Case], hour: datetime) -> None:
        """Begin a batch of that hour; what its caps need is looked up."""
        self._cases, self._hour = cases, hour
        for key in {key for case in cases.values() for _, key in case.limits} - self._usage.keys():
            await self.need(conn, key)

    async def need(self, conn: Connection, key: UsageKey) -> Usage:
        """How much is used of this key by now; kept up from now on."""
        used = self._usage.get(key)
        if used is None:
            used = await count_used_before(conn, self._window, key.offer_id, key.aff_id, key.period_start)
            for day, of_day in self._by_day[key.offer_id, key.aff_id].items():
                if key.period_start <= day < key.period_end:
                    used.add(of_day)
            self._usage[key] = used
            self._rows.setdefault((key.offer_id, key.aff_id), []).append(key)
        return used

    def change(self, before: Held, after: Held) -> None:
        super().change(before, after)
        self._booked(before, after)

    def use(self, offer_id: int, aff_id: int, hour: datetime, adds: Usage) -> None:
        """Something was had in that hour."""
        self._add(offer_id, aff_id, hour, adds)

    def _add(self, offer_id: int, aff_id: int, hour: datetime, adds: Usage) -> None:
        super()._add(offer_id, aff_id, hour, adds)
        for owner in {0, aff_id}:
            self._by_day[offer_id, owner][self._day_of(hour)].add(adds)

    def _day_of(self, hour: datetime) -> datetime:
        """The day of the caps' zone that holds the hour, by its first moment; caps' periods are made of such days."""
        day = self._days.get(hour)
        if day is None:
            local = hour.astimezone(self._zone)
            begin = local.replace(hour=0, minute=0, second=0, microsecond=0)
            day = self._days[hour] = begin.astimezone(hour.tzinfo)
            if day.minute or day.second:  # a day begins with the first hour that begins in it
                day = self._days[hour] = day.replace(minute=0, second=0) + timedelta(hours=1)
        return day


class KeyMemory:
    """Who holds which key: those of the replay, and those of before."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._held: dict[str, Uuid] = {}
        self._by_holder: dict[UUID, list[str]] = defaultdict(list)

    async def open(self, conn: Connection, tried: Sequence[Decided]) -> Keys:
        """The keys that these verdicts want."""
        wanted: dict[str, Uuid] = {}
        for one in tried:
            for key in (*one.verdict.claims, *filter(None, [one.verdict.repeat_key])):
                wanted.setdefault(key, Uuid(one.received.event.conversion_id))
        sought = {key for one in tried if one.verdict.ask for key in one.verdict.ask.seeks}
        unknown = sorted((wanted.keys() | sought) - self._held.keys())
        stored = await find_earlier_holders(conn, self._window, unknown)
        stored |= {key: self._held[key] for key in sought & self._held.keys()}
        free = {key: first for key, first in wanted.items() if key not in self._held and key not in stored}
        return Keys(free, stored)

    def close(self, keys: Keys) -> None:
        """Remember who has them now."""
        for key, holder in keys.taken.items():
            self.take(key, holder)

    def take(self, key: str, holder: Uuid) -> None:
        """It is that conversion's, if it was nobody's."""
        if key not in self._held:
            self._held[key] = holder
            self._by_holder[UUID(bytes=holder.bytes)].append(key)

    def forget(self, ids: Iterable[UUID]) -> None:
        """Nothing later wants what these hold."""
        for id_ in ids:
            for key in self._by_holder.pop(id_, ()):
                del self._held[key]
