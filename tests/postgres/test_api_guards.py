"""What guards the API: keys, limits, repeated requests, and what stands around every answer."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest
from openapi_spec_validator import validate

from edge.admin.api import OPERATIONS
from edge.admin.authentication import MAX_FAILURES, WINDOW_S, Windows
from tests.postgres.api import Client, add_key, bearer, open_api

ROOT = bearer("root")
PARTNER = {"name": "Deals"}


@pytest.fixture
async def client(database: str, data_dir: Path) -> AsyncIterator[Client]:
    """The API on an empty catalog."""
    await add_key(database, "root")
    async with open_api(database, data_dir) as client:
        yield client


async def fetch(database: str, query: str) -> list[tuple[Any, ...]]:
    """Rows of the API's database."""
    conn = await asyncpg.connect(database)
    rows = [tuple(row) for row in await conn.fetch(query)]
    await conn.close()
    return rows


async def post(client: Client, body: Any, key: str, path: str = "/api/v1/partners") -> tuple[int, Any, str]:
    """Status, JSON, and whether it is said to be a repetition."""
    answer = await client.post(path, json=body, headers={**ROOT, "Idempotency-Key": key})
    return answer.status, await answer.json(), answer.headers.get("Idempotent-Replayed", "")


async def test_no_operation_answers_without_a_key(client: Client) -> None:
    """401 and what is needed, for every operation there is; also for a key of another form."""
    for operation in OPERATIONS:
        path = "/api/v1" + re.sub(r"\{\w+\}", "1", operation.path)
        for headers in ({}, {"Authorization": "Basic cm9vdDpyb290"}, {"Authorization": "Bearer "}):
            answer = await client.request(operation.method, path, headers=headers)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="clickedge"'), path


async def test_a_post_sent_again_is_answered_again_and_done_once(client: Client, database: str) -> None:
    """The same status and body; the ETag and the place too."""
    first = await post(client, PARTNER, "k1")
    assert await post(client, PARTNER, "k1") == (*first[:2], "true")
    assert (first[0], first[1]["id"], first[2]) == (201, 1, "")
    assert (await post(client, PARTNER, "k2"))[1]["id"] == 2
    assert await fetch(database, "SELECT count(*) FROM catalog_revisions") == [(2,)]


async def test_a_repeated_key_with_another_request_is_refused(client: Client) -> None:
    """Another body, another path: 422 that names the header."""
    await post(client, PARTNER, "k1")
    for body, path in (({"name": "Other"}, "/api/v1/partners"), (PARTNER, "/api/v1/advertisers")):
        status, problem, _ = await post(client, body, "k1", path)
        assert (status, problem["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_a_refused_request_may_be_sent_again_with_its_key(client: Client, database: str) -> None:
    """Nothing is kept of a request with faults."""
    assert (await post(client, {"name": ""}, "k1"))[0] == 422
    assert await fetch(database, "SELECT count(*) FROM idempotent_answers") == [(0,)]
    assert (await post(client, PARTNER, "k1"))[0] == 201


async def test_the_same_request_sent_at_once_is_done_once(client: Client, database: str) -> None:
    """Each is told what the first was told, or that it is under way."""
    answers = await asyncio.gather(*(post(client, PARTNER, "k1") for _ in range(6)))
    assert {status for status, _, _ in answers} <= {201, 409}
    assert len({answer["id"] for status, answer, _ in answers if status == 201}) == 1
    assert await fetch(database, "SELECT count(*) FROM catalog_revisions") == [(1,)]


async def test_two_keys_do_not_share_their_repeated_requests(client: Client, database: str) -> None:
    """An Idempotency-Key is its API key's own."""
    await add_key(database, "second")
    await post(client, PARTNER, "k1")
    headers = {**bearer("second"), "Idempotency-Key": "k1"}
    answer = await client.post("/api/v1/partners", json=PARTNER, headers=headers)
    assert (await answer.json())["id"] == 2


async def test_an_idempotency_key_that_is_none_is_refused(client: Client) -> None:
    """1 to 255 printable characters without spaces."""
    for key in ("", " ", "a b", "k" * 256, "ü"):
        assert (await post(client, PARTNER, key))[0] == 422


async def test_answers_older_than_a_day_are_forgotten(client: Client, database: str) -> None:
    """Then the same key is a new request."""
    await post(client, PARTNER, "k1")
    await fetch(database, "UPDATE idempotent_answers SET answered_at = now() - interval '26 hours'")
    await post(client, PARTNER, "k2")
    assert await fetch(database, "SELECT idempotency_key FROM idempotent_answers") == [("k2",)]


async def test_a_new_key_s_token_works_and_is_told_once(client: Client, database: str) -> None:
    """It is in the first answer, in no other, and nowhere in the database."""
    order = {"name": "dashboard", "scope": "reports"}
    _, made, _ = await post(client, order, "k1", "/api/v1/keys")
    token = made.pop("token")
    assert re.fullmatch(r"ce_[A-Za-z0-9_-]{43}", token)
    who = await (await client.get("/api/v1/whoami", headers=bearer(token))).json()
    assert (who["scope"], who["name"]) == ("reports", "dashboard")
    _, again, _ = await post(client, order, "k1", "/api/v1/keys")
    assert again == made
    shown = await (await client.get("/api/v1/keys", headers=ROOT)).text()
    kept = await fetch(
        database,
        "SELECT k::text, (SELECT string_agg(a::text || convert_from(body, 'UTF8'), '') FROM idempotent_answers a) FROM api_keys k",
    )
    assert token not in shown + str(kept)


async def test_a_key_that_cannot_be_is_not_made(client: Client, database: str) -> None:
    """The field at fault is named, nothing is stored."""
    orders: list[tuple[dict[str, Any], str]] = [
        ({"scope": "partner"}, "/aff_id"),
        ({"scope": "partner", "aff_id": 99}, "/aff_id"),
        ({"scope": "reports", "advertiser_id": 1}, "/advertiser_id"),
        ({"name": "", "scope": "admin"}, "/name"),
        ({"name": " ", "scope": "admin"}, "/name"),
        ({"scope": "root"}, "/scope"),
        ({"scope": "admin", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"scope": "admin", "expires_at": "soon"}, "/expires_at"),
    ]
    for order, field in orders:
        answer = await client.post("/api/v1/keys", json={"name": "x", **order}, headers=ROOT)
        assert (answer.status, [one["field"] for one in (await answer.json())["errors"]]) == (422, [field])
    assert await fetch(database, "SELECT count(*) FROM api_keys") == [(1,)]


async def test_a_revoked_key_is_out_at_once_and_an_expired_one_too(client: Client, database: str) -> None:
    """401; and a key cannot end itself, so that nobody locks himself out by mistake."""
    await add_key(database, "second")
    second = bearer("second")
    assert (await client.get("/api/v1/whoami", headers=second)).status == 200
    assert (await client.delete("/api/v1/keys/2", headers=second)).status == 409
    assert (await client.delete("/api/v1/keys/2", headers=ROOT)).status == 204
    assert (await client.get("/api/v1/whoami", headers=second)).status == 401
    await fetch(
        database, "UPDATE api_keys SET revoked_at = NULL, expires_at = now() - interval '1 second' WHERE key_id = 2"
    )
    assert (await client.get("/api/v1/whoami", headers=second)).status == 401
    assert (await client.delete("/api/v1/keys/99", headers=ROOT)).status == 404


async def test_a_key_is_renamed_and_its_end_set(client: Client) -> None:
    """What is not sent stays; null takes the end away."""
    answer = await client.patch(
        "/api/v1/keys/1", json={"name": "New", "expires_at": "2030-01-01T00:00:00Z"}, headers=ROOT
    )
    assert (answer.status, (await answer.json())["expires_at"]) == (200, "2030-01-01T00:00:00Z")
    answer = await client.patch("/api/v1/keys/1", json={"expires_at": None}, headers=ROOT)
    key = await answer.json()
    assert (key["name"], key["expires_at"]) == ("New", None)


async def test_the_last_use_of_a_key_is_noted(client: Client, database: str) -> None:
    """Once a minute at most: not each request writes."""
    for _ in range(3):
        await client.get("/api/v1/whoami", headers=ROOT)
    [(first,)] = await fetch(database, "SELECT last_used_at FROM api_keys")
    assert first is not None


async def test_a_key_has_so_many_requests_a_minute(database: str, data_dir: Path) -> None:
    """Every answer says what is left; the one too many is 429 and says when to come again."""
    await add_key(database, "root")
    await add_key(database, "second")
    async with open_api(database, data_dir, api_rate_limit=3) as client:
        left = [(await client.get("/api/v1/whoami", headers=ROOT)).headers["RateLimit"] for _ in range(3)]
        refused = await client.get("/api/v1/whoami", headers=ROOT)
        other = await client.get("/api/v1/whoami", headers=bearer("second"))
    # A minute may begin in between.
    assert [one.split(";")[1] for one in left] == ["r=2", "r=1", "r=0"] or refused.status == 200
    if refused.status == 429:
        assert 1 <= int(refused.headers["Retry-After"]) <= WINDOW_S
        assert refused.headers["RateLimit-Policy"] == f'"key";q=3;w={WINDOW_S}'
    assert other.status == 200


def test_a_limit_begins_anew_with_the_minute() -> None:
    """And is counted apart for each client; no limit lets all through."""
    now_s = 1000.0
    windows = Windows(2, lambda: now_s)
    assert [windows.take("a").is_over for _ in range(3)] == [False, False, True]
    assert not windows.take("b").is_over
    assert windows.take("a", cost=0).is_over
    now_s += WINDOW_S
    assert not windows.take("a").is_over
    assert not any(Windows(0).take("a").is_over for _ in range(100))


async def test_who_guesses_keys_is_slowed_down_and_who_has_one_is_not(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond so many unknown keys of an address: 429 with Retry-After; a key in use still gets in."""
    monkeypatch.setattr("edge.admin.authentication.WINDOW_S", 10**9)  # no new minute begins meanwhile
    assert (await client.get("/api/v1/whoami", headers=ROOT)).status == 200
    statuses = [
        (await client.get("/api/v1/whoami", headers=bearer(f"guess-{n}"))).status for n in range(2 * MAX_FAILURES + 2)
    ]
    assert set(statuses) == {401, 429}
    answer = await client.get("/api/v1/whoami", headers=bearer("guess"))
    assert (answer.status, int(answer.headers["Retry-After"]) > 0) == (429, True)
    assert (await client.get("/api/v1/whoami", headers=ROOT)).status == 200


async def test_guesses_that_come_all_at_once_are_counted_too(client: Client) -> None:
    """No more of them are looked up than of those that come one after the other."""
    guesses = [client.get("/api/v1/whoami", headers=bearer(f"guess-{n}")) for n in range(3 * MAX_FAILURES)]
    statuses = [answer.status for answer in await asyncio.gather(*guesses)]
    assert statuses.count(401) <= 2 * MAX_FAILURES  # a minute of the clock may end in between
    assert statuses.count(429) >= MAX_FAILURES


async def test_every_answer_carries_its_request_s_id_and_is_kept_by_nobody(client: Client) -> None:
    """The client's own id where it has a decent form; problems have it in their body; nothing allows other origins."""
    for path, headers in (("/api/v1/whoami", ROOT), ("/api/v1/nothing", ROOT), ("/api/v1/whoami", {})):
        asked = {**headers, "X-Request-Id": "order-66", "Origin": "https://evil.example"}
        answer = await client.get(path, headers=asked)
        assert (answer.headers["X-Request-Id"], answer.headers["Cache-Control"]) == ("order-66", "no-store")
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert answer.status == 200 or (await answer.json())["request_id"] == "order-66"
    made = (await client.get("/api/v1/whoami", headers={**ROOT, "X-Request-Id": "<script>"})).headers["X-Request-Id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)


async def test_head_options_and_other_methods_are_answered_as_http_says(client: Client) -> None:
    """HEAD: GET's headers, no body. OPTIONS and 405: what is allowed."""
    head = await client.head("/api/v1/whoami", headers=ROOT)
    assert (head.status, await head.read(), int(head.headers["Content-Length"]) > 0) == (200, b"", True)
    options = await client.options("/api/v1/partners")
    assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    refused = await client.put("/api/v1/partners", headers=ROOT)
    assert (refused.status, refused.content_type) == (405, "application/problem+json")
    assert set(refused.headers["Allow"].split(",")) == {"GET", "HEAD", "OPTIONS", "POST"}


BAD_BODIES = [
    (b'{"a":' * 100_000, "application/json", 400),
    (b"[" * 100_000, "application/json", 422),
    (b'{"name": "\xff"}', "application/json", 400),
    (b'{"name": "a\\u0000b"}', "application/json", 422),
    (b'{"name": "\\ud800"}', "application/json", 400),
    (b'{"name": NaN}', "application/json", 400),
    (b"[]", "application/json", 422),
    (b'"x"', "application/json", 422),
    (b"", "application/json", 400),
    (b'{"name": "x"}', "application/x-www-form-urlencoded", 415),
    (b'{"name": "x"}', "application/merge-patch+json", 415),
    (b'{"name": "' + b"x" * 300 + b'"}', "application/json", 422),
    (b'{"name": "x", "id": 1e400}', "application/json", 422),
    (b'{"name": "x", "id": 1.0}', "application/json", 422),
]


async def test_a_body_that_makes_no_sense_is_a_problem(client: Client, database: str) -> None:
    """Too deep, no UTF-8, NUL, half a surrogate, no object: its own status, and nothing stored."""
    for body, content_type, status in BAD_BODIES:
        answer = await client.post("/api/v1/partners", data=body, headers={**ROOT, "Content-Type": content_type})
        assert (answer.status, answer.content_type) == (status, "application/problem+json"), body[:40]
    assert await fetch(database, "SELECT count(*) FROM catalog_revisions") == [(0,)]


async def test_a_query_that_makes_no_sense_names_its_parameter(client: Client) -> None:
    """422 and the parameter."""
    for query in ("q=a%00b", "limit=99999999999999999999", "limit=1&limit=2", "limit=", "offer=1"):
        answer = await client.get(f"/api/v1/partners?{query}", headers=ROOT)
        assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, query.partition("=")[0])


async def test_a_patch_may_say_that_it_is_one(client: Client) -> None:
    """application/merge-patch+json, as RFC 7396 names it."""
    await post(client, PARTNER, "k1")
    headers = {**ROOT, "Content-Type": "application/merge-patch+json", "If-Match": "*"}
    answer = await client.patch("/api/v1/partners/1", data=b'{"status":"blocked"}', headers=headers)
    assert (answer.status, (await answer.json())["status"]) == (200, "blocked")


async def test_the_pages_for_people_and_machines_are_whole(client: Client) -> None:
    """The OpenAPI page is valid and has every operation; the docs have each too, and fetch nothing from elsewhere."""
    page = await (await client.get("/api/openapi.json")).json()
    validate(page)
    answer = await client.get("/api/docs")
    docs = await answer.text()
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for operation in OPERATIONS:
        assert page["paths"]["/api/v1" + operation.path][operation.method.lower()]["operationId"] == operation.name
        assert f'id="{operation.name}"' in docs
    assert not re.search(r"<script|(src|href)=\"(?!#|/api/openapi\.json)", docs)


async def test_costs_are_stored_replaced_found_and_deleted(client: Client, database: str) -> None:
    """All rows of a request or none; a row of the same key replaces the former."""
    rows = [
        {"day": f"2026-11-0{day}", "currency": "USD", "amount": 1.5, "sends": 10, "list": "news"} for day in (1, 2, 3)
    ]
    assert await (await client.put("/api/v1/costs", json={"data": rows}, headers=ROOT)).json() == {"stored": 3}
    await client.put("/api/v1/costs", json={"data": [{**rows[0], "amount": "2.25"}]}, headers=ROOT)
    page = await (await client.get("/api/v1/costs?from=2026-11-01&to=2026-11-02&limit=1", headers=ROOT)).json()
    assert [(row["day"], row["amount"], row["feed"]) for row in page["data"]] == [("2026-11-01", 2.25, "api")]
    rest = await (await client.get(f"/api/v1/costs?to=2026-11-02&cursor={page['next_cursor']}", headers=ROOT)).json()
    assert ([row["day"] for row in rest["data"]], rest["next_cursor"]) == (["2026-11-02"], None)
    faulty = [rows[0], {**rows[1], "offer_id": 99}, {**rows[2], "amount": -1}, rows[0]]
    answer = await client.put("/api/v1/costs", json={"data": faulty}, headers=ROOT)
    assert {one["field"] for one in (await answer.json())["errors"]} == {
        "/data/1/offer_id",
        "/data/2/amount",
        "/data/3",
    }
    which = "/api/v1/costs?day=2026-11-01&currency=USD&list=news"
    assert [(await client.delete(which, headers=ROOT)).status for _ in range(2)] == [204, 404]
    assert await fetch(database, "SELECT count(*) FROM costs") == [(2,)]


async def test_imported_sends_without_a_currency_are_deleted_by_their_key(client: Client, database: str) -> None:
    """The key is as the list shows it."""
    await fetch(database, "INSERT INTO costs (day, list, currency, feed, sends) VALUES ('2026-11-01', 'news', '', 'sends.csv', 10)")
    [row] = (await (await client.get("/api/v1/costs", headers=ROOT)).json())["data"]
    key = {name: str(row[name]) for name in row if name not in ("amount", "sends")}
    assert (await client.delete(f"/api/v1/costs?{urlencode(key)}", headers=ROOT)).status == 204
    assert await fetch(database, "SELECT count(*) FROM costs") == [(0,)]
