"""Which of a partner's conversions of the month the next one is: the counts, locked before they are read."""

from datetime import datetime
from zoneinfo import ZoneInfo

from edge.tracking.months import month_of, span_of
from storage.postgres.connection import Connection
from storage.postgres.tiers import TierKey, begin, find_counted, lock_counts, write_counts


class TierCounts:
    """The counts of one transaction: said to be needed, locked all at once, followed, written back."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._tiered: set[TierKey] = set()
        self._others: set[TierKey] = set()
        self._counts: dict[TierKey, int] = {}
        self._before: dict[TierKey, int] = {}

    def need(self, offer_id: int, aff_id: int, hour: datetime, *, is_tiered: bool) -> None:
        """A conversion of this offer and partner may be booked in that hour. `is_tiered`: and be priced by its rank."""
        (self._tiered if is_tiered else self._others).add(self._key(offer_id, aff_id, hour))

    async def lock(self, conn: Connection) -> None:
        """Read the counts that are needed. An offer without tiers has some only if it had tiers before."""
        others = self._others - self._tiered
        await begin(conn, self._tiered, books_others=bool(others))
        keys = self._tiered | (await find_counted(conn, others) if others else set())
        spans = {key: span_of(key.month, self._zone)[1:] for key in keys}
        self._counts = await lock_counts(conn, spans) if spans else {}
        self._before = dict(self._counts)

    def rank(self, offer_id: int, aff_id: int, hour: datetime) -> int:
        """The number that the next approved conversion has."""
        return self._counts.get(self._key(offer_id, aff_id, hour), 0) + 1

    def add(self, offer_id: int, aff_id: int, hour: datetime, conversions: int) -> None:
        """So many approved conversions were booked in that hour."""
        key = self._key(offer_id, aff_id, hour)
        if key in self._counts:
            self._counts[key] += conversions

    async def write(self, conn: Connection) -> None:
        """Write back what has changed."""
        await write_counts(conn, self._counts.items() - self._before.items())

    def _key(self, offer_id: int, aff_id: int, hour: datetime) -> TierKey:
        return TierKey(offer_id, aff_id, month_of(hour, self._zone))
