"""What every operation of the API has in common: keys, scopes, decoding, problems."""

import io
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

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


async def _fail(call: Call) -> None:
    raise RuntimeError("a secret of ours")


_OPERATIONS = (
    Operation("GET", "/echo", "echo", "Echo", _echo, query_type=_Query),
    Operation("POST", "/echo", "take", "Take", _take, ADMIN, body_type=_Body, answer_type=_Body),
    Operation("GET", "/fail", "fail", "Fail", _fail),
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
