"""What of a visitor is stored, and what their browser is made to keep: each switch from the request to PostgreSQL."""

from uuid import UUID

import pytest

from tests.postgres.drains import Bench
from tests.wire.port import Port, serving

ADDRESS = "203.0.113.77"
FORWARDED = f"X-Forwarded-For: {ADDRESS}"
CATALOG = """
[[advertisers]]
id = 1
name = "Shop"
allowed_ips = ["203.0.113.77"]
[[partners]]
id = 2
name = "Deal Blog"
postback_url = "https://partner.example/pb?from={session_ip}&by={ip}&sub={aff_sub}"
[[offers]]
id = 17
advertiser_id = 1
name = "With cookies"
url = "https://shop.example/?clickid={transaction_id}"
payout = "5.00"
duplicates = "update"
[[offers]]
id = 18
advertiser_id = 1
name = "Without"
url = "https://shop.example/?clickid={transaction_id}"
payout = "5.00"
cookies = false
landing_pages = [{ id = 1, url = "https://a.example/", weight = 1 }, { id = 2, url = "https://b.example/", weight = 1 }]
"""


async def click(port: Port, offer_id: int, *headers: str) -> tuple[str, str]:
    """A click's id and the cookie that it sets, without attributes."""
    reply = await port.get(f"/clk?offer_id={offer_id}&aff_id=2", FORWARDED, *headers)
    told = await port.get(f"/aff_c?offer_id={offer_id}&aff_id=2", FORWARDED, *headers)
    assert (reply.status, reply.get("set-cookie"), told.status) == (200, "", 302)
    return reply.body.decode().split('"')[3], told.get("set-cookie").partition(";")[0]


@pytest.mark.parametrize("is_lane_on", [True, False])
async def test_an_offer_without_cookies_sets_and_reads_none(embedded_bench: Bench, is_lane_on: bool) -> None:
    """Click, view and pixel; one of before is not looked at. The id that is sent along converts as ever."""
    bench = embedded_bench
    await bench.apply(CATALOG)
    async with serving(bench.data_dir, catalog=CATALOG, trusted="127.0.0.0/8", is_lane_on=is_lane_on) as port:
        _, cookie = await click(port, 17)
        name, ids = cookie.split("=")
        assert name == "ce_17"
        old = f"Cookie: ce_18={ids}; cv_18={ids[:32]}"
        named, cookie = await click(port, 18, old)
        view = await port.get("/aff_i?offer_id=18&aff_id=2", old)
        assert (cookie, view.get("set-cookie")) == ("", "")
        assert (await port.get("/aff_l?offer_id=18&adv_sub=by-cookie", old)).status == 200
        assert (await port.get(f"/aff_l?offer_id=18&adv_sub=by-id&transaction_id={named}")).status == 200
    await bench.drain(conversion_wait_s=0)
    assert await bench.rows("SELECT adv_sub1, status, reason FROM conversions ORDER BY 1") == [
        ("by-cookie", "rejected", "unknown_click"),
        ("by-id", "approved", ""),
    ]
    assert await bench.value("SELECT count(*) FROM clicks WHERE offer_id = 18 AND first_click_id IS NOT NULL") == 0


@pytest.mark.parametrize(
    ("header", "is_honoured"), [("Sec-GPC: 1", True), ("DNT: 1", True), ("Sec-GPC: 1", False), ("DNT: 1", False)]
)
async def test_who_objects_is_flagged_and_given_no_cookie(embedded_bench: Bench, header: str, is_honoured: bool) -> None:
    """By either way, where it is honoured: nothing is set, and a cookie of before leads to nothing. Else it means nothing."""
    bench = embedded_bench
    await bench.apply(CATALOG)
    async with serving(bench.data_dir, catalog=CATALOG, honour_gpc=is_honoured, honour_dnt=is_honoured) as port:
        before = (await port.get("/aff_c?offer_id=17&aff_id=2")).get("set-cookie").partition(";")[0]
        both = header, f"Cookie: {before}"
        again = await port.get("/aff_c?offer_id=17&aff_id=2&aff_sub=later", *both)
        unknown = await port.get("/aff_c?offer_id=17&aff_id=9&aff_sub=at+length", *both)
        view = await port.get("/aff_i?offer_id=17&aff_id=2", *both)
        await port.get("/aff_l?offer_id=17", *both)
    assert [bool(one.get("set-cookie")) for one in (again, unknown, view)] == [not is_honoured] * 3
    await bench.drain(conversion_wait_s=0)
    rows = await bench.rows("SELECT flags, first_click_id FROM clicks WHERE aff_sub1 <> '' ORDER BY click_id")
    first = None if is_honoured else UUID(before[6:38])
    assert [(("opted_out" in flags), known) for flags, known in rows] == [(is_honoured, first)] * 2
    assert await bench.value("SELECT 'opted_out' = ANY(flags) FROM impressions") is is_honoured
    assert await bench.value("SELECT count(click_id) FROM conversions") == (0 if is_honoured else 1)


async def test_do_not_track_means_nothing_by_default(embedded_bench: Bench) -> None:
    """Without EDGE_HONOUR_DNT."""
    async with serving(embedded_bench.data_dir, catalog=CATALOG) as port:
        assert (await port.get("/aff_c?offer_id=17&aff_id=2", "DNT: 1")).get("set-cookie").startswith("ce_17=")


@pytest.mark.parametrize(("kept", "stored"), [("full", ADDRESS), ("truncated", "203.0.113.0"), ("none", None)])
async def test_of_an_address_no_more_is_stored_than_asked(embedded_bench: Bench, kept: str, stored: str | None) -> None:
    """In no table, whoever says it; `allowed_ips` is asked of the whole one, and partners hear what is stored."""
    bench = embedded_bench
    await bench.apply(CATALOG)
    async with serving(bench.data_dir, catalog=CATALOG, trusted="127.0.0.0/8") as port:
        named, _ = await click(port, 17)
        await port.get(f"/aff_c?offer_id=17&aff_id=2&ip={ADDRESS}&session_ip={ADDRESS}&color=red", FORWARDED)
        await port.get("/aff_i?offer_id=17&aff_id=2", FORWARDED)
        for amount in ("10", "12"):
            await port.get(f"/aff_lsr?transaction_id={named}&amount={amount}&ip={ADDRESS}&adv_sub={amount}", FORWARDED)
    await bench.drain(ip_storage=kept)
    assert await bench.rows("SELECT host(ip), status FROM conversions") == [(stored, "approved")]
    assert set(await bench.rows("SELECT host(ip) FROM clicks UNION SELECT host(ip) FROM impressions")) == {(stored,)}
    assert await bench.value("SELECT count(*) FROM clicks WHERE extras ->> 'color' = 'red'") == 1
    assert await bench.value("SELECT count(*) FROM conversion_changes WHERE cause_id IS NOT NULL") == 1
    found = await tables_that_say(bench, ADDRESS)
    assert bool(found) is (kept == "full"), found


async def tables_that_say(bench: Bench, text: str) -> set[str]:
    """The tables with a row in which that text is written."""
    query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
    tables = [row[0] for row in await bench.rows(query)]
    says = "SELECT EXISTS (SELECT FROM {} AS one WHERE one::text LIKE '%' || $1 || '%')"
    return {table for table in tables if await bench.value(says.format(table), text)}
