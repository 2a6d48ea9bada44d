"""The first answers to requests that may be repeated.

I1  An answer is stored in the transaction of its effect: both are there or neither.
I2  While that transaction runs it holds the request's lock: a repetition meanwhile does nothing.
"""

from typing import Any

import asyncpg
import msgspec

KEPT_FOR = "interval '25 hours'"


class KeptAnswer(msgspec.Struct, frozen=True):
    """What was answered, and to which request."""

    request_hash: bytes
    status: int
    headers: dict[str, str]
    body: bytes


async def lock_request(conn: asyncpg.Connection, key_id: int, idempotency_key: str) -> bool:
    """Take the request's lock until this transaction ends; False: the same request is under way (I2)."""
    is_ours: bool = await conn.fetchval(
        "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 1768252009))", f"{key_id}:{idempotency_key}"
    )
    return is_ours


async def load_answer(conn: asyncpg.Connection, key_id: int, idempotency_key: str) -> KeptAnswer | None:
    """The first answer to that request; None: there was none, or a day ago."""
    row = await conn.fetchrow(
        "SELECT request_hash, status, headers, body FROM idempotent_answers WHERE key_id = $1 AND idempotency_key = $2",
        key_id,
        idempotency_key,
    )
    return KeptAnswer(**dict(row)) if row else None


async def keep_answer(conn: asyncpg.Connection, key_id: int, idempotency_key: str, answer: KeptAnswer) -> None:
    """Store the answer (I1), and forget some that are older than a day."""
    await conn.execute(
        "INSERT INTO idempotent_answers (key_id, idempotency_key, request_hash, status, headers, body)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        key_id,
        idempotency_key,
        *_values(answer),
    )
    await conn.execute(
        "DELETE FROM idempotent_answers WHERE ctid = ANY(ARRAY("
        f"SELECT ctid FROM idempotent_answers WHERE answered_at < now() - {KEPT_FOR}"
        " ORDER BY answered_at LIMIT 100 FOR UPDATE SKIP LOCKED))"
    )


def _values(answer: KeptAnswer) -> tuple[Any, ...]:
    return answer.request_hash, answer.status, answer.headers, answer.body
