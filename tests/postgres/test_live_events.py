"""The live stream: what is stored is told once, to whom it belongs, while somebody listens."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from edge.admin import authentication, live
from edge.admin.api import OPERATIONS
from edge.admin.api import live as streaming
from edge.admin.api.server import make_api
from edge.admin.backend import Backend
from edge.admin.live import Changes, Happened, Interest, Listener, Since, feed_of
from edge.settings import Settings
from storage.postgres.connection import Connection, connect
from storage.postgres.live import Row, changes_after
from tests.node import eventually
from tests.postgres.api import Client, add_key, bearer
from tests.postgres.drains import Bench, Scribe, now_ms, open_bench


class Studio:
    """A drained database, the API on it, and the feed behind."""

    def __init__(self, bench: Bench, client: Client, backend: Backend) -> None:
        self.bench = bench
        self.client = client
        self.feed = feed_of(backend)
        self.scribe: Scribe = bench.scribe()
        self.station = bench.station()

    async def listen(self, who: str = "root", query: str = "", **headers: str) -> ClientResponse:
        """A stream that hears whatever is stored from now on."""
        answer = await self.client.get(f"/api/v1/events{query}", headers={**bearer(who), **headers})
        assert answer.status == 200, await answer.text()
        looks = self.feed.looks

        async def has_looked() -> bool:
            return self.feed.looks > looks

        await eventually(has_looked, 20)
        return answer

    async def happen(self, *aff_ids: int, converts: bool = False) -> list[bytes]:
        """A click for each partner, with its conversion if it converts; all stored."""
        clicks = [self.scribe.click(aff_id=aff_id) for aff_id in aff_ids]
        if converts:
            for click_id in clicks:
                self.scribe.convert(click_id, amount="3")
        self.scribe.beat(now_ms() + 10)
        await self.bench.drain(self.station)
        return clicks


async def heard(answer: ClientResponse, count: int) -> list[dict[str, Any]]:
    """The next events of a stream, their ids as `mark`."""
    events: list[dict[str, Any]] = []
    fields: dict[str, str] = {}
    async with asyncio.timeout(20):
        while len(events) < count:
            line = (await answer.content.readline()).decode().rstrip("\n")
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                events.append({**json.loads(fields["data"]), "mark": fields.get("id", ""), "event": fields["event"]})
                fields = {}
    return events


@pytest.fixture
async def studio(database: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Studio]:
    """Keys of each scope; the look-out looks often."""
    monkeypatch.setattr(live, "POLL_S", 0.02)
    monkeypatch.setattr(streaming, "HEARTBEAT_S", 0.2)
    async with open_bench(data_dir, database) as bench:
        await add_key(database, "root")
        await add_key(database, "p2", "partner", aff_id=2)
        await add_key(database, "a2", "advertiser", advertiser_id=2)
        await add_key(database, "a1", "advertiser", advertiser_id=1)
        backend = Backend(Settings(data_dir=str(data_dir)), lambda: database)
        app = web.Application()
        app.add_subapp("/api/", make_api(backend, OPERATIONS))
        try:
            async with TestClient(TestServer(app)) as client:
                yield Studio(bench, client, backend)
        finally:
            await backend.close()


async def test_each_hears_what_is_its_own_once_and_without_what_it_must_not_see(studio: Studio) -> None:
    """Network, partner, two advertisers, filters by kind and partner: all by one look-out, which rests without them."""
    root, p2, a1 = await studio.listen(), await studio.listen("p2"), await studio.listen("a1")
    a2 = await studio.listen("a2")
    only = await studio.listen(query="?kind=conversion&partner=3&offer=17")
    clicks = await studio.happen(2, 3, converts=True)
    more = await studio.happen(2)
    events = await heard(root, 5)
    assert [event["event"] for event in events] == ["click", "click", "conversion", "conversion", "click"]
    ids = [event["click_id"].replace("-", "") for event in events]
    assert ids == [one.hex() for one in (*clicks, *clicks, *more)]
    assert (events[2]["kind"], events[2]["status"], events[2]["revenue"]) == ("decided", "approved", 7.5)
    theirs = await heard(p2, 3)
    assert [event["event"] for event in theirs] == ["click", "conversion", "click"]
    assert {event["aff_id"] for event in theirs} == {2}
    assert not {name for event in theirs for name in event} & {"revenue", "advertiser_id", "cost", "ip"}
    assert theirs[1]["payout"] == 5
    shop = await heard(a1, 5)
    assert not {name for event in shop for name in event} & {"payout", "cost"}
    assert [event["aff_id"] for event in await heard(only, 1)] == [3]
    assert (await a2.content.readline(), await a2.content.readline()) == (b": listening\n", b"\n")
    assert await a2.content.readline() == b": still here\n"
    for answer in (root, p2, a1, a2, only):
        answer.close()

    async def rests() -> bool:
        return studio.feed._looking is None

    await eventually(rests, 20)


async def test_a_stream_goes_on_where_it_was_broken_off(studio: Studio) -> None:
    """With the last event's id: what happened meanwhile comes first, then what happens."""
    first = await studio.listen()
    await studio.happen(2, converts=True)
    last = (await heard(first, 2))[-1]
    first.close()
    missed = await studio.happen(3, converts=True)
    again = await studio.listen(**{"Last-Event-ID": last["mark"]})
    events = await heard(again, 2)
    assert [event["event"] for event in events] == ["click", "conversion"]
    assert {event["click_id"].replace("-", "") for event in events} == {missed[0].hex()}
    await studio.happen(2)
    assert [event["aff_id"] for event in await heard(again, 1)] == [2]
    again.close()


async def test_what_is_stored_while_one_catches_up_is_told_once(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even just after what was missed has been looked up."""
    missed = await studio.happen(2, converts=True)
    late: list[bytes] = []

    async def find_and_store(conn: Connection, change_id: int, limit: int) -> list[Row]:
        rows = await changes_after(conn, change_id, limit)
        if limit == live.MAX_ROWS:
            late.extend(await studio.happen(3, converts=True))
        return rows

    monkeypatch.setattr(live, "changes_after", find_and_store)
    stream = await studio.listen(**{"Last-Event-ID": f"0-{now_ms() - 60_000}"})
    await studio.happen(5, converts=True)
    events = await heard(stream, 6)
    assert [event["aff_id"] for event in events] == [2, 2, 3, 3, 5, 5]
    assert {event["click_id"].replace("-", "") for event in events[:4]} == {missed[0].hex(), late[0].hex()}


async def test_a_change_under_way_when_the_look_out_begins_is_told(studio: Studio, database: str) -> None:
    """Its number is below one that is stored already."""
    await studio.happen(2, converts=True)
    other = await connect(database)
    try:
        async with other.transaction():
            await other.execute(
                "INSERT INTO conversion_changes (conversion_id, booked_hour, actor, kind, status_after)"
                " SELECT conversion_id, now(), 'x', 'approved', 'approved' FROM conversions"
            )
            await studio.happen(3, converts=True)
            stream = await studio.listen(query="?kind=conversion")
    finally:
        await other.close()
    await studio.happen(5, converts=True)
    assert [(event["aff_id"], event["kind"]) for event in await heard(stream, 2)] == [(2, "approved"), (5, "decided")]


async def test_a_key_that_is_revoked_hears_nothing_more(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what happens before the next sign of life; the stream ends."""
    monkeypatch.setattr(streaming, "HEARTBEAT_S", 60.0)
    monkeypatch.setattr(streaming, "BELIEVED_S", 0.0)
    monkeypatch.setattr(authentication, "KNOWN_S", 0.0)
    stream = await studio.listen("p2")
    await studio.happen(2)
    assert [event["aff_id"] for event in await heard(stream, 1)] == [2]
    await studio.bench.conn.execute("UPDATE api_keys SET revoked_at = now() WHERE scope = 'partner'")
    await studio.happen(2)
    async with asyncio.timeout(20):
        assert await stream.read() == b""


async def test_streams_are_bounded_and_end_with_the_process(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused; one that lags is told; a stop lets all go at once; bad filters are named."""
    monkeypatch.setattr(live, "MAX_LISTENERS", 2)
    first, second = await studio.listen(), await studio.listen()
    answer = await studio.client.get("/api/v1/events", headers=bearer("root"))
    assert (answer.status, answer.headers["Retry-After"]) == (429, "10")
    answer = await studio.client.get("/api/v1/events?kind=nonsense", headers=bearer("root"))
    assert answer.status == 422
    for listener in studio.feed._listeners:
        listener.is_lagging = True
        break
    await studio.happen(2)
    kinds = {(await heard(one, 1))[0]["event"] for one in (first, second)}
    assert kinds == {"lagged", "click"}
    await studio.feed.close()
    async with asyncio.timeout(20):
        await first.read()
        await second.read()


async def test_who_is_still_told_what_it_missed_has_a_place(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key that comes back many times at once takes no more places than one after the other."""
    monkeypatch.setattr(live, "MAX_OF_A_KEY", 1)
    begun, missed = asyncio.Event(), asyncio.Event()

    async def find_missed(conn: Connection, since: Since) -> list[Happened]:
        begun.set()
        await missed.wait()
        return []

    monkeypatch.setattr(studio.feed, "_missed", find_missed)
    first = asyncio.create_task(studio.client.get("/api/v1/events", headers={**bearer("p2"), "Last-Event-ID": "1-1"}))
    await begun.wait()
    second = await studio.client.get("/api/v1/events", headers=bearer("p2"))
    missed.set()
    other = await studio.client.get("/api/v1/events", headers=bearer("a1"))
    answers = [await first, second, other]
    assert [one.status for one in answers] == [200, 429, 200]
    for one in answers:
        one.close()


async def test_a_listener_that_does_not_keep_up_is_marked_and_its_queue_stays_bounded() -> None:
    """What others are told does not wait for it."""
    listener = Listener(Interest())
    event = Happened("click", {"offer_id": 1, "aff_id": 2}, "1-2")
    for _ in range(live.MAX_QUEUED + 5):
        listener.tell(event)
    assert listener.is_lagging
    assert await listener.next(1) == event


def test_changes_that_become_visible_late_are_told_once() -> None:
    """A lower number may be committed after a higher one; a number that nobody uses does not stop the others for long."""
    changes = Changes(10)

    def take(now_s: float, *ids: int) -> list[int]:
        return [row["change_id"] for row in changes.take([{"change_id": one} for one in ids], now_s)]

    assert take(0, 11, 13) == [11, 13]
    assert (take(1, 13), changes.floor) == ([], 11)
    assert take(2, 12, 13, 14) == [12, 14]
    assert changes.floor == 14
    assert take(3, 16) == [16]
    assert (take(3 + live.GAP_S, 16, 17), changes.floor) == ([17], 17)
    assert take(30, 15) == []


@pytest.mark.parametrize("text", ["", "x", "1", "1-", "-1-2", "1-2-3", "\u0661-\u0662", "9" * 16 + "-1"])
def test_an_id_that_is_none_begins_anew(text: str) -> None:
    """Nothing that a client sends as Last-Event-ID is more than ignored."""
    assert Since.parse(text) is None
    assert str(Since.parse("12-34")) == "12-34"
