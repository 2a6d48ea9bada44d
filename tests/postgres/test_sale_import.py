"""Conversions of files, stored by the real importer over what real postbacks brought: each once, and the figures agree."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from edge.drain.sale_import import SaleImporter, Terms, by_fate
from edge.imports.columns import find_columns
from edge.imports.sale_rows import SaleRow, read_sale
from edge.imports.values import Calendar
from tests.postgres.drains import Bench, make_settings, now_ms
from tests.recount import differences

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
CALENDAR = Calendar(ZoneInfo("UTC"))
NEW = """
[[offers]]
id = 18
advertiser_id = 2
name = "Every sale"
url = "https://shop.example.com/"
duplicates = "new"
payout_type = "cpa_percentage"
payout_percent = "10"
revenue_type = "cpa_percentage"
revenue_percent = "20"
[[offers]]
id = 19
advertiser_id = 1
name = "Adds up"
url = "https://shop.example.com/"
duplicates = "increment"
payout_type = "cpa_percentage"
payout_percent = "10"
"""


def when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def sales(header: str, *lines: str) -> list[SaleRow]:
    """The rows of such a file."""
    columns = find_columns("conversions", header.split(","), {}, {})
    return [read_sale(number, line.split(","), columns, CALENDAR, "") for number, line in enumerate(lines, 2)]


async def importer(bench: Bench, **terms: Any) -> SaleImporter:
    """One as the command makes it, its run begun."""
    one = SaleImporter(make_settings(bench.data_dir, bench.url), Terms(1, **terms))
    await one.begin(bench.conn)
    return one


async def take_in(bench: Bench, rows: list[SaleRow], **terms: Any) -> dict[str, int]:
    """The fates of the rows of a file."""
    return dict(by_fate(await (await importer(bench, **terms)).store(bench.conn, rows)))


async def everything(bench: Bench) -> list[Any]:
    tables = (
        "conversions",
        "conversion_changes",
        "stats_hourly",
        "conversion_keys",
        "postback_outbox",
        "imported_rows",
    )
    return [Counter(map(repr, await bench.rows(f"TABLE {table}"))) for table in tables]


async def test_a_plain_file_is_booked_as_postbacks_would_be_and_once(embedded_bench: Bench) -> None:
    """The same money as by postback, at the file's date; again, nothing changes; the roll-ups agree."""
    bench = embedded_bench
    scribe = bench.scribe()
    clicks = [scribe.click(ms=now_ms() - 3 * DAY_MS + n) for n in range(3)]
    await bench.drain()
    at = when(now_ms() - DAY_MS)
    rows = sales("click_id,amount,date", *(f"{one.hex()},49.90,{at}" for one in clicks))
    assert await take_in(bench, rows) == {"fresh": 3}
    stored = await bench.rows(
        "SELECT status, amount::text, payout::text, revenue::text, via, status_code, to_char(converted_at, 'YYYY-MM-DD HH24:MI:SS')"
        " FROM conversions"
    )
    assert stored == [("approved", "49.900000", "5.000000", "7.500000", "import", 217, at)] * 3
    assert await differences(bench.conn) == []
    before = await everything(bench)
    assert await take_in(bench, rows) == {"known": 3}
    assert await everything(bench) == before


async def test_what_a_postback_brought_is_not_brought_again(embedded_bench: Bench) -> None:
    """Of an offer that counts every sale: the row within a day of the postback and of its amount is the same sale."""
    bench = embedded_bench
    await bench.apply(NEW)
    scribe = bench.scribe(revision=2)
    click = scribe.click(ms=now_ms() - 3 * DAY_MS, offer_id=18)
    scribe.convert(click, amount="10", ip="198.51.100.7", security_token="s3cret")
    await bench.drain()
    assert await bench.rows("SELECT status, reason FROM conversions") == [("approved", "")]
    near, far = when(now_ms() - 20 * HOUR_MS), when(now_ms() - 30 * HOUR_MS)
    rows = sales(
        "click_id,amount,date",
        f"{click.hex()},10,{near}",
        f"{click.hex()},10.00,{near}",
        f"{click.hex()},11,{near}",
        f"{click.hex()},10,{far}",
    )
    assert await take_in(bench, rows) == {"known": 1, "fresh": 3}
    assert await bench.rows("SELECT amount::int, count(*) FROM conversions GROUP BY 1 ORDER BY 1") == [(10, 3), (11, 1)]
    before = await everything(bench)
    assert await take_in(bench, rows) == {"known": 4}
    assert await everything(bench) == before
    assert await differences(bench.conn) == []


async def test_a_partners_sale_is_found_among_thousands_of_others(embedded_bench: Bench) -> None:
    """Without a click or an id, by amount and contact: what others bought that day hides nothing."""
    bench = embedded_bench
    await bench.apply(NEW + 'tracking = "partner_id"\n')
    at = now_ms() // 1000 * 1000 - HOUR_MS
    for amount, contact_id, count in ((6, "", 1100), (5, "c-9", 1100), (5, "c-1", 1)):
        await bench.conn.execute(
            "INSERT INTO conversions (conversion_id, offer_id, aff_id, converted_at, received_at, amount, currency, revenue,"
            " payout, status, via, contact_id) SELECT gen_random_uuid(), 19, 2, moment, moment, $1, 'USD', 1, 1, 'approved',"
            " 'postback', $2 FROM generate_series(1, $3), to_timestamp($4::float8) AS t (moment)",
            amount, contact_id, count, at / 1000,
        )  # fmt: skip
    rows = sales("offer_id,aff_id,amount,date,contact_id", *(f"19,2,{amount},{when(at)},c-1" for amount in (5, 7)))
    assert await take_in(bench, rows) == {"known": 1, "fresh": 1}


async def test_what_adds_up_is_added_once(embedded_bench: Bench) -> None:
    """An offer with `increment`: each postback's amount is known for itself, a new row is added, a second run adds nothing."""
    bench = embedded_bench
    await bench.apply(NEW)
    scribe = bench.scribe(revision=2)
    click = scribe.click(ms=now_ms() - DAY_MS, offer_id=19)
    for amount in ("10", "5"):
        scribe.convert(click, amount=amount)
    await bench.drain()
    at = when(now_ms() - HOUR_MS)
    rows = sales("click_id,amount,date", *(f"{click.hex()},{amount},{at}" for amount in ("5", "10", "7", "5", "7")))
    assert await take_in(bench, rows) == {"known": 2, "fresh": 3}
    assert await bench.rows("SELECT amount::int, payout::float, via FROM conversions") == [(34, 3.4, "postback")]
    before = await everything(bench)
    assert await take_in(bench, rows) == {"known": 5}
    assert await take_in(bench, rows[::-1]) == {"known": 5}
    assert await everything(bench) == before
    assert await differences(bench.conn) == []


async def test_an_id_of_the_vendor_is_the_conversion_and_ids_that_differ_are_two(embedded_bench: Bench) -> None:
    """By id whatever date and amount; a postback without an id is known by what it says; other ids are other sales."""
    bench = embedded_bench
    await bench.apply(NEW)
    scribe = bench.scribe(revision=2)
    click, other = (scribe.click(ms=now_ms() - 3 * DAY_MS + n, offer_id=18) for n in (0, 1))
    scribe.convert(click, amount="10", conversion_unique_id="A", security_token="s3cret")
    scribe.convert(other, amount="20", security_token="s3cret")
    await bench.drain()
    at, earlier = when(now_ms() - HOUR_MS), when(now_ms() - 2 * DAY_MS)
    rows = sales(
        "Conversion ID,Transaction ID,Sale Amount,Date",
        f"A,{click.hex()},12,{earlier}",
        f"B,{click.hex()},10,{at}",
        f"C,{other.hex()},20,{at}",
    )
    assert await take_in(bench, rows) == {"known": 2, "fresh": 1}
    assert await take_in(bench, rows) == {"known": 3}
    plain = sales("click_id,amount,date", f"{click.hex()},10,{at}", f"{other.hex()},20,{at}", f"{other.hex()},20,{at}")
    assert await take_in(bench, plain) == {"known": 2, "fresh": 1}
    assert await bench.value("SELECT count(*) FROM conversions") == 4
    assert await differences(bench.conn) == []


async def test_where_one_counts_a_click_another_row_of_it_is_refused(embedded_bench: Bench) -> None:
    """`reject`: the first row is the postback whatever its amount; a second one is told to be the same; so again."""
    bench, scribe = embedded_bench, embedded_bench.scribe()
    click, fresh = scribe.click(ms=now_ms() - 3 * DAY_MS), scribe.click(ms=now_ms() - 3 * DAY_MS + 1)
    scribe.convert(click)
    await bench.drain()
    at = when(now_ms() - DAY_MS)
    lines = [f"{click.hex()},9,{at}", f"{click.hex()},8,{at}", f"{fresh.hex()},9,{at}", f"{fresh.hex()},8,{at}"]
    rows = sales("click_id,amount,date", *lines, f"{fresh.hex()},9,{at}")
    assert await take_in(bench, rows) == {"known": 2, "fresh": 1, "rejected": 2}
    before = await everything(bench)
    assert await take_in(bench, rows) == {"known": 3, "rejected": 2}
    assert await everything(bench) == before
    assert await differences(bench.conn) == []


async def test_rules_hold_and_what_they_refuse_is_not_stored(embedded_bench: Bench) -> None:
    """Window, goal, unknown and forged clicks; what the sender rejected is left out; token and address are not asked for."""
    bench = embedded_bench
    await bench.apply(NEW)
    scribe = bench.scribe(revision=2)
    old, click = scribe.click(ms=now_ms() - 40 * DAY_MS), scribe.click(ms=now_ms() - DAY_MS, offer_id=18)
    lost = scribe.session(ms=now_ms() - DAY_MS + 5).click_id
    await bench.drain()
    at, day = when(now_ms() - HOUR_MS), datetime.fromtimestamp((now_ms() - DAY_MS) / 1000, UTC).strftime("%Y-%m-%d")
    rows = sales(
        "click_id,amount,date,status,goal_id",
        f"{old.hex()},5,{at},,",
        f"{lost.hex()},5,{at},,",
        f"{'f' * 32},5,{at},,",
        f"not ours,5,{at},,",
        f"{click.hex()},5,{at},,77",
        f"{click.hex()},5,{at},declined,",
        f"{click.hex()},5,{at},pending,",
        f"{click.hex()},6,{day},approved,",
    )
    done = await (await importer(bench)).store(bench.conn, rows)
    reasons = {one.row.line: one.reason.partition(":")[0] for one in done if one.fate == "rejected"}
    assert reasons == {2: "outside_window", 3: "unknown_click", 4: "unknown_click", 5: "forged_id", 6: "unknown_goal"}
    assert {one.row.line: one.fate for one in done if one.fate != "rejected"} == {7: "skipped", 8: "fresh", 9: "fresh"}
    stored = await bench.rows("SELECT status, amount::int, payout::float FROM conversions ORDER BY amount")
    assert stored == [("pending", 5, 0.5), ("approved", 6, 0.6)]
    assert await bench.value("SELECT converted_at = touched_at FROM conversions WHERE amount = 6")
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0
    assert await differences(bench.conn) == []


async def test_old_ids_lead_to_their_clicks_and_our_id_is_found_in_a_sub_id(embedded_bench: Bench) -> None:
    """An id brought over from another network; a network's own id beside ours, which it was given as sub id."""
    bench, scribe = embedded_bench, embedded_bench.scribe()
    first, second = (scribe.click(ms=now_ms() - DAY_MS + n, params={"ad_id": f"old-{n}"}) for n in (0, 1))
    await bench.drain()
    at = when(now_ms() - HOUR_MS)
    rows = sales("Transaction ID,Sub1,Sub2,Sale Amount,Date", f"old-0,,x,5,{at}", f"102abc,x,{second.hex()},6,{at}")
    assert await take_in(bench, rows) == {"fresh": 2}
    found = await bench.rows("SELECT click_id, transaction_id, amount::int FROM conversions ORDER BY amount")
    assert [(one[0].bytes, *one[1:]) for one in found] == [(first, "old-0", 5), (second, second.hex(), 6)]


async def test_two_imports_at_once_beside_a_drain_bring_each_sale_once(embedded_bench: Bench) -> None:
    """The same file twice at the same time, while postbacks of other clicks are drained; figures agree afterwards."""
    bench = embedded_bench
    await bench.apply(NEW)
    scribe = bench.scribe(revision=2)
    clicks = [scribe.click(ms=now_ms() - DAY_MS + n, offer_id=18) for n in range(120)]
    await bench.drain()
    for click in clicks[:40]:
        scribe.convert(click, amount="10", security_token="s3cret")
    at = when(now_ms() - HOUR_MS)
    rows = sales("click_id,amount,date", *(f"{one.hex()},11,{at}" for one in clicks))

    async def run() -> Counter[str]:
        conn, one = await bench.connect(), SaleImporter(make_settings(bench.data_dir, bench.url), Terms(1))
        await one.begin(conn)
        fates: Counter[str] = Counter()
        for start in range(0, len(rows), 20):
            fates.update(found.fate for found in await one.store(conn, rows[start : start + 20]))
        return fates

    first, second, _ = await asyncio.gather(run(), run(), bench.drain(batch_rows=5))
    assert first + second == Counter(fresh=120, known=120)
    assert await bench.rows("SELECT amount::int, count(*) FROM conversions GROUP BY 1 ORDER BY 1") == [
        (10, 40),
        (11, 120),
    ]
    assert await differences(bench.conn) == []


async def test_partners_are_told_unless_nobody_wants_it_and_a_rehearsal_stores_nothing(embedded_bench: Bench) -> None:
    """One postback a conversion; none with `--no-postbacks`; a dry run counts the same and leaves no trace."""
    bench = embedded_bench
    await bench.apply(
        '[[partners]]\nid = 2\nname = "Deal Blog"\npostback_url = "https://partner.example/?p={payout}"\n'
    )
    scribe = bench.scribe(revision=2)
    clicks = [scribe.click(ms=now_ms() - DAY_MS + n) for n in range(2)]
    await bench.drain()
    at = when(now_ms() - HOUR_MS)
    told, untold = ([row] for row in sales("click_id,amount,date", *(f"{one.hex()},5,{at}" for one in clicks)))
    before = await everything(bench)
    assert await take_in(bench, told, is_rehearsal=True) == {"fresh": 1}
    assert await everything(bench) == before
    assert await take_in(bench, told) == {"fresh": 1}
    assert await take_in(bench, untold, tells_partners=False) == {"fresh": 1}
    assert await bench.value("SELECT count(*) FROM postback_outbox") == 1
