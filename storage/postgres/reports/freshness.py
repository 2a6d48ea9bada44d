"""How fresh a report is: through when everything that was answered is stored."""

from datetime import UTC, datetime

import msgspec

from storage.postgres.connection import Connection


class Freshness(msgspec.Struct, frozen=True):
    """`as_of` None: nothing was ever stored. With workers running it is at most a second or two behind, else their end."""

    as_of: datetime | None
    lag_s: float | None


async def read_freshness(conn: Connection, now: datetime) -> Freshness:
    """The time through which all journals that are not finished are stored; without one, that of the last that was."""
    ms: int | None = await conn.fetchval(
        "SELECT coalesce(min(watermark_ms) FILTER (WHERE finished_at IS NULL), max(watermark_ms)) FROM journal_positions"
    )
    if not ms:
        return Freshness(None, None)
    as_of = datetime.fromtimestamp(ms / 1000, UTC)
    return Freshness(as_of, max(0.0, round((now - as_of).total_seconds(), 3)))
