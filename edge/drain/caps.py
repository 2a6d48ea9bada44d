"""What caps let through: each conversion, one by one, under the lock of what was used so far.

Clicks were answered long ago by what their worker had heard of; here they are only counted.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from edge.cap_usage import UsageChange, counted, key_of, keys_of
from edge.drain.catalogs import CatalogHistory
from edge.drain.rows import hour_of
from edge.drain.settle import Decided
from edge.tracking.caps import Limit, capped_verdict, exceeds, limits_for
from edge.tracking.catalog import Catalog, OfferView
from storage.postgres.cap_usage import Usage, UsageKey, lock_usage, store_usage
from storage.postgres.catalog import hold_catalog
from storage.postgres.connection import Connection
from storage.postgres.conversions import give_keys, release_keys
from storage.postgres.copy import Uuid
from storage.postgres.stats import Deltas, StatsKey

_ACCEPTED = ("approved", "pending")
_TOUCHED = ("gross_clicks", "invalid_clicks", "refused_clicks", "payout", "revenue")


class _Case(NamedTuple):
    """A conversion before caps. `tried`, `standing`: before and after its claims."""

    tried: Decided
    standing: Decided
    policy: str
    limits: list[tuple[Limit, UsageKey]]
    """The caps that decide, those of the conversion's revision."""
    tracked: set[UsageKey]
    """What it adds to by the revision in force."""


class CapJudge:
    """Decides by the caps of the conversion's revision; counts for those of the revision in force."""

    def __init__(self, history: CatalogHistory, zone: ZoneInfo) -> None:
        self._history = history
        self._zone = zone

    async def judge(
        self,
        conn: Connection,
        tried: Sequence[Decided],
        standing: Sequence[Decided],
        touches: Deltas,
        now: datetime,
        changes: Sequence[UsageChange] = (),
    ) -> list[Decided]:
        """The verdicts after the caps. `tried`, `standing`: before and after the claims; `touches`: all of this batch.

        `changes`: what becomes of conversions decided earlier. To be called before any of these rows is written, and once
        a transaction (U1).
        """
        if not tried and not touches.rows and not changes:
            return []
        revision = await hold_catalog(conn)
        await self._history.load(conn, {revision, *map(_revision, tried)})
        in_force, hour = self._history.at(revision), hour_of(now)
        cases = [self._case(*pair, in_force, hour) for pair in zip(tried, standing, strict=True)]
        tracked = {key for touched in touches.rows for key in self._keys(in_force, *_place(touched))}
        tracked.update(*(case.tracked for case in cases), *(self._keys(in_force, *change[:3]) for change in changes))
        usage = await lock_usage(conn, tracked | {key for case in cases for _, key in case.limits})
        bench = _Bench(usage, hour)
        bench.count(touches)
        for change in changes:
            bench.add(*change)
        verdicts = [bench.decide(case) for case in cases]
        await store_usage(conn, usage, tracked)
        await release_keys(conn, bench.released)
        await give_keys(conn, bench.given)
        return verdicts

    def _case(self, tried: Decided, standing: Decided, in_force: Catalog, hour: datetime) -> _Case:
        offer = self._offer(tried)
        if offer is None or tried.touched is None or tried.verdict.status not in _ACCEPTED:
            return _Case(tried, standing, "", [], set())
        aff_id = tried.touched.session.aff_id
        limits = [(limit, key_of(limit, offer.id, hour, self._zone)) for limit in limits_for(offer.limits, aff_id)]
        tracked = set(self._keys(in_force, offer.id, aff_id, hour))
        return _Case(tried, standing, offer.cap_conversions, limits, tracked)

    def _offer(self, one: Decided) -> OfferView | None:
        return self._history.at(_revision(one)).offer(one.touched.session.offer_id) if one.touched else None

    def _keys(self, in_force: Catalog, offer_id: int, aff_id: int, hour: datetime) -> Iterable[UsageKey]:
        """The rows that what happens there is counted in."""
        offer = in_force.offer(offer_id)
        return keys_of(offer.limits, offer_id, aff_id, hour, self._zone) if offer is not None and offer.limits else ()


class _Bench:
    """Decides the cases of one transaction in turn; `usage` goes along."""

    def __init__(self, usage: dict[UsageKey, Usage], hour: datetime) -> None:
        self._usage = usage
        self._hour = hour
        self._rows: dict[tuple[int, int], list[UsageKey]] = {}
        for key in usage:
            self._rows.setdefault((key.offer_id, key.aff_id), []).append(key)
        self.released: dict[str, Uuid] = {}
        """Keys that a conversion claimed in vain, free for the next."""
        self.given: dict[str, Uuid] = {}
        """Such keys that another conversion of this transaction has now."""

    def count(self, touches: Deltas) -> None:
        """Add the clicks, and what clicks and impressions earned."""
        offers = {offer_id for offer_id, _ in self._rows}
        for key in touches.rows:
            if key.offer_id in offers:
                gross, invalid, refused, payout, revenue = touches.measures(key, _TOUCHED)
                self.add(*_place(key), Usage(gross - invalid - refused, 0, payout, revenue))

    def decide(self, case: _Case) -> Decided:
        """The verdict. A duplicate is tried again when the conversion that it repeats has come to nothing."""
        claims = case.tried.verdict.claims
        if case.standing.verdict.reason == "duplicate" and claims and all(key in self.released for key in claims):
            decided = self._try(case, case.tried)
            if decided.verdict.claims:
                for key in claims:
                    del self.released[key]
                    self.given[key] = _id(decided)
            return decided
        decided = self._try(case, case.standing)
        if case.standing.verdict.claims and not decided.verdict.claims:
            self.released |= dict.fromkeys(claims, _id(decided))
        return decided

    def _try(self, case: _Case, one: Decided) -> Decided:
        verdict = one.verdict
        if verdict.status not in _ACCEPTED:
            return one
        adds = Usage(0, *counted(verdict.status, verdict.payout, verdict.revenue))
        for limit, key in case.limits:
            if exceeds(limit, self._usage[key].of(limit.measure), adds.of(limit.measure)):
                verdict = capped_verdict(verdict, limit, case.policy)
                break
        if verdict.status in _ACCEPTED and one.touched:
            self.add(one.touched.session.offer_id, one.touched.session.aff_id, self._hour, adds)
        return one._replace(verdict=verdict)

    def add(self, offer_id: int, aff_id: int, hour: datetime, adds: Usage) -> None:
        """To all rows at hand that it belongs to."""
        for owner in {0, aff_id}:
            for key in self._rows.get((offer_id, owner), ()):
                if key.period_start <= hour < key.period_end:
                    self._usage[key].add(adds)


def _place(key: StatsKey) -> tuple[int, int, datetime]:
    return key.offer_id, key.aff_id, key.hour


def _revision(one: Decided) -> int:
    """The one whose caps decide; as in `Settler.decide`."""
    return max(one.received.event.revision, one.touched.session.revision if one.touched else 0)


def _id(one: Decided) -> Uuid:
    return Uuid(one.received.event.conversion_id)
