"""The catalog's operations over HTTP, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from edge.admin.catalog_apply import apply_text
from storage.postgres.connection import connect
from tests.node import EXAMPLE_CATALOG
from tests.postgres.api import Client, add_key, bearer, open_api

ROOT = bearer("root")


@pytest.fixture
async def client(database: str, data_dir: Path) -> AsyncIterator[Client]:
    """The API over the example catalog, with a key of each scope."""
    conn = await connect(database)
    await apply_text(conn, EXAMPLE_CATALOG.read_text(), "catalog.toml")
    await conn.close()
    await add_key(database, "root")
    await add_key(database, "viewer", "reports")
    await add_key(database, "partner", "partner", aff_id=2)
    await add_key(database, "advertiser", "advertiser", advertiser_id=1)
    async with open_api(database, data_dir) as client:
        yield client


async def send(
    client: Client, method: str, path: str, body: Any = None, *, etag: str = "", headers: dict[str, str] = ROOT
) -> tuple[int, Any, str]:
    """Status, JSON and ETag of an answer."""
    extra = {"If-Match": etag} if etag else {}
    answer = await client.request(method, f"/api/v1{path}", json=body, headers={**headers, **extra})
    return (
        answer.status,
        await answer.json(content_type=None) if await answer.read() else None,
        answer.headers.get("ETag", ""),
    )


async def test_an_offer_is_made_read_changed_and_archived(client: Client) -> None:
    """Each step answers the offer as it is now; the next free id is given; archived is gone."""
    offer = {"advertiser_id": 1, "name": "New", "url": "https://x.example/?c={transaction_id}", "payout": 1.25}
    status, made, etag = await send(client, "POST", "/offers", offer)
    assert (status, made["id"], made["payout"], made["click_window"]) == (201, 20, 1.25, "30d")
    assert await send(client, "GET", "/offers/20") == (200, made, etag)
    status, changed, new_etag = await send(client, "PATCH", "/offers/20", {"name": "Newer", "payout": "2"}, etag=etag)
    assert (status, changed) == (200, {**made, "name": "Newer", "payout": 2})
    assert new_etag != etag
    assert (await send(client, "PUT", "/offers/20", changed, etag=new_etag))[::2] == (200, new_etag)
    assert await send(client, "DELETE", "/offers/20", etag=new_etag) == (204, None, "")
    assert (await send(client, "GET", "/offers/20"))[0] == 404
    assert (await send(client, "POST", "/offers", offer))[1]["id"] == 21


async def etag_at(client: Client, path: str) -> str:
    """The ETag of what is there."""
    return (await send(client, "GET", path))[2]


async def revision(client: Client) -> int:
    """The revision in force, as a dry run tells it."""
    body = {"name": "nobody"}
    return int((await send(client, "POST", "/partners?dry_run=true", body))[1]["revision"])


async def test_every_fault_is_told_with_its_json_pointer_and_nothing_is_stored(client: Client) -> None:
    """The same checks as of a catalog file, all of them in one answer."""
    before = await revision(client)
    offer = {
        "advertiser_id": 99,
        "name": "",
        "url": "ftp://x.example/",
        "payuot": 1,
        "goals": [{"id": 1, "name": "a"}, {"id": 2, "name": "b", "payout": "five"}],
        "overrides": [{"aff_id": 77}],
        "rules": [{"then": {"landing_page_id": 9}}],
    }
    status, problem, _ = await send(client, "POST", "/offers", offer)
    assert (status, problem["title"]) == (422, "Unprocessable Entity")
    assert {error["field"] for error in problem["errors"]} == {"/name", "/url", "/payuot", "/goals/1/payout"}
    offer |= {"name": "x", "url": "https://x.example/", "goals": []}
    del offer["payuot"]
    _, problem, _ = await send(client, "POST", "/offers", offer)
    told = {error["field"]: error["detail"] for error in problem["errors"]}
    assert told.keys() == {"/advertiser_id", "/overrides/0/aff_id", "/rules/0/then/landing_page_id"}
    assert told["/advertiser_id"].startswith("there is no advertisers[99]")
    assert await revision(client) == before


async def test_a_secret_can_be_set_and_cleared_and_is_never_shown(client: Client) -> None:
    """Answers, previews and conflicts say only whether there is one; a PUT that leaves it out keeps it."""
    _, shown, etag = await send(client, "PATCH", "/advertisers/1", {"security_token": "hunter22"}, etag="*")
    assert shown["security_token_set"] is True
    _, kept, etag = await send(client, "PUT", "/advertisers/1", {**shown, "name": "Renamed"}, etag=etag)
    assert (kept["security_token_set"], kept["name"]) == (True, "Renamed")
    _, preview, _ = await send(
        client, "PATCH", "/advertisers/1?dry_run=true", {"security_token": "hunter23"}, etag=etag
    )
    assert preview["diff"] == ["~ advertisers[1].security_token: changed"]
    _, cleared, _ = await send(client, "PATCH", "/advertisers/1", {"security_token": None}, etag=etag)
    assert cleared["security_token_set"] is False
    status, problem, _ = await send(client, "PATCH", "/advertisers/1", {"name": "x"}, etag=etag)
    assert (status, problem["changes"]) == (412, ["~ advertisers[1].security_token: changed"])
    assert "hunter" not in str([shown, kept, preview, cleared, problem])


async def test_a_change_needs_the_etag_of_what_it_changes(client: Client) -> None:
    """None: 428. An older version's: 412, with what changed since and the ETag of now. No version's: 412 too."""
    etag = await etag_at(client, "/partners/2")
    assert (await send(client, "PATCH", "/partners/2", {"name": "x"}))[0] == 428
    await send(client, "PATCH", "/partners/2", {"name": "Somebody's name"}, etag=etag)
    now = await etag_at(client, "/partners/2")
    for method, body in (("PATCH", {"name": "Mine"}), ("PUT", {"name": "Mine"}), ("DELETE", None)):
        status, problem, told = await send(client, method, "/partners/2", body, etag=etag)
        assert (status, told) == (412, now)
        assert problem["changes"] == ["~ partners[2].name: Deal Blog -> Somebody's name"]
    status, problem, _ = await send(client, "DELETE", "/partners/2", etag='"nobody\'s"')
    assert (status, "changes" in problem) == (412, False)
    assert (await send(client, "GET", "/partners/2"))[1]["name"] == "Somebody's name"


async def test_a_change_of_another_item_is_no_conflict(client: Client) -> None:
    """The ETag is the item's, not the catalog's."""
    etag = await etag_at(client, "/offers/17")
    await send(client, "PATCH", "/partners/2", {"name": "x"}, etag="*")
    assert (await send(client, "PATCH", "/offers/17", {"name": "y"}, etag=etag))[0] == 200


async def test_of_two_changes_of_one_version_one_is_stored(client: Client) -> None:
    """However close they come; and new items that come at once all get ids of their own."""
    etag = await etag_at(client, "/offers/17")
    names = [f"name {number}" for number in range(5)]
    answers = await asyncio.gather(*(send(client, "PATCH", "/offers/17", {"name": name}, etag=etag) for name in names))
    assert sorted(status for status, _, _ in answers) == [200, 412, 412, 412, 412]
    made = await asyncio.gather(*(send(client, "POST", "/partners", {"name": name}) for name in names))
    assert len({answer["id"] for status, answer, _ in made if status == 201}) == 5


async def test_a_dry_run_tells_the_diff_and_the_warnings_and_stores_nothing(client: Client) -> None:
    """Of a new item, a change and an archiving."""
    before = await revision(client)
    etag = await etag_at(client, "/offers/17")
    patch = {"payout": "5.50", "url": "https://shop.example.com/?x={nonsense}"}
    status, preview, _ = await send(client, "PATCH", "/offers/17?dry_run=true", patch, etag=etag)
    assert (status, preview["revision"]) == (200, before)
    assert "~ offers[17].payout: 5.00 -> 5.50" in preview["diff"]
    assert "nobody knows the macro {nonsense}" in preview["warnings"][0]
    _, preview, _ = await send(client, "DELETE", "/aliases/SL2?dry_run=true", etag="*")
    assert preview["diff"] == ["- aliases[SL2] click"]
    assert await etag_at(client, "/offers/17") == etag
    assert await revision(client) == before


async def test_lists_are_filtered_and_paged(client: Client) -> None:
    """Pages follow each other without gap or repetition; a filter's fault is named."""
    for name, status in (("Alpha", "active"), ("Älpha two", "paused"), ("Beta", "active")):
        offer = {"advertiser_id": 1, "name": name, "url": "https://x.example/", "status": status}
        await send(client, "POST", "/offers", offer)
    seen: list[int] = []
    cursor: Any = ""
    while cursor is not None:
        _, page, _ = await send(client, "GET", f"/offers?limit=2&advertiser_id=1&cursor={cursor}")
        seen += [offer["id"] for offer in page["data"]]
        cursor = page["next_cursor"]
    assert seen == sorted(set(seen))
    assert len(seen) >= 5
    _, found, _ = await send(client, "GET", "/offers?q=ÄLPHA&status=paused&status=expired")
    assert [offer["name"] for offer in found["data"]] == ["Älpha two"]
    _, found, _ = await send(client, "GET", "/aliases?offer_id=17&aff_id=2")
    assert [alias["path"] for alias in found["data"]] == ["SL2"]
    for faulty in ("status=gone", "limit=0", "limit=1001", "cursor=%22", "cursor=bm9uc2Vuc2U", "colour=red"):
        refused, problem, _ = await send(client, "GET", f"/offers?{faulty}")
        assert (refused, [error["field"] for error in problem["errors"]]) == (422, [faulty.partition("=")[0]])


async def test_what_others_name_is_not_archived(client: Client) -> None:
    """409, and who names it; archived ids are not given again."""
    status, problem, _ = await send(client, "DELETE", "/advertisers/1", etag="*")
    assert status == 409
    assert "offers[17].advertiser_id names it" in [error["detail"] for error in problem["errors"]]
    status, problem, _ = await send(client, "DELETE", "/partners/2", etag="*")
    assert "aliases[SL2].params.aff_id names it" in [error["detail"] for error in problem["errors"]]


async def test_an_id_is_taken_once_and_never_changes(client: Client) -> None:
    """409 for a taken one; 422 for another in a change."""
    alias = {"path": "SL2", "kind": "click", "params": {"offer_id": 17}}
    assert (await send(client, "POST", "/partners", {"id": 2, "name": "x"}))[0] == 409
    assert (await send(client, "POST", "/aliases", alias))[0] == 409
    for path in ("/partners/2", "/offers/17/goals/1"):
        status, problem, _ = await send(client, "PATCH", path, {"id": 3}, etag="*")
        assert (status, problem["errors"][0]["field"]) == (422, "/id")
    assert (await send(client, "POST", "/partners", {"id": "33", "name": "x"}))[0] == 422
    assert (await send(client, "POST", "/partners", {"id": 4_000_000_000, "name": "x"}))[0] == 422


async def test_parts_of_offers_are_items_of_their_own(client: Client) -> None:
    """Made in either collection, read, changed, removed; a removed goal's id is not given again."""
    status, goal, etag = await send(client, "POST", "/goals", {"offer_id": 17, "name": "sale", "payout": 3})
    assert (status, goal["offer_id"], goal["id"], goal["payout"]) == (201, 17, 2, 3)
    assert await send(client, "GET", "/offers/17/goals/2") == (200, goal, etag)
    await send(client, "PATCH", "/offers/17/goals/1", {"name": "other"}, etag="*")
    status, changed, _ = await send(client, "PUT", "/offers/17/goals/2", {**goal, "name": "buy"}, etag=etag)
    assert (status, changed["name"]) == (200, "buy")
    assert (await send(client, "PATCH", "/offers/17/goals/2", {"name": "late"}, etag=etag))[0] == 412
    assert (await send(client, "DELETE", "/offers/17/goals/2", etag="*"))[0] == 204
    assert (await send(client, "GET", "/offers/17/goals/2"))[0] == 404
    assert (await send(client, "POST", "/offers/17/goals", {"name": "again"}))[1]["id"] == 3
    _, page, _ = await send(client, "GET", "/goals?offer_id=17&limit=1")
    _, rest, _ = await send(client, "GET", f"/goals?offer_id=17&cursor={page['next_cursor']}")
    assert [goal["id"] for goal in (*page["data"], *rest["data"])] == [1, 3]
    assert [goal["id"] for goal in (await send(client, "GET", "/offers/17/goals"))[1]["data"]] == [1, 3]


@pytest.mark.parametrize(("versions_ago", "had", "free"), [(500, 7, 8), (100, 2**31 - 1, 2)])
async def test_a_parts_number_is_new_however_long_the_offers_history_is(
    client: Client, database: str, versions_ago: int, had: int, free: int
) -> None:
    """What was booked under a goal of hundreds of versions ago is not another's; the highest number is no end."""
    conn = await connect(database)
    await conn.execute(
        "INSERT INTO catalog_items (kind, id, revision_from, revision_to, body)"
        " SELECT kind, id, -number, 1 - number, convert_to(jsonb_set(convert_from(body, 'UTF8')::jsonb, '{goals,0,id}',"
        "  to_jsonb(CASE number WHEN $1 THEN $2::bigint ELSE 1 END))::text, 'UTF8')"
        " FROM catalog_items, generate_series(1, 500) AS number WHERE kind = 'offers' AND id = '17'",
        versions_ago,
        had,
    )
    await conn.close()
    assert (await send(client, "POST", "/offers/17/goals", {"name": "new"}))[1]["id"] == free


async def test_a_part_s_fault_is_told_from_the_part_on(client: Client) -> None:
    """`/payout`, not `/goals/1/payout`; what is wrong elsewhere in the offer keeps its whole pointer."""
    _, problem, _ = await send(client, "POST", "/offers/17/goals", {"name": "sale", "payout": "five"})
    assert [error["field"] for error in problem["errors"]] == ["/payout"]
    _, problem, _ = await send(client, "DELETE", "/offers/17/goals/1", etag="*")
    assert [error["field"] for error in problem["errors"]] == ["/overrides/1/goal_id"]
    assert (await send(client, "POST", "/goals", {"name": "sale"}))[1]["errors"][0]["field"] == "/offer_id"
    assert (await send(client, "POST", "/offers/99/goals", {"name": "sale"}))[0] == 404


async def test_rules_are_known_by_their_place(client: Client) -> None:
    """A rule's ETag is that of all of the offer's: one that moved is not changed by mistake."""
    for country in ("US", "CA"):
        rule = {"when": {"country": [country]}, "then": {"reject": "geo"}}
        assert (await send(client, "POST", "/offers/18/rules", rule))[0] == 201
    etag = await etag_at(client, "/offers/18/rules/2")
    assert (await send(client, "DELETE", "/offers/18/rules/1", etag=etag))[0] == 204
    assert (await send(client, "PATCH", "/offers/18/rules/1", {"when": {"device": ["mobile"]}}, etag=etag))[0] == 412
    _, rule, _ = await send(client, "PATCH", "/offers/18/rules/1", {"when": {"device": ["mobile"]}}, etag="*")
    assert (rule["id"], rule["when"]["country"], rule["when"]["device"]) == (1, ["CA"], ["mobile"])
    assert (await send(client, "GET", "/offers/18/rules/2"))[0] == 404


async def test_a_change_is_recorded_under_the_key_s_name(client: Client, database: str) -> None:
    """The revision tells who and by which request."""
    await send(client, "PATCH", "/partners/2", {"name": "x"}, etag="*")
    conn = await asyncpg.connect(database)
    row = await conn.fetchrow("SELECT actor, note FROM catalog_revisions ORDER BY revision DESC LIMIT 1")
    await conn.close()
    assert tuple(row) == ("key of admin (key 1)", "PATCH /api/v1/partners/2")


async def test_a_partner_sees_itself_and_offers_without_what_they_earn_others(client: Client) -> None:
    """No revenue, no other partner's terms, no advertiser, no address with its secrets; other partners are 404."""
    key = bearer("partner")
    await send(client, "PATCH", "/offers/17", {"caps": {"daily_revenue": 9, "daily_payout": 8}}, etag="*")
    await send(
        client,
        "PATCH",
        "/offers/17",
        {"overrides": [{"aff_id": 3, "payout": 7, "revenue": 6}, {"aff_id": 2, "payout": 5, "revenue": 4}]},
        etag="*",
    )
    status, offer, _ = await send(client, "GET", "/offers/17", headers=key)
    assert status == 200
    assert not {"revenue", "advertiser_id", "url", "rules", "ref"} & offer.keys()
    assert offer["caps"] == {"daily_payout": 8}
    assert offer["overrides"] == [{"aff_id": 2, "goal_id": 0, "payout": 5, "caps": {}}]
    everything = str((await send(client, "GET", "/offers", headers=key))[1]) + str(
        (await send(client, "GET", "/goals", headers=key))[1]
    )
    assert "revenue" not in everything
    assert (await send(client, "GET", "/partners/2", headers=key))[1]["name"] == "Deal Blog"
    assert [one["id"] for one in (await send(client, "GET", "/partners", headers=key))[1]["data"]] == [2]
    other = await send(client, "GET", "/partners/3", headers=key)
    nobody = await send(client, "GET", "/partners/999", headers=key)
    assert other[0] == nobody[0] == 404
    assert other[1]["detail"] == nobody[1]["detail"]
    assert (await send(client, "GET", "/advertisers/1", headers=key))[0] == 403
    assert (await send(client, "PATCH", "/partners/2", {"name": "x"}, etag="*", headers=key))[0] == 403


async def test_an_advertiser_sees_its_own_offers_without_what_partners_get(client: Client) -> None:
    """No payout, no partner, no other advertiser's offer."""
    key = bearer("advertiser")
    other = {"advertiser_id": (await send(client, "POST", "/advertisers", {"name": "Other"}))[1]["id"]}
    _, foreign, _ = await send(client, "POST", "/offers", {**other, "name": "f", "url": "https://x.example/"})
    _, offer, _ = await send(client, "GET", "/offers/17", headers=key)
    assert offer["revenue"] == Decimal("7.5")
    assert not {"payout", "overrides", "promo_codes", "tiers", "rules", "redirect_offer_id"} & offer.keys()
    assert "payout" not in str((await send(client, "GET", "/goals", headers=key))[1])
    assert (await send(client, "GET", f"/offers/{foreign['id']}", headers=key))[0] == 404
    assert (await send(client, "GET", f"/offers/{foreign['id']}/goals", headers=key))[0] == 404
    offers = (await send(client, "GET", "/offers", headers=key))[1]["data"]
    assert foreign["id"] not in [one["id"] for one in offers]
    assert (await send(client, "GET", "/advertisers/1", headers=key))[0] == 200
    assert (await send(client, "GET", f"/advertisers/{other['advertiser_id']}", headers=key))[0] == 404
    assert (await send(client, "GET", "/partners/2", headers=key))[0] == 403


async def test_a_reports_key_reads_the_catalog_and_changes_nothing(client: Client) -> None:
    """Reading is 200, everything else 403."""
    key = bearer("viewer")
    assert (await send(client, "GET", "/partners/2", headers=key))[0] == 200
    assert (await send(client, "GET", "/offers/17/rules", headers=key))[0] == 200
    assert (await send(client, "POST", "/partners", {"name": "x"}, headers=key))[0] == 403


async def test_the_whole_example_catalog_goes_through_the_api_unchanged(client: Client) -> None:
    """What is read can be put back as it is: no new revision comes of it."""
    before = await revision(client)
    for kind, key in (("advertisers", "id"), ("partners", "id"), ("offers", "id"), ("aliases", "path")):
        for item in (await send(client, "GET", f"/{kind}"))[1]["data"]:
            path = f"/{kind}/{item[key]}"
            status, same, _ = await send(client, "PUT", path, item, etag=await etag_at(client, path))
            assert (status, same) == (200, item)
    assert await revision(client) == before
