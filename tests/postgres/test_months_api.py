"""Months over the API: closed, listed, opened again, and what cannot be."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.postgres.connection import connect
from tests.postgres.api import Client, add_key, bearer, open_api

NOW = datetime.now(UTC)
LAST = (NOW.replace(day=1) - timedelta(days=1)).replace(day=1)
MONTH = f"{LAST:%Y-%m}"


@pytest.fixture
async def client(database: str, data_dir: Path) -> AsyncIterator[Client]:
    """The API of an empty database."""
    await add_key(database, "root")
    await add_key(database, "reader", "reports")
    await add_key(database, "partner", "partner", aff_id=2)
    async with open_api(database, data_dir) as opened:
        yield opened


async def send(client: Client, path: str, token: str = "root") -> tuple[int, str]:
    """Status of a POST, and the answer's text."""
    answer = await client.post(f"/api/v1/months/{path}", headers=bearer(token))
    return answer.status, await answer.text()


async def test_a_month_is_closed_once_listed_and_opened_again(client: Client) -> None:
    """With who did it and when; a second time is a conflict, in both directions."""
    status, text = await send(client, f"{MONTH}/close")
    assert status == 200, text
    assert (await send(client, f"{MONTH}/close"))[0] == 409
    listed = await (await client.get("/api/v1/months", headers=bearer("reader"))).json()
    [found] = listed["data"]
    assert (found["month"], found["closed_by"], listed["next_cursor"]) == (MONTH, "key of admin (key 1)", None)
    assert datetime.fromisoformat(found["ends_at"]) == datetime(NOW.year, NOW.month, 1, tzinfo=UTC)
    assert (await send(client, f"{MONTH}/reopen"))[0] == 200
    assert (await send(client, f"{MONTH}/reopen"))[0] == 409
    assert (await (await client.get("/api/v1/months", headers=bearer("root"))).json())["data"] == []


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        pytest.param(f"{NOW + timedelta(days=31):%Y-%m}/close", "root", 409, id="not over"),
        ("2026-13/close", "root", 422),
        ("soon/reopen", "root", 422),
        pytest.param(f"{MONTH}/close", "reader", 403, id="a reader"),
        pytest.param(f"{MONTH}/reopen", "partner", 403, id="a partner"),
        pytest.param(f"{MONTH}/close?force=maybe", "root", 422, id="maybe"),
    ],
)
async def test_what_cannot_be_closed_stays_open(client: Client, path: str, token: str, status: int) -> None:
    """A month that is not over, none, not with this key, a word that is neither true nor false."""
    assert (await send(client, path, token))[0] == status
    assert (await (await client.get("/api/v1/months", headers=bearer("root"))).json())["data"] == []


async def test_a_month_that_may_still_get_events_is_closed_only_by_force(client: Client, database: str) -> None:
    """Nothing of the command's options is in the answer; with force it is closed."""
    conn = await connect(database)
    await conn.execute(
        "INSERT INTO journal_positions (journal_id, node_id, worker_id, segment, byte_offset, watermark_ms)"
        " VALUES (gen_random_uuid(), 0, 0, 1, 0, $1)",
        round(LAST.timestamp() * 1000),
    )
    await conn.close()
    status, text = await send(client, f"{MONTH}/close")
    assert (status, "force=true" in text, "--force" in text) == (409, True, False)
    assert (await send(client, f"{MONTH}/close?force=true"))[0] == 200
