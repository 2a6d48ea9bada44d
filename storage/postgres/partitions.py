"""Daily partitions of `clicks` and `impressions`, made ahead of need and on demand.

P1  A partition holds the ids of one UTC day, so an id alone says where its row is.
P2  It also has a CHECK on `clicked_at`, so that a range of times prunes like a range of ids.
P3  It is made as a table of its own and then attached: attaching blocks neither readers nor COPY.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

PARENTS = ("clicks", "impressions")
_LOCK_KEY = 0x436C69636B456470
_LOCK_TIMEOUT_MS = 5000
_DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)


def day_of_id(click_id: bytes) -> date:
    """The UTC day of an id's millisecond; OverflowError beyond the year 9999."""
    return _EPOCH + timedelta(days=int.from_bytes(click_id[:6], "big") // _DAY_MS)


def id_range(day: date) -> tuple[UUID, UUID]:
    """The lowest id that the day may have, and the lowest of the next day."""
    first_ms = (day - _EPOCH).days * _DAY_MS
    return UUID(int=first_ms << 80), UUID(int=(first_ms + _DAY_MS) << 80)


def partition_name(parent: str, day: date) -> str:
    """Such as clicks_20261121."""
    return f"{parent}_{day:%Y%m%d}"


class Partitions:
    """Remembers which days have their partitions, so that asking for them again costs nothing."""

    def __init__(self) -> None:
        self._known: set[date] = set()

    async def ensure(self, connection: Any, days: Iterable[date]) -> None:
        """Make what is missing. Outside a transaction: what would be rolled back must not be remembered."""
        missing = sorted(set(days) - self._known)
        if missing and connection.is_in_transaction():
            raise RuntimeError("partitions are made outside the caller's transaction")
        for day in missing:
            await _create(connection, day)
            self._known.add(day)

    async def ensure_ahead(self, connection: Any, today: date, days: int = 7) -> None:
        """Make yesterday's (journals may lag behind midnight) to those `days` ahead."""
        await self.ensure(connection, [today + timedelta(days=offset) for offset in range(-1, days + 1)])

    def forget(self) -> None:
        """Look again: a row found no partition, so somebody has dropped one that we remember."""
        self._known.clear()


async def _create(connection: Any, day: date) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
        # Two creators would otherwise both find nothing and the second fail.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
        for parent in PARENTS:
            is_pending = await _is_detach_pending(connection, parent, day)
            if is_pending:  # a retention that was cut off: it is finished before the day can come back
                name = partition_name(parent, day)
                await connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {name} FINALIZE")
            if is_pending is not False:
                await connection.execute(_create_sql(parent, day))


async def _is_detach_pending(connection: Any, parent: str, day: date) -> bool | None:
    """None: it is no partition, or no table at all."""
    found: bool | None = await connection.fetchval(
        "SELECT inhdetachpending FROM pg_inherits"
        " WHERE inhparent = $1::text::regclass AND inhrelid = to_regclass($2::text)",
        parent,
        partition_name(parent, day),
    )
    return found


def _create_sql(parent: str, day: date) -> str:
    name = partition_name(parent, day)
    first_id, next_id = id_range(day)
    begins, ends = (datetime.combine(day + timedelta(days=offset), time(), UTC).isoformat() for offset in (0, 1))
    return (
        f"CREATE TABLE IF NOT EXISTS {name} (LIKE {parent} INCLUDING ALL,"
        f" CONSTRAINT {name}_clicked_at CHECK (clicked_at >= '{begins}' AND clicked_at < '{ends}'));"
        f" ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{first_id}') TO ('{next_id}')"
    )
