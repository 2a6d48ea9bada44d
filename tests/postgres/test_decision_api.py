"""Conversions looked at and changed, ids explained, postbacks looked at and tried, health: over the API."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from edge.tracking.click_id import ClickIds
from storage.postgres.outbox import Attempt, finish, take_due
from tests.postgres.api import Client, add_key, bearer, open_api
from tests.postgres.drains import CATALOG, SECRET, Bench, Unleased, open_bench
from tests.recount import differences

PARTNERS = CATALOG.replace(
    'name = "Deal Blog"', 'name = "Deal Blog"\npostback_url = "https://p.example/pb?cid={aff_click_id}&token=hush&m={payout}"'
)


class Desk:
    """A database with some conversions, and the API on it."""

    def __init__(self, bench: Bench, client: Client) -> None:
        self.bench = bench
        self.client = client
        self.ids: list[str] = []
        self.click_id = b""

    async def ask(self, path: str, who: str = "root", **options: Any) -> tuple[int, Any]:
        """Status and body of a GET, or of what `method` says."""
        method = options.pop("method", "GET")
        async with self.client.request(method, f"/api/v1{path}", headers=bearer(who), **options) as answer:
            is_json = answer.content_type.endswith("json")
            return answer.status, await answer.json() if is_json else await answer.text()


@pytest.fixture
async def desk(database: str, data_dir: Path) -> AsyncIterator[Desk]:
    """Three conversions of partner 2 and one of partner 3, all of advertiser 1; the first one's click is `click_id`."""
    async with open_bench(data_dir, database, PARTNERS) as bench:
        scribe = bench.scribe()
        clicks = [scribe.click(aff_id=aff_id, params={"aff_click_id": f"c{aff_id}"}) for aff_id in (2, 2, 2, 3)]
        ids = [scribe.convert(click_id, amount="10", adv_sub1="order") for click_id in clicks]
        await bench.drain()
        for token, scope in (("root", "admin"), ("looker", "reports")):
            await add_key(database, token, scope)
        await add_key(database, "p2", "partner", aff_id=2)
        await add_key(database, "a1", "advertiser", advertiser_id=1)
        await add_key(database, "a2", "advertiser", advertiser_id=2)
        async with open_api(database, data_dir, secrets=(SECRET,)) as client:
            desk = Desk(bench, client)
            desk.ids, desk.click_id = [str(UUID(bytes=one)) for one in ids], clicks[0]
            yield desk


async def test_a_conversion_is_shown_with_its_changes_to_whom_it_belongs(desk: Desk) -> None:
    """The network sees all, a partner no revenue, an advertiser no payout; others' conversions are not there."""
    status, body = await desk.ask(f"/conversions/{desk.ids[0]}")
    assert (status, body["conversion"]["revenue"], body["changes"][0]["kind"]) == (200, 7.5, "decided")
    status, body = await desk.ask(f"/conversions/{desk.ids[0]}", "p2")
    assert status == 200
    assert body["conversion"]["payout"] == 5
    told = {*body["conversion"], *body["changes"][0]}
    assert not told & {"revenue", "revenue_delta", "revenue_after", "advertiser_id", "ip", "note", "actor", "cause_params"}
    status, body = await desk.ask(f"/conversions/{desk.ids[3]}", "a1")
    assert status == 200
    assert not {*body["conversion"], *body["changes"][0]} & {"payout", "payout_delta", "payout_after", "note"}
    assert body["conversion"]["revenue"] == 7.5
    for who, id_ in (("p2", desk.ids[3]), ("a2", desk.ids[0]), ("root", str(UUID(int=7)))):
        assert (await desk.ask(f"/conversions/{id_}", who))[0] == 404
    assert (await desk.ask("/conversions/nonsense"))[0] == 422


async def test_one_conversion_is_changed_by_the_keys_name(desk: Desk) -> None:
    """Adjusted, then reversed; the same again is a conflict and changes nothing; the roll-ups follow."""
    path = f"/conversions/{desk.ids[0]}"
    status, body = await desk.ask(path, method="PATCH", json={"payout": 4.5, "reason": "wrong_amount", "note": "half"})
    assert (status, body["conversion"]["payout"]) == (200, 4.5)
    assert (body["changes"][1]["actor"], body["changes"][1]["note"]) == ("key of admin", "half")
    status, body = await desk.ask(path, method="PATCH", json={"status": "reversed", "reason": "returned"})
    assert (status, body["conversion"]["status"]) == (200, "reversed")
    status, body = await desk.ask(path, method="PATCH", json={"status": "reversed", "reason": "returned"})
    assert (status, body["detail"]) == (409, "it is reversed already")
    assert (await desk.ask(f"/conversions/{UUID(int=7)}", method="PATCH", json={"status": "approved"}))[0] == 404
    assert await desk.bench.value("SELECT count(*) FROM conversion_changes") == 6
    assert await differences(desk.bench.conn) == []


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({}, "status"),
    ({"status": "rejected"}, "reason"),
    ({"status": "reversed", "reason": "fraud", "payout": 1}, "payout"),
    ({"payout": -1, "reason": "other"}, "payout"),
    ({"amount": 1e300, "reason": "other"}, "amount"),
    ({"status": "approved", "note": "x" * 251}, "note"),
    ({"status": "approved", "note": "a\nb"}, "note"),
    ({"status": "pending"}, "/status"),
    ({"status": "approved", "reason": "because"}, "/reason"),
    ({"state": "approved"}, ""),
]


async def test_a_change_that_cannot_be_meant_names_the_field(desk: Desk) -> None:
    """And nothing is changed."""
    for body, field in FAULTS:
        status, told = await desk.ask(f"/conversions/{desk.ids[0]}", method="PATCH", json=body)
        assert (status, told["errors"][0]["field"]) == (422, field), body
    assert await desk.bench.value("SELECT count(*) FROM conversion_changes") == 4


async def test_many_are_changed_each_by_itself(desk: Desk) -> None:
    """One that cannot be says why and keeps none of the others; only an admin's key may."""
    wanted = {"ids": [*desk.ids[:2], str(UUID(int=7)), desk.ids[0]], "status": "rejected", "reason": "fraud"}
    for who in ("looker", "p2", "a1"):
        assert (await desk.ask("/conversions/changes", who, method="POST", json=wanted))[0] == 403
    status, body = await desk.ask("/conversions/changes", method="POST", json=wanted)
    assert (status, body["changed"]) == (200, 2)
    assert [one["problem"] for one in body["data"]] == ["", "", "there is no such conversion"]
    assert [one["status"] for one in body["data"]] == ["rejected", "rejected", ""]
    statuses = await desk.bench.rows("SELECT status, count(*) FROM conversions GROUP BY 1 ORDER BY 1")
    assert statuses == [("approved", 2), ("rejected", 2)]
    assert await differences(desk.bench.conn) == []


async def test_a_story_is_told_as_a_timeline_and_as_text(desk: Desk) -> None:
    """In the order of time; the text is that of the command; an id that names nothing has an empty story."""
    await desk.ask(f"/conversions/{desk.ids[0]}", method="PATCH", json={"status": "reversed", "reason": "fraud"})
    status, body = await desk.ask(f"/explain/{desk.click_id.hex()}", "looker")
    assert (status, body["is_found"]) == (200, True)
    kinds = [entry["kind"] for entry in body["timeline"]]
    assert kinds[:2] == ["click", "conversion"]
    assert sorted(kinds[2:]) == ["postback", "reversed"]
    assert [(entry["word"], entry["tone"]) for entry in body["timeline"][:2]] == [("redirected", "good"), ("approved", "good")]
    assert [entry["at"] for entry in body["timeline"]] == sorted(entry["at"] for entry in body["timeline"])
    assert ["aff_click_id", "c2"] in body["timeline"][0]["facts"]
    [change] = [entry for entry in body["timeline"] if entry["kind"] == "reversed"]
    assert (change["word"], change["tone"], change["id"]) == ("reversed", "bad", UUID(str(desk.ids[0])).hex)
    assert change["notes"][0].startswith("By key of admin: ")
    assert "because fraud" in change["notes"][0]
    status, text = await desk.ask(f"/explain/{desk.click_id.hex()}?format=text", "looker")
    for label, value in body["timeline"][0]["facts"]:
        assert label == "catalog" or f"    {label:<13} {value}" in text
    status, body = await desk.ask("/explain/nonsense", "looker")
    assert (status, body) == (200, {"transaction_id": "nonsense", "is_found": False, "timeline": []})
    assert (await desk.ask("/explain/%00", "looker"))[0] == 422
    for odd in ("%ff%fe", "x" * 3000, "'; DROP TABLE clicks", "%ED%A0%80"):
        status, body = await desk.ask(f"/explain/{odd}", "looker")
        assert (status, body["is_found"]) == (200, False), odd
    assert (await desk.ask("/explain/nonsense", "p2"))[0] == 403


async def test_postbacks_are_listed_page_by_page_without_secrets(desk: Desk) -> None:
    """Newest first, filtered by state, partner and conversion; each attempt with its answer."""
    conn = desk.bench.conn
    [first, *_] = await take_due(conn, node_id=0, busy={}, per_host=1, limit=1, lease_s=60)
    attempt = Attempt(
        first.outbox_id, first.conversion_id, 1, datetime.now(UTC), "GET", "https://p.example/pb?cid=c2&token=***",
        500, 12, "answered 500", "oops", "dead", 0.0,
    )  # fmt: skip
    await finish(conn, [attempt])
    status, page = await desk.ask("/postbacks?limit=2", "looker")
    assert (status, len(page["data"])) == (200, 2)
    status, rest = await desk.ask(f"/postbacks?limit=2&cursor={page['next_cursor']}", "looker")
    assert rest["next_cursor"] is None
    ids = [row["outbox_id"] for row in (*page["data"], *rest["data"])]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 3
    assert not any("hush" in row["url"] for row in (*page["data"], *rest["data"]))
    _, dead = await desk.ask("/postbacks?failing=true&partner=2", "looker")
    assert [(row["outbox_id"], row["status_code"]) for row in dead["data"]] == [(first.outbox_id, 500)]
    assert (await desk.ask(f"/postbacks?conversion_id={UUID(int=7)}"))[1]["data"] == []
    _, one = await desk.ask(f"/postbacks/{first.outbox_id}")
    assert [(entry["status_code"], entry["answer"]) for entry in one["log"]] == [(500, "oops")]
    assert (await desk.ask("/postbacks/999999"))[0] == 404
    for query in ("state=nonsense", "since=yesterday", "limit=0", "cursor=x", "partner=x", "since=2026-01-01T00:00:00", "until=0001-01-01T00:00:00%2B14:00"):
        assert (await desk.ask(f"/postbacks?{query}"))[0] == 422, query
    status, done = await desk.ask(f"/postbacks/{first.outbox_id}/replay", method="POST")
    assert (status, done) == (200, {"conversions": 1, "postbacks": 1})
    newest = (await desk.ask("/postbacks?limit=1"))[1]["data"][0]
    assert (newest["state"], newest["actor"]) == ("pending", "replay by key of admin")
    assert (await desk.ask(f"/postbacks/{first.outbox_id}/replay", "looker", method="POST"))[0] == 403


async def test_a_postback_is_tried_and_leaves_nothing(desk: Desk) -> None:
    """The answer, the verdict, the money and what the partner would be sent; a wrong address is the field at fault."""
    conn = desk.bench.conn
    tables = "SELECT (SELECT count(*) FROM conversions), (SELECT count(*) FROM conversion_keys)"
    before = await desk.bench.rows(tables)
    scribe = desk.bench.scribe(worker=1)
    click_id = scribe.click(aff_id=2, params={"aff_click_id": "fresh"})
    await desk.bench.drain()
    url = f"https://any.example/aff_lsr?transaction_id={click_id.hex()}&amount=3"
    status, body = await desk.ask("/postback-tests", method="POST", json={"url": url})
    assert (status, body["answer_body"], body["status"], body["is_change"]) == (200, "success=true;", "approved", False)
    assert body["conversion"]["payout"] == 5
    assert body["postbacks"][0]["url"].startswith("https://p.example/pb?cid=fresh&token=")
    assert "hush" not in body["postbacks"][0]["url"]
    status, body = await desk.ask("/postback-tests", method="POST", json={"url": f"/aff_lsr?transaction_id={desk.click_id.hex()}"})
    assert (body["status"], body["reason"]) == ("rejected", "duplicate")
    forged = ClickIds(["other"], 0, 0, Unleased()).mint(1_790_000_000_000).hex()
    status, body = await desk.ask("/postback-tests", method="POST", json={"url": f"/aff_lsr?transaction_id={forged}"})
    assert (status, body["answer_body"][:14]) == (200, "success=false;")
    faults: tuple[tuple[str, dict[str, str]], ...] = (
        ("/url", {"url": "nonsense"}),
        ("/url", {"url": "https://p.example/{payout}"}),
        ("/from_ip", {"url": "/aff_lsr", "from_ip": "here"}),
        ("/data", {"url": "/aff_lsr", "data": "{"}),
    )
    for field, bad in faults:
        status, body = await desk.ask("/postback-tests", method="POST", json=bad)
        assert (status, body["errors"][0]["field"]) == (422, field)
    assert await desk.bench.rows(tables) == before
    assert await conn.fetchval("SELECT count(*) FROM postback_outbox") == 3


async def test_health_says_what_waits_and_what_was_given_up(desk: Desk) -> None:
    """From the database and the disk; a partner's key may not ask."""
    await desk.bench.conn.execute("UPDATE postback_outbox SET state = 'dead' WHERE outbox_id IN (SELECT min(outbox_id) FROM postback_outbox)")
    status, body = await desk.ask("/health", "looker")
    assert status == 200
    assert (body["is_database_reachable"], body["catalog_revision"], body["postbacks_pending"]) == (True, 1, 2)
    assert (body["postbacks_dead"], body["troubles"]) == (1, ["1 postbacks were given up"])
    assert body["disk_total_bytes"] > body["disk_free_bytes"] > 0
    assert (await desk.ask("/health", "p2"))[0] == 403
