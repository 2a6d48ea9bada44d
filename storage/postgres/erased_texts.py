"""What is kept as it came or was answered, and so may name an erased person anywhere: emptied where it does."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

Naming = Callable[[bytes], bool]
"""Whether these bytes name somebody who is erased."""


async def empty_quarantine(conn: asyncpg.Connection, names: Naming, until: datetime) -> int:
    """Records that could not be stored and name somebody keep their place, and nothing else; how many."""
    rows = await conn.fetch(
        "SELECT journal_id, segment, byte_offset, raw, error FROM quarantine WHERE quarantined_at <= $1", until
    )
    doomed = [tuple(row)[:3] for row in rows if names(row["raw"]) or names(row["error"].encode())]
    await conn.executemany(
        "UPDATE quarantine SET raw = '', error = 'erased' WHERE journal_id = $1 AND segment = $2 AND byte_offset = $3",
        doomed,
    )
    return len(doomed)


async def empty_imports(conn: asyncpg.Connection, names: Naming) -> int:
    """What imports show of their rows goes where it names somebody; of how many imports.

    Whatever their state says: one that was killed runs for ever by it.
    """
    rows = await conn.fetch("SELECT import_id, examples, plan -> 'rows' AS shown, error FROM imports")
    doomed = [row["import_id"] for row in rows if any(names(text) for text in _texts(tuple(row)[1:]))]
    await conn.execute(
        "UPDATE imports SET examples = '[]', error = '', plan = plan - 'rows' WHERE import_id = ANY($1)", doomed
    )
    return len(doomed)


async def empty_answers(conn: asyncpg.Connection, names: Naming) -> int:
    """Answers kept for repeated requests become empty where they name somebody; how many."""
    rows = await conn.fetch("SELECT key_id, idempotency_key, body, headers FROM idempotent_answers")
    doomed = [
        (row["key_id"], row["idempotency_key"])
        for row in rows
        if names(row["body"]) or any(names(text) for text in _texts(row["headers"]))
    ]
    await conn.executemany(
        "UPDATE idempotent_answers SET body = '{}', headers = '{}' WHERE key_id = $1 AND idempotency_key = $2", doomed
    )
    return len(doomed)


async def delete_saved_reports(conn: asyncpg.Connection, names: Callable[[str], bool]) -> int:
    """Reports that ask for somebody, by their query or name; how many."""
    rows = await conn.fetch("SELECT report_id, query, name FROM saved_reports")
    doomed = [row["report_id"] for row in rows if names(row["query"]) or names(row["name"])]
    await conn.execute("DELETE FROM saved_reports WHERE report_id = ANY($1)", doomed)
    return len(doomed)


def _texts(value: Any) -> Iterable[bytes]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogatepass")
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield name.encode("utf-8", "surrogatepass")
            yield from _texts(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)
