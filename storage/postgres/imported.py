"""Imported conversions: which rows of files are which conversions, and what has been heard of a click and goal already.

M1  An import's batch holds the imports' lock (`imports.lock_imports`) from its first look to its commit: two imports of
    one sale see each other.
M2  Within one run each stored conversion, and each change by which one was increased, stands for one row only: the rest is
    kept in a temporary table, so that memory does not grow with the file.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import asyncpg

from storage.postgres.copy import Uuid

_CANDIDATES_PER_PLACE = 1000


class Place(NamedTuple):
    """Where a conversion was made: a click's goal or, without a click, a partner's, between two moments.

    Of a partner's, who may have thousands there, only those are looked for that these values fit; what is empty fits all.
    """

    click_id: UUID | None
    goal_id: int
    offer_id: int = 0
    aff_id: int = 0
    from_at: datetime | None = None
    to_at: datetime | None = None
    amount: Decimal | None = None
    contact_id: str = ""
    unique_id: str = ""
    order_id: str = ""


class Heard(NamedTuple):
    """Something heard of a place before: a conversion, or a change that increased one (then `event_id` is its cause's)."""

    event_id: UUID
    conversion_id: UUID
    heard_at: datetime
    amount: Decimal
    """As it is now; of an increase what was added."""
    first_amount: Decimal
    status: str
    reason: str
    unique_id: str
    order_id: str
    contact_id: str
    currency: str

    @property
    def is_increase(self) -> bool:
        return self.event_id != self.conversion_id


# What was refused says nothing, unless somebody took it back later or a cap did it: that would be so again.
_COUNTS = "(status <> 'rejected' OR status_code = $4 OR conversions.reason = 'capped')"
_CONVERSION = f"""
    SELECT conversion_id AS event_id, conversion_id, converted_at, amount, coalesce((
             SELECT amount_after FROM conversion_changes AS decided WHERE decided.kind = 'decided'
             AND decided.conversion_id = conversions.conversion_id ORDER BY change_id DESC LIMIT 1), amount),
           status, reason, conversion_unique_id, coalesce(extras ->> 'adv_unique1', ''), contact_id, currency
    FROM conversions WHERE goal_id = wanted.goal_id AND {_COUNTS} AND %s
"""
_INCREASE = f"""
    SELECT cause_id, conversions.conversion_id,
           CASE WHEN cause_params ? 'import_id' THEN (cause_params ->> 'datetime')::timestamptz ELSE changed_at END,
           amounts.sent, amounts.sent, status, conversions.reason, coalesce(cause_params ->> 'conversion_unique_id', ''),
           coalesce(cause_params ->> 'adv_unique1', ''), contact_id, currency
    FROM conversions JOIN conversion_changes AS changes USING (conversion_id)
    CROSS JOIN LATERAL (SELECT CASE WHEN cause_params ->> 'amount' ~ '^[0-9]{{1,12}}([.][0-9]{{1,6}})?$'
                               THEN (cause_params ->> 'amount')::numeric ELSE 0 END AS sent) AS amounts
    WHERE conversions.goal_id = wanted.goal_id AND cause_id IS NOT NULL AND kind = 'adjusted' AND {_COUNTS}
    AND %s
"""
_BY_CLICK = (
    "conversions.conversion_id IN (SELECT conversion_id FROM conversions WHERE click_id = wanted.click_id"
    " UNION ALL SELECT conversion_id FROM conversions WHERE named_click_id = wanted.click_id)"
)
_BY_PARTNER = (
    "conversions.click_id IS NULL AND offer_id = wanted.offer_id AND aff_id = wanted.aff_id"
    " AND converted_at BETWEEN wanted.from_at AND wanted.to_at"
)
_FIND_BY_CLICK = f"""
    SELECT wanted.place, heard.* FROM unnest($1::int[], $2::uuid[], $3::int[]) AS wanted (place, click_id, goal_id)
    CROSS JOIN LATERAL (({_CONVERSION % _BY_CLICK} LIMIT {_CANDIDATES_PER_PLACE})
        UNION ALL ({_INCREASE % _BY_CLICK} LIMIT {_CANDIDATES_PER_PLACE})) AS heard
"""
_FIELDS = ", ".join(Heard._fields)
_SAME_PLACE = " AND ".join(f"near.{name} = wanted.{name}" for name in ("offer_id", "goal_id", "aff_id", "day"))
# Each day's conversions are read once for all rows of it. Whatever of them cannot be the row (`_rank` of
# edge/drain/sifting.py) would take the place of one that is.
_FIND_BY_PARTNER = f"""
    WITH rows AS MATERIALIZED (SELECT *, from_at::date AS day FROM unnest($1::int[], $2::int[], $3::int[], $5::int[],
        $6::timestamptz[], $7::timestamptz[], $8::numeric[], $9::text[], $10::text[], $11::text[])
        AS wanted (place, offer_id, goal_id, {", ".join(Place._fields[3:])})
    ), days AS MATERIALIZED (
        SELECT wanted.offer_id, wanted.goal_id, wanted.aff_id, wanted.day, near.* FROM (
            SELECT offer_id, goal_id, aff_id, day, min(from_at) AS from_at, max(to_at) AS to_at FROM rows GROUP BY 1, 2, 3, 4
        ) AS wanted CROSS JOIN LATERAL ({_CONVERSION % _BY_PARTNER}) AS near ({_FIELDS})
        WHERE NOT EXISTS (SELECT FROM pg_temp.import_taken AS taken WHERE taken.event_id = near.event_id)
    )
    SELECT wanted.place, heard.* FROM rows AS wanted CROSS JOIN LATERAL (
        SELECT {_FIELDS} FROM days AS near WHERE {_SAME_PLACE}
          AND heard_at BETWEEN wanted.from_at AND wanted.to_at
          AND (nullif(wanted.contact_id, '') = nullif(near.contact_id, '')) IS NOT FALSE
          AND (nullif(wanted.unique_id, '') IN (near.unique_id, near.order_id)
               OR nullif(wanted.order_id, '') IN (near.unique_id, near.order_id)
               OR (nullif(wanted.unique_id, '') = nullif(near.unique_id, '')) IS NOT FALSE
                  AND (nullif(wanted.order_id, '') = nullif(near.order_id, '')) IS NOT FALSE
                  AND ((wanted.amount IN (near.amount, near.first_amount)) IS NOT FALSE
                       OR (near.amount, near.first_amount) = (0, 0)))
        ORDER BY abs(extract(epoch FROM (heard_at - wanted.from_at) - (wanted.to_at - heard_at))), event_id
        LIMIT {_CANDIDATES_PER_PLACE}
    ) AS heard
"""


async def open_run(conn: asyncpg.Connection) -> None:
    """Begin to remember what stands for a row already (M2); until the connection ends or another run begins on it."""
    await conn.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS import_taken (event_id uuid PRIMARY KEY, row_hash uuid NOT NULL)"
    )
    await conn.execute("TRUNCATE pg_temp.import_taken")


async def find_heard(conn: asyncpg.Connection, places: Sequence[Place], later_code: int) -> dict[Place, list[Heard]]:
    """What was heard of each place. `later_code`: the status code of what was rejected after it had been accepted."""
    found: dict[Place, list[Heard]] = {place: [] for place in places}
    by_click = [place for place in found if place.click_id]
    by_partner = [place for place in found if not place.click_id]
    if by_click:
        rows = await conn.fetch(
            _FIND_BY_CLICK,
            range(len(by_click)),
            [one.click_id for one in by_click],
            [one.goal_id for one in by_click],
            later_code,
        )
        for number, *heard in rows:
            found[by_click[number]].append(Heard(*heard))
    if by_partner:
        columns = ([getattr(one, name) for one in by_partner] for name in Place._fields[3:])
        rows = await conn.fetch(
            _FIND_BY_PARTNER,
            range(len(by_partner)),
            [one.offer_id for one in by_partner],
            [one.goal_id for one in by_partner],
            later_code,
            *columns,
        )
        for number, *heard in rows:
            found[by_partner[number]].append(Heard(*heard))
    return found


async def find_by_ids(conn: asyncpg.Connection, ids: Iterable[UUID]) -> dict[UUID, Heard]:
    """Conversions by their ids, as they are now."""
    rows = await conn.fetch(
        "SELECT conversion_id, conversion_id, converted_at, amount, amount, status, reason, conversion_unique_id,"
        " coalesce(extras ->> 'adv_unique1', ''), contact_id, currency FROM conversions WHERE conversion_id = ANY($1)",
        list(ids),
    )
    return {row[0]: Heard(*row) for row in rows}


async def find_rows(conn: asyncpg.Connection, hashes: Iterable[UUID]) -> dict[UUID, list[tuple[UUID, UUID]]]:
    """Of rows that were read before: what each turned out to be, event and conversion, in order."""
    rows = await conn.fetch(
        "SELECT row_hash, event_id, coalesce(conversions.conversion_id, changes.conversion_id)"
        " FROM imported_rows LEFT JOIN conversions ON conversion_id = event_id"
        " LEFT JOIN conversion_changes AS changes ON cause_id = event_id"
        " WHERE row_hash = ANY($1) ORDER BY row_hash, event_id",
        list(hashes),
    )
    found: dict[UUID, list[tuple[UUID, UUID]]] = {}
    for row_hash, event_id, conversion_id in rows:
        if conversion_id:
            found.setdefault(row_hash, []).append((event_id, conversion_id))
    return found


async def find_taken(conn: asyncpg.Connection, event_ids: Iterable[UUID]) -> dict[UUID, UUID]:
    """Of these events those that stand for a row of this run already, with that row's hash (M2)."""
    rows = await conn.fetch(
        "SELECT event_id, row_hash FROM pg_temp.import_taken WHERE event_id = ANY($1)", list(event_ids)
    )
    return {row["event_id"]: row["row_hash"] for row in rows}


async def take(conn: asyncpg.Connection, taken: Sequence[tuple[UUID, UUID]]) -> None:
    """From now on these events stand for these rows, in this run: event and row hash."""
    if taken:
        await conn.execute(
            "INSERT INTO pg_temp.import_taken SELECT * FROM unnest($1::uuid[], $2::uuid[]) ON CONFLICT DO NOTHING",
            *map(list, zip(*taken, strict=True)),
        )


async def remember_rows(conn: asyncpg.Connection, taken: Sequence[tuple[UUID, UUID]]) -> None:
    """And in every later run of this or an overlapping file."""
    if taken:
        await conn.execute(
            "INSERT INTO imported_rows (event_id, row_hash) SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS new (e, r)"
            " ORDER BY r, e ON CONFLICT DO NOTHING",
            *map(list, zip(*taken, strict=True)),
        )


async def last_minted(conn: asyncpg.Connection, worker_id: int, from_id: Uuid) -> bytes | None:
    """The highest id of a conversion, or of the cause of a change, from `from_id` on that this worker minted."""
    found: UUID | None = await conn.fetchval(
        "SELECT id FROM (SELECT conversion_id AS id FROM conversions WHERE conversion_id >= $1"
        " UNION ALL SELECT cause_id FROM conversion_changes WHERE cause_id >= $1) AS recent"
        " WHERE get_byte(uuid_send(id), 8) & 63 = $2 ORDER BY id DESC LIMIT 1",
        from_id,
        worker_id,
    )
    return found.bytes if found else None


async def revisions_after(conn: asyncpg.Connection, revision: int) -> list[tuple[datetime, int]]:
    """When each later revision of the catalog came into force, in order."""
    rows = await conn.fetch(
        "SELECT created_at, revision FROM catalog_revisions WHERE revision > $1 ORDER BY revision", revision
    )
    return [(row[0], row[1]) for row in rows]


async def find_terms(conn: asyncpg.Connection, conversion_id: UUID) -> tuple[int, int, int, int, int] | None:
    """What a stored conversion was priced by: revision of the catalog, offer, goal, partner, tier."""
    row = await conn.fetchrow(
        "SELECT catalog_revision, offer_id, goal_id, aff_id, tier FROM conversions WHERE conversion_id = $1",
        conversion_id,
    )
    return tuple(row) if row else None
