"""The API on a database of its own: the admin process's application, without the process."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from edge.admin.api import OPERATIONS
from edge.admin.api.operation import Operation
from edge.admin.api.server import make_api
from edge.admin.backend import Backend
from edge.settings import Settings

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def open_api(
    database: str, data_dir: Path, operations: Sequence[Operation] = OPERATIONS, **settings: Any
) -> AsyncIterator[Client]:
    """A client of the API on this database; say `headers=bearer(token)` with each request."""
    backend = Backend(Settings(data_dir=str(data_dir), **settings), lambda: database)
    app = web.Application()
    app.add_subapp("/api/", make_api(backend, operations))
    try:
        async with TestClient(TestServer(app)) as client:
            yield client
    finally:
        await backend.close()


async def add_key(database: str, token: str, scope: str = "admin", advertiser_id: int = 0, aff_id: int = 0) -> None:
    """A key of this text."""
    conn = await asyncpg.connect(database)
    await conn.execute(
        "INSERT INTO api_keys (name, key_hash, scope, advertiser_id, aff_id) VALUES ($1, $2, $3, $4, $5)",
        f"key of {scope}",
        hashlib.sha256(token.encode()).digest(),
        scope,
        advertiser_id,
        aff_id,
    )
    await conn.close()


def bearer(token: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {token}"}
