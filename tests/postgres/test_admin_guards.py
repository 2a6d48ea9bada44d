"""The admin port against those who mean ill: stolen sessions, guesses, greedy readers, slow uploads, strange headers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from edge.admin import backend as backends
from edge.admin import live
from edge.admin.api import OPERATIONS
from edge.admin.api import live as streaming
from edge.admin.api.operation import ADMIN as ADMIN_ALONE
from edge.admin.api.server import make_api
from edge.admin.authentication import MAX_FAILURES
from edge.admin.backend import MAX_CONNECTIONS, MAX_SLOW, Backend
from edge.admin.console import PAGES, Console
from edge.admin.console.app import ENDED_FILE
from edge.admin.console.page import Page, Route, Visit
from edge.admin.console.protection import FAILURES_ALLOWED
from edge.settings import Settings
from storage.postgres.connection import connect
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.node import eventually
from tests.postgres.api import Client, bearer
from tests.postgres.consoles import KEYS, Filled, cookie_of, fill, log_in, open_console, read, send, token_of

ADMIN, PARTNER = (KEYS[scope][0] for scope in ("admin", "partner"))


@pytest.fixture(scope="module")
def filled(embedded_server: Server) -> Iterator[Filled]:
    """One database for all tests of this file: none of them changes what another reads."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        yield fill(url)


@asynccontextmanager
async def open_admin(url: str, data_dir: Path, **settings: object) -> AsyncIterator[tuple[Client, Backend]]:
    """API and console together, as the admin process has them, and the backend behind."""
    data_dir.mkdir(parents=True, exist_ok=True)
    backend = Backend(Settings(data_dir=str(data_dir), **settings), lambda: url)  # type: ignore[arg-type]
    app = web.Application()
    app.add_subapp("/api/", make_api(backend, OPERATIONS))
    app.add_routes(Console(backend, PAGES).routes())
    try:
        async with TestClient(TestServer(app)) as client:
            yield client, backend
    finally:
        await backend.close()


async def test_who_logs_out_leaves_nothing_that_opens_the_console(filled: Filled, data_dir: Path) -> None:
    """A copy of the cookie is refused at once and after a restart; another session of the same key goes on."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        kept = cookie_of(client)
        await log_in(client, "admin")
        copied = cookie_of(client)
        assert copied != kept
        assert await send(client, "/logout", {}, 303) == "/login"
        client.session.cookie_jar.clear()
        for cookie, status in ((copied, 303), (kept, 200)):
            answer = await client.get("/offers", headers={"Cookie": f"clickedge_session={cookie}"}, allow_redirects=False)
            assert answer.status == status
    assert copied not in (data_dir / ENDED_FILE).read_text()
    assert (data_dir / ENDED_FILE).stat().st_mode & 0o777 == 0o600
    async with open_console(filled.url, data_dir) as client:
        for cookie, status in ((copied, 303), (kept, 200)):
            answer = await client.get("/offers", headers={"Cookie": f"clickedge_session={cookie}"}, allow_redirects=False)
            assert answer.status == status


async def test_a_cookie_brought_along_does_not_become_the_session(filled: Filled, data_dir: Path) -> None:
    """Fixation: each log-in gets a cookie of its own, whatever came with the request; a changed digit opens nothing."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "partner")
        planted = cookie_of(client)
        answer = await client.post(
            "/login", data={"key": ADMIN}, headers={"Cookie": f"clickedge_session={planted}"}, allow_redirects=False
        )
        assert planted not in answer.headers["Set-Cookie"]
        client.session.cookie_jar.clear()
        for forged in ("1" + planted[1:], planted[:-1] + ("0" if planted[-1] != "0" else "1"), planted + "0", "1.9.é.0"):
            sent = {"Cookie": f"clickedge_session={forged}".encode().decode("latin-1")}
            assert (await client.get("/offers", headers=sent, allow_redirects=False)).status in (303, 400)


async def test_one_mans_guesses_behind_a_proxy_do_not_lock_the_others_out(filled: Filled, data_dir: Path) -> None:
    """Failed log-ins count by the address that a trusted proxy names, by no name that a client makes up."""
    async with open_console(filled.url, data_dir, trusted_proxies=("127.0.0.0/8",)) as client:
        for number in range(FAILURES_ALLOWED + 1):
            forged = {"X-Forwarded-For": f"192.0.2.{number}, 198.51.100.1"}
            answer = await client.post("/login", data={"key": "ce_guess"}, headers=forged)
            assert answer.status == (401 if number < FAILURES_ALLOWED else 429)
        other = {"X-Forwarded-For": "198.51.100.2"}
        assert (await client.post("/login", data={"key": ADMIN}, headers=other, allow_redirects=False)).status == 303


async def test_a_forged_line_above_the_proxys_own_makes_no_new_address(
    filled: Filled, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some proxies add a second X-Forwarded-For: guesses at API keys are counted by the last one."""
    monkeypatch.setattr("edge.admin.authentication.WINDOW_S", 10**9)  # no new minute begins meanwhile
    async with open_admin(filled.url, data_dir, trusted_proxies=("127.0.0.0/8",)) as (client, _):
        for number in range(MAX_FAILURES + 1):
            headers = [
                ("Authorization", f"Bearer guess-{number}"),
                ("X-Forwarded-For", f"192.0.2.{number}"),
                ("X-Forwarded-For", "198.51.100.9"),
            ]
            answer = await client.get("/api/v1/whoami", headers=headers)
            assert answer.status == (401 if number < MAX_FAILURES else 429)


async def test_a_key_in_the_address_opens_nothing(filled: Filled, data_dir: Path) -> None:
    """It would be in histories and logs of proxies."""
    async with open_admin(filled.url, data_dir) as (client, _):
        for name in ("key", "token", "api_key", "access_token", "Authorization"):
            assert (await client.get(f"/api/v1/whoami?{name}={ADMIN}")).status == 401
            assert (await client.get(f"/offers?{name}={ADMIN}", allow_redirects=False)).status == 303
        assert (await client.get("/api/v1/whoami", headers={"Cookie": f"clickedge_session={ADMIN}"})).status == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_no_method_changes_anything_without_the_forms_token(filled: Filled, data_dir: Path, method: str) -> None:
    """Also htmx's requests and forms with files; the session of somebody who is lured is not enough."""
    done = []

    async def change(visit: Visit) -> web.Response:
        done.append(visit.request.method)
        return web.Response(text="done")

    page = Page("/offers", "Offers", "Catalog", "offers", "f", ADMIN_ALONE, (Route(method, "/thing", change),))
    async with open_console(filled.url, data_dir, pages=[*PAGES, page]) as client:
        await log_in(client, "admin")
        token = await token_of(client)
        for headers in ({}, {"HX-Request": "true"}, {"X-CSRF-Token": "0" * 64}):
            assert (await client.request(method, "/thing", data={"a": "b"}, headers=headers)).status == 403
        assert not done
        assert (await client.request(method, "/thing", headers={"X-CSRF-Token": token})).status == 200
        assert done == [method]


@pytest.mark.parametrize("host", ["[", "[::1", "evil.example", "a b", "x" * 300])
async def test_a_strange_host_is_no_fault(filled: Filled, data_dir: Path, host: str) -> None:
    """The link builder shows links of the host that it was asked at; nothing else believes it."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "partner")
        assert (await client.get("/links?offer_id=17", headers={"Host": host})).status in (200, 400)
        client.session.cookie_jar.clear()
        answer = await client.get("/offers?x=1", headers={"Host": host}, allow_redirects=False)
        assert answer.status == 400 or answer.headers["Location"].startswith("/login")


async def test_an_address_puts_no_words_into_our_mouth(filled: Filled, data_dir: Path) -> None:
    """A link to the console with a message of its own would look like ours."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        for path in ("/postbacks?queued=Call+0900+now:+3", "/offers/17?stored=Call+0900+now"):
            assert "0900" not in await read(client, path)


async def test_a_stream_ends_with_its_key(filled: Filled, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within seconds of the revocation, though nothing happens."""
    monkeypatch.setattr(streaming, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(streaming, "BELIEVED_S", 0.05)
    conn = await connect(filled.url)
    await conn.execute("INSERT INTO api_keys (name, key_hash, scope) VALUES ('brief', sha256('ce_brief'), 'reports')")
    key_id = await conn.fetchval("SELECT key_id FROM api_keys WHERE name = 'brief'")
    await conn.close()
    async with open_admin(filled.url, data_dir) as (client, _):
        stream = await client.get("/api/v1/events", headers=bearer("ce_brief"))
        assert await stream.content.readline() == b": listening\n"
        assert (await client.delete(f"/api/v1/keys/{key_id}", headers=bearer(ADMIN))).status == 204
        async with asyncio.timeout(20):
            assert (await stream.read()).strip().replace(b": still here", b"").strip() == b""


async def test_one_key_does_not_take_all_places_of_listeners(
    filled: Filled, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next stream of the same key is put off, another's is opened."""
    monkeypatch.setattr(live, "MAX_OF_A_KEY", 2)
    async with open_admin(filled.url, data_dir) as (client, _):
        streams = [await client.get("/api/v1/events", headers=bearer(PARTNER)) for _ in range(3)]
        assert [one.status for one in streams] == [200, 200, 429]
        other = await client.get("/api/v1/events", headers=bearer(ADMIN))
        assert other.status == 200
        for one in (*streams, other):
            one.close()


@pytest.mark.parametrize("since", ["0-999999999999999", "999999999999999999-1", "-1--1", "9" * 5000, "0-99999999999999", "é-1"])
async def test_no_event_id_is_a_fault(filled: Filled, data_dir: Path, since: str) -> None:
    """Whatever a client says it has heard last."""
    async with open_admin(filled.url, data_dir) as (client, _):
        sent = {**bearer(PARTNER), "Last-Event-ID": since.encode().decode("latin-1")}
        async with client.get("/api/v1/events", headers=sent) as answer:
            assert answer.status == 200


async def test_slow_reports_leave_connections_to_all_else(
    filled: Filled, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While as many run as may, the next is put off with 503; log-in, health, changes and the feed go on."""
    monkeypatch.setattr(backends, "_WAIT_S", 0.5)
    async with open_admin(filled.url, data_dir) as (client, backend), AsyncExitStack() as running:
        assert MAX_SLOW < MAX_CONNECTIONS - 1
        for _ in range(MAX_SLOW):
            await running.enter_async_context(backend.slow_connection())
        for path in ("reports", "clicks", "conversions", "exports/clicks?from=2026-01-01", "contacts", "cohorts?from=2026-01-01"):
            answer = await client.get(f"/api/v1/{path}", headers=bearer(ADMIN))
            assert (answer.status, answer.headers.get("Retry-After")) == (503, "2"), path
        monkeypatch.undo()
        assert (await client.get("/api/v1/health", headers=bearer(ADMIN))).status == 200
        assert (await client.get("/api/v1/offers", headers=bearer(ADMIN))).status == 200
        assert (await client.post("/login", data={"key": ADMIN}, allow_redirects=False)).status == 303
    async with open_admin(filled.url, data_dir) as (client, backend):
        for _ in range(MAX_SLOW + 1):
            assert (await client.get("/api/v1/reports", headers=bearer(ADMIN))).status == 200


async def test_files_that_come_slowly_hold_no_connection(filled: Filled, data_dir: Path) -> None:
    """More uploads than connections may wait for their next byte."""
    more = asyncio.Event()

    async def drip() -> AsyncIterator[bytes]:
        yield b"click_id,amount\n"
        await more.wait()

    async with open_admin(filled.url, data_dir) as (client, _):
        uploads = [
            asyncio.create_task(client.post("/api/v1/imports/conversions", data=drip(), headers=bearer(ADMIN)))
            for _ in range(MAX_CONNECTIONS + 2)
        ]
        folder = data_dir / "imports"

        async def all_wait() -> bool:
            return len(list(folder.glob("*.part"))) == len(uploads)

        await eventually(all_wait, 20)
        assert (await client.get("/api/v1/keys", headers=bearer(ADMIN))).status == 200
        more.set()
        assert {(await one).status for one in uploads} == {202}


_DEEP = b'{"a":' * 900 + b"1" + b"}" * 900
BODIES: list[tuple[str, str, bytes]] = [
    ("PUT", "costs", b'{"data":[{"day":"2026-11-01","currency":"USD","amount":"%s"}]}' % number)
    for number in (b"NaN", b"sNaN", b"Infinity", b"-Infinity", b"1e999999999", b"1e-999999999", b"0x10", b"1_0")
] + [
    ("PUT", "costs", b'{"data":[{"day":"2026-11-01","currency":"USD","amount":1e999999999}]}'),
    ("PUT", "costs", b'{"data":[{"day":"0001-01-01","currency":"USD","list":"\\ud800"}]}'),
    ("POST", "offers", b'{"advertiser_id":1,"name":"x","url":"https://a.example/","payout":1e999999999}'),
    ("POST", "offers", b'{"advertiser_id":1,"name":"x","url":"https://a.example/","payout":"NaN"}'),
    ("POST", "offers", b'{"advertiser_id":1e400,"name":"x","url":"https://a.example/"}'),
    ("POST", "offers", b'{"id":%s,"advertiser_id":1,"name":"x","url":"https://a.example/"}' % (b"9" * 5000)),
    ("POST", "partners", b'{"name":"\\ud800"}'),
    ("POST", "partners", b'{"name":"a\\u202eb\\u0007"}'),
    ("POST", "partners", _DEEP),
    ("PATCH", "offers/17", _DEEP),
    ("PATCH", "offers/17", b'{"goals":%s}' % _DEEP),
    ("PATCH", "offers/17", b'{"rules":[{"when":%s}]}' % _DEEP),
    ("POST", "goals", b'{"offer_id":17,"name":"g","payout":1e999999999}'),
    ("POST", "keys", b'{"name":"k","scope":"partner","aff_id":99999999999999999999}'),
    ("POST", "keys", b'{"name":"k","scope":"admin","expires_at":"9999-12-31T23:59:59+00:00"}'),
    ("POST", "conversions/changes", b'{"ids":["00000000-0000-0000-0000-000000000000"],"status":"approved","amount":"NaN"}'),
    ("POST", "postback-tests", b'{"url":"/aff_lsr?transaction_id=%00%ff\\ud800"}'),
    ("POST", "postback-tests", b'{"url":"/aff_lsr","from_ip":"\\u0661.1.1.1"}'),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BODIES)))
async def test_no_body_is_a_fault_of_ours(filled: Filled, data_dir: Path, number: int) -> None:
    """Numbers that are none or without end, lone surrogates, depth: 4xx, or taken for what it is."""
    method, path, body = BODIES[number]
    async with open_admin(filled.url, data_dir) as (client, _):
        sent = {**bearer(ADMIN), "Content-Type": "application/json", "If-Match": "*"}
        answer = await client.request(method, f"/api/v1/{path}?dry_run=true" if "/17" in path or path in _DRY else f"/api/v1/{path}", data=body, headers=sent)
        assert answer.status < 500, await answer.text()


_DRY = ("offers", "partners", "goals")
