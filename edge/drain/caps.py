"""What caps let through: each conversion, one by one, under the lock of what was used so far.

Clicks were answered long ago by what their worker had heard of; here they are only counted.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from edge.cap_usage import counted, key_of, keys_of, usage_difference
from edge.drain.catalogs import CatalogHistory
from edge.drain.rows import hour_of
from edge.drain.settle import Decided, revision_of
from edge.tracking.caps import Limit, capped_verdict, exceeds, limits_for
from edge.tracking.catalog import Catalog, OfferView
from edge.tracking.verdict import Verdict
from storage.postgres.cap_usage import Usage, UsageKey, lock_usage, store_usage
from storage.postgres.catalog import hold_catalog
from storage.postgres.changes import Held
from storage.postgres.connection import Connection
from storage.postgres.copy import Uuid
from storage.postgres.stats import Deltas, StatsKey

_ACCEPTED = ("approved", "pending")
_TOUCHED = ("gross_clicks", "invalid_clicks", "refused_clicks", "payout", "revenue")


class Case(NamedTuple):
    """What binds a conversion that the rules accept. `limits`: the caps that decide, those of its revision."""

    policy: str
    limits: list[tuple[Limit, UsageKey]]


_UNBOUND = Case("", [])


class CapJudge:
    """Decides by the caps of the conversion's revision; counts for those of the revision in force."""

    def __init__(self, history: CatalogHistory, zone: ZoneInfo) -> None:
        self._history = history
        self._zone = zone

    async def open(
        self,
        conn: Connection,
        tried: Sequence[Decided],
        held: Iterable[Held],
        touches: Deltas,
        now: datetime,
    ) -> "CapBench":
        """Lock and count. `tried`: what is to be decided; `held`: what may change; `touches`: of the batch."""
        if not tried and not touches.rows:
            return CapBench({}, {}, set(), hour_of(now))
        revision = await hold_catalog(conn)
        await self._history.load(conn, {revision, *map(revision_of, tried)})
        in_force, hour = self._history.at(revision), hour_of(now)
        cases = {_id(one): self.case_of(one, hour) for one in tried}
        tracked = {key for touched in touches.rows for key in self._keys(in_force, *_place(touched))}
        for one in tried:
            if one.touched:
                session = one.touched.session
                tracked.update(self._keys(in_force, session.offer_id, session.aff_id, hour))
        for stored in held:
            tracked.update(self._keys(in_force, stored.offer_id, stored.aff_id, stored.booked_hour))
        usage = await lock_usage(conn, tracked | {key for case in cases.values() for _, key in case.limits})
        bench = CapBench(usage, cases, tracked, hour)
        bench.count(touches)
        return bench

    async def count(self, conn: Connection, touches: Deltas, now: datetime) -> None:
        """Count clicks and impressions that come without conversions."""
        await (await self.open(conn, [], (), touches, now)).write(conn)

    def case_of(self, tried: Decided, hour: datetime) -> Case:
        """What binds this conversion."""
        offer = self._offer(tried)
        if offer is None or tried.touched is None or tried.verdict.status not in _ACCEPTED:
            return _UNBOUND
        limits = limits_for(offer.limits, tried.touched.session.aff_id)
        return Case(offer.cap_conversions, [(limit, key_of(limit, offer.id, hour, self._zone)) for limit in limits])

    def _offer(self, one: Decided) -> OfferView | None:
        return self._history.at(revision_of(one)).offer(one.touched.session.offer_id) if one.touched else None

    def _keys(self, in_force: Catalog, offer_id: int, aff_id: int, hour: datetime) -> Iterable[UsageKey]:
        """The rows that what happens there is counted in."""
        offer = in_force.offer(offer_id)
        return keys_of(offer.limits, offer_id, aff_id, hour, self._zone) if offer is not None and offer.limits else ()


class CapBench:
    """Decides the conversions of one transaction in turn; the usage goes along."""

    def __init__(
        self,
        usage: dict[UsageKey, Usage],
        cases: dict[Uuid, Case],
        tracked: set[UsageKey],
        hour: datetime,
    ) -> None:
        """`usage`: locked; `tracked`: what is counted by the revision in force."""
        self._usage = usage
        self._cases = cases
        self._tracked = tracked
        self._hour = hour
        self._rows: dict[tuple[int, int], list[UsageKey]] = {}
        for key in usage:
            self._rows.setdefault((key.offer_id, key.aff_id), []).append(key)

    async def write(self, conn: Connection) -> None:
        """Store what is used by now."""
        await store_usage(conn, self._usage, self._tracked)

    def count(self, touches: Deltas) -> None:
        """Add the clicks, and what clicks and impressions earned."""
        offers = {offer_id for offer_id, _ in self._rows}
        for key in touches.rows:
            if key.offer_id in offers:
                gross, invalid, refused, payout, revenue = touches.measures(key, _TOUCHED)
                self._add(*_place(key), Usage(gross - invalid - refused, 0, payout, revenue))

    def decide(self, one: Decided, flat: Decided) -> Decided:
        """The verdict after the caps. `flat`: without its tier, as what is pending is priced."""
        verdict = one.verdict
        if verdict.status not in _ACCEPTED:
            return one
        adds = _use_of(verdict)
        case = self._cases[_id(one)]
        for limit, key in case.limits:
            if exceeds(limit, self._usage[key].of(limit.measure), adds.of(limit.measure)):
                verdict = capped_verdict(flat.verdict, limit, case.policy)
                break
        if verdict.status in _ACCEPTED and one.touched:
            self._add(one.touched.session.offer_id, one.touched.session.aff_id, self._hour, _use_of(verdict))
        return one._replace(verdict=verdict)

    def change(self, before: Held, after: Held) -> None:
        """A conversion was changed: it counts as it is now, in the hour in which it was decided."""
        self._add(before.offer_id, before.aff_id, before.booked_hour, usage_difference(before, after))

    def _add(self, offer_id: int, aff_id: int, hour: datetime, adds: Usage) -> None:
        """To all rows at hand that it belongs to."""
        for owner in {0, aff_id}:
            for key in self._rows.get((offer_id, owner), ()):
                if key.period_start <= hour < key.period_end:
                    self._usage[key].add(adds)


def _use_of(verdict: Verdict) -> Usage:
    return Usage(0, *counted(verdict.status, verdict.payout, verdict.revenue))


def _place(key: StatsKey) -> tuple[int, int, datetime]:
    return key.offer_id, key.aff_id, key.hour


def _id(one: Decided) -> Uuid:
    return Uuid(one.received.event.conversion_id)
