"""What every operation of the API has in common: keys, scopes, decoding, problems."""

import asyncio
import io
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import aiohttp
import asyncpg
import msgspec
import pytest
from aiohttp import web

from edge.admin.api.operation import ADMIN, Call, Operation
from tests.postgres.api import Client, add_key, bearer, open_api


class _Query(msgspec.Struct):
    limit: int = 5
    offer: list[int] = []


class _Goal(msgspec.Struct):
    id: int


class _Body(msgspec.Struct):
    goals: list[_Goal]


async def _echo(call: Call) -> dict[str, object]:
    return {"limit": call.query.limit, "offer": call.query.offer, "share": Decimal("0.96")}


async def _take(call: Call) -> _Body:
    return call.body  # type: ignore[no-any-return]


async def _break_off(call: Call) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(call.request)
    await response.write(b"half")
    raise RuntimeError("a secret of ours")


async def _store_and_fail(call: Call) -> None:
    """An effect, and then an end that nobody foresaw."""
    async with call.backend.connection() as conn, conn.transaction():
        await conn.execute("UPDATE api_keys SET name = name || '!'")
    if call.body.goals:
        raise RuntimeError("cut")


async def _leave_behind(call: Call) -> dict[str, bool]:
    """Whether a task that the request starts gets a connection of its own."""
    async with call.backend.connection() as conn:
        here = await conn.fetchval("SELECT pg_backend_pid()")
        again = await _backend_pid(call)
        other = await asyncio.create_task(_backend_pid(call))
    return {"same": here == again, "apart": here != other}


async def _backend_pid(call: Call) -> int:
    async with call.backend.connection() as conn:
        return int(await conn.fetchval("SELECT pg_backend_pid()"))


async def _fail(call: Call) -> None:
    raise RuntimeError("a secret of ours")


_OPERATIONS = (
    Operation("GET", "/echo", "echo", "Echo", _echo, query_type=_Query),
    Operation("POST", "/echo", "take", "Take", _take, ADMIN, body_type=_Body, answer_type=_Body),
    Operation("GET", "/fail", "fail", "Fail", _fail),
    Operation("GET", "/half", "half", "Half", _break_off, media=("text/csv",)),
    Operation("POST", "/stored", "stored", "Stored", _store_and_fail, body_type=_Body),
    Operation("POST", "/tasks", "tasks", "Tasks", _leave_behind, body_type=_Body),
)


@pytest.fixture
async def client(database: str, data_dir: Path) -> AsyncIterator[Client]:
    """The API with operations of this test, and a key of each of two scopes."""
    await add_key(database, "root")
    await add_key(database, "partner", "partner", aff_id=2)
    async with open_api(database, data_dir, _OPERATIONS) as client:
        yield client


async def test_a_query_is_decoded_and_money_answered_as_an_exact_number(client: Client) -> None:
    """Repeated parameters are a list; decimals are JSON numbers."""
    answer = await client.get("/api/v1/echo?offer=17&offer=18", headers=bearer("root"))
    assert (answer.status, await answer.text()) == (200, '{"limit":5,"offer":[17,18],"share":0.96}')


async def test_all_faults_of_a_query_are_named_with_their_fields(client: Client) -> None:
    """One answer says everything that is wrong."""
    answer = await client.get("/api/v1/echo?limit=x&colour=red&offer=z", headers=bearer("root"))
    problem = await answer.json()
    assert (answer.status, answer.content_type) == (422, "application/problem+json")
    assert {error["field"] for error in problem["errors"]} == {"limit", "colour", "offer"}


async def test_a_body_s_fault_is_named_by_its_pointer(client: Client) -> None:
    """The member at fault is found without guessing."""
    answer = await client.post("/api/v1/echo", json={"goals": [{"id": 1}, {"id": "x"}]}, headers=bearer("root"))
    assert (await answer.json())["errors"] == [{"field": "/goals/1/id", "detail": "Expected `int`, got `str`"}]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/echo", {}, None, 401),
        ("GET", "/echo", bearer("nobody's"), None, 401),
        ("GET", "/echo", bearer("partner"), None, 403),
        ("GET", "/nothing", bearer("root"), None, 404),
        ("DELETE", "/echo", bearer("root"), None, 405),
        ("POST", "/echo", bearer("root"), b"{", 400),
        ("POST", "/echo", {**bearer("root"), "Content-Type": "text/csv"}, b"a,b", 415),
        ("POST", "/echo", bearer("root"), io.BytesIO(b" " * (2 << 20)), 413),
        ("GET", "/fail", bearer("root"), None, 500),
    ],
)
async def test_every_refusal_is_a_problem(
    client: Client, method: str, path: str, headers: dict[str, str], body: bytes | io.BytesIO | None, status: int
) -> None:
    """Whatever is wrong, the answer has the right status, one form, and nothing of ours in it."""
    sent = {"Content-Type": "application/json", **headers} if body else headers
    answer = await client.request(method, f"/api/v1{path}", headers=sent, data=body)
    assert (answer.status, answer.content_type) == (status, "application/problem+json")
    assert "secret" not in await answer.text()


async def test_the_openapi_page_lists_the_operations(client: Client) -> None:
    """It is made from the same table."""
    page = await (await client.get("/api/openapi.json")).json()
    assert page["openapi"] == "3.1.0"
    assert page["paths"]["/api/v1/echo"].keys() == {"get", "post"}


async def test_a_stream_that_fails_half_way_is_broken_off(client: Client) -> None:
    """Its reader sees that it is not whole; no problem is appended to it."""
    answer = await client.get("/api/v1/half", headers=bearer("root"))
    with pytest.raises(aiohttp.ClientError):
        await answer.read()


async def test_what_a_repeatable_request_did_is_undone_when_it_fails(client: Client, database: str) -> None:
    """Effect and kept answer are one transaction: the same request may then be sent again, and is done once."""
    headers = {**bearer("root"), "Idempotency-Key": "k1"}
    failed = await client.post("/api/v1/stored", json={"goals": [{"id": 1}]}, headers=headers)
    done = [await client.post("/api/v1/stored", json={"goals": []}, headers=headers) for _ in range(2)]
    assert [failed.status, *(answer.status for answer in done)] == [500, 200, 200]
    conn = await asyncpg.connect(database)
    assert await conn.fetchval("SELECT name FROM api_keys WHERE key_id = 1") == "key of admin!"
    await conn.close()


async def test_a_task_that_a_request_starts_is_not_in_its_transaction(client: Client) -> None:
    """The request's own steps are; a task that outlives it has a connection of its own."""
    headers = {**bearer("root"), "Idempotency-Key": "k1"}
    answer = await client.post("/api/v1/tasks", json={"goals": []}, headers=headers)
    assert await answer.json() == {"same": True, "apart": True}
