"""How far the journals of the edges are stored, by way of the stream, and who drains what."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from benchmarks.cluster.programs import Edge
from storage.journal.segments import list_journal_paths, list_segments

Place = tuple[int, int]
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


class Lease(NamedTuple):
    """One partition's; `owner` is None where nobody drains it just now."""

    partition: int
    owner: UUID | None
    takeovers: int


def journal_ends(data_dir: Path) -> dict[UUID, Place]:
    """How far each journal is written: its last segment and that one's size."""
    ends = {}
    for directory in list_journal_paths(data_dir / "journal"):
        if segments := list_segments(directory):
            last = segments[-1]
            for path in (last.path, last.path.with_suffix(".done")):  # it may get that name between the two looks
                if path.exists():
                    ends[UUID(directory.name)] = (last.number, path.stat().st_size)
                    break
    return ends


def ends_of(edges: Iterable[Edge]) -> dict[UUID, Place]:
    """Of the journals of these edges."""
    return {journal_id: end for edge in edges for journal_id, end in journal_ends(edge.data_dir).items()}


async def unstored(conn: Any, ends: Mapping[UUID, Place]) -> list[str]:
    """A line for each journal that is not stored up to there in all its partitions; empty: all is."""
    rows = await conn.fetch(
        "SELECT p.journal_id, j.partitions, count(*) AS known,"
        " array_agg(p.segment) AS segments, array_agg(p.byte_offset) AS offsets, array_agg(p.finished_at IS NOT NULL) AS ended"
        " FROM stream_positions p JOIN journal_positions j USING (journal_id) WHERE p.journal_id = ANY ($1) GROUP BY 1, 2",
        list(ends),
    )
    stored = {row["journal_id"]: row for row in rows}
    faults = []
    for journal_id, end in ends.items():
        row = stored.get(journal_id)
        if row is None or row["known"] < row["partitions"]:
            faults.append(f"journal {journal_id.hex} is unknown")
            continue
        places = zip(row["segments"], row["offsets"], row["ended"], strict=True)
        behind = [(segment, offset) for segment, offset, ended in places if not ended and (segment, offset) < end]
        if behind:
            faults.append(f"journal {journal_id.hex}: {len(behind)} partitions are at {min(behind)} or later, it ends at {end}")
    return faults


async def leases(conn: Any) -> dict[int, Lease]:
    """Who drains each partition now, by the database's clock."""
    rows = await conn.fetch(
        "SELECT partition, CASE WHEN leased_until > now() THEN owner END AS owner, takeovers FROM stream_partitions"
    )
    return {row["partition"]: Lease(row["partition"], row["owner"], row["takeovers"]) for row in rows}


async def stored_events(conn: Any) -> int:
    """Clicks, impressions and conversions in the database."""
    return int(
        await conn.fetchval(
            "SELECT (SELECT count(*) FROM clicks) + (SELECT count(*) FROM impressions) + (SELECT count(*) FROM conversions)"
        )
    )
