"""Files imported as command and API do it: vendors' forms, bad rows, broken runs, costs and contacts; figures recounted."""

import csv
import gzip
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edge.drain.import_run import Report, Source, run_import
from edge.drain.takers import Plan
from edge.errors import UserError
from storage.postgres.import_runs import list_runs
from tests.node import eventually
from tests.postgres.drains import Bench, make_settings, now_ms
from tests.recount import differences

DAY_MS = 86_400_000


def when(ms: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime(form)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


async def take_in(bench: Bench, path: Path, kind: str = "conversions", **plan: Any) -> Report:
    """Import it on a connection of its own, as everybody does."""
    conn = await bench.connect()
    source = Source(path, path.name, path.with_name(f"{path.name}.rejects.csv"))
    values: dict[str, Any] = {"kind": kind, "zone": ZoneInfo("UTC"), "actor": "test"}
    try:
        return await run_import(conn, make_settings(bench.data_dir, bench.url), source, Plan(**{**values, **plan}))
    finally:
        await conn.close()


def rejected(report: Report) -> list[dict[str, str]]:
    with open(report.rejects, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


async def test_a_file_goes_in_once_and_what_is_wrong_comes_back(embedded_bench: Bench, tmp_path: Path) -> None:
    """Each bad row with line and reason; corrected, the rejects go in themselves; again, all is known; figures agree."""
    bench, scribe = embedded_bench, embedded_bench.scribe()
    clicks = [scribe.click(ms=now_ms() - 3 * DAY_MS + n).hex() for n in range(3)]
    await bench.drain()
    at = when(now_ms() - DAY_MS)
    mistyped = clicks[1][:-1] + f"{int(clicks[1][-1], 16) ^ 1:x}"
    path = write(
        tmp_path / "sales.csv",
        f'Click ID,Amount,Date\n{clicks[0]},"1,234.50",{at}\n\n{clicks[1]},-5,{at}\n{mistyped},5,{at}\n'
        f"{clicks[2]},5,yesterday\n{clicks[2]},5,{when(now_ms() + DAY_MS)}\n{clicks[2]},5,{when(now_ms() - 9 * DAY_MS)}\n"
        f"{clicks[2]},5,{at},more\n,5,{at}\n",
    )
    report = await take_in(bench, path)
    assert report.counts == {"stored": 1, "rejected": 7}
    lines = rejected(report)
    said = [
        (4, "below zero"), (5, "unknown_click: "), (6, "cannot be read: say --date-format"), (7, "in the future"),
        (8, "before its click"), (9, "it has 4 values"), (10, "no click id"),
    ]  # fmt: skip
    for line, text in said:
        assert [text in one["reason"] for one in lines if one["line"] == str(line)] == [True], (line, lines)
    assert lines[0]["Amount"] == "-5"
    rows = [f"4,why,{clicks[1]},5,{at}", f"6,why,{clicks[2]},5,{at}"]
    mended = write(tmp_path / "mended.csv", "\n".join(["line,reason,Click ID,Amount,Date", *rows]))
    assert (await take_in(bench, mended)).counts == {"stored": 2}
    assert (await take_in(bench, path)).counts == {"known": 1, "rejected": 7}
    assert (await take_in(bench, mended)).counts == {"known": 2}
    assert await bench.value("SELECT sum(amount)::text FROM stats_hourly") == "1244.500000"
    assert await differences(bench.conn) == []
    runs = await list_runs(bench.conn, 10)
    assert [(run["state"], run["rows_stored"], run["rows_known"], run["rows_rejected"]) for run in runs] == [
        ("done", 0, 2, 0), ("done", 0, 1, 7), ("done", 2, 0, 0), ("done", 1, 0, 7),
    ]  # fmt: skip


def vendor_file(vendor: str, clicks: list[str]) -> str:
    """A report of three sales in the vendor's form: approved, approved with a share, pending."""
    moments = [now_ms() - DAY_MS + n * 1000 for n in range(3)]
    ids = [f"{vendor}-{n}" for n in range(3)]
    if vendor == "tune":
        head = "Stat.id,Stat.ad_id,Stat.datetime,Stat.sale_amount,Stat.conversion_status,Stat.affiliate_info1"
        rows = [
            f'{ids[n]},{clicks[n]},{when(moments[n])},"1,0{n}0.50",{status},x'
            for n, status in enumerate(("approved", "approved", "pending"))
        ]
    elif vendor == "everflow":
        head = "conversion_id,transaction_id,conversion_unix_timestamp,sale_amount,status,event,sub1,coupon_code"
        rows = [
            f"{ids[n]},{clicks[n]},{moments[n] // 1000},10{n}0.50,{status},Base,x,"
            for n, status in enumerate(("approved", "approved", "pending"))
        ]
    elif vendor == "impact":
        head = "Action Id;Action Tracker;Event Date;State;Sale Amount;Currency;Oid;SubId1"
        rows = [
            f"{ids[n]};Online Sale;{when(moments[n], '%b %d, %Y %H:%M:%S UTC')};{status};1.0{n}0,50;USD;order-{n};{clicks[n]}"
            for n, status in enumerate(("Approved", "Locked", "Pending"))
        ]
    else:
        head = "click_id|amount|date|status"
        rows = [
            f"{clicks[n]}|$10{n}0.50|{when(moments[n], '%Y-%m-%dT%H:%M:%SZ')}|{status}"
            for n, status in enumerate(("confirmed", "", "on hold"))
        ]
    return "\r\n".join([head, *rows, ""])


@pytest.mark.parametrize("vendor", ["tune", "everflow", "impact", "plain"])
async def test_each_vendors_report_comes_to_the_same(vendor: str, embedded_bench: Bench, tmp_path: Path) -> None:
    """Whatever the columns, separators, dates and words: the same amounts, money and statuses; the plain form then knows
    them all, and so does the report again.
    """
    bench, scribe = embedded_bench, embedded_bench.scribe()
    clicks = [scribe.click(ms=now_ms() - 3 * DAY_MS + n).hex() for n in range(3)]
    await bench.drain()
    path = write(tmp_path / "report.csv", vendor_file(vendor, clicks), "utf-16" if vendor == "impact" else "latin-1")
    assert (await take_in(bench, path)).counts == {"stored": 3}
    stored = await bench.rows(
        "SELECT status, amount::text, payout::int, revenue::float FROM conversions ORDER BY amount"
    )
    expected = [(status, f"10{n}0.500000", 5, 7.5) for n, status in enumerate(("approved", "approved", "pending"))]
    assert stored == expected
    again = await take_in(bench, path)
    assert (again.counts, again.same_as) == ({"known": 3}, 1)
    assert (await take_in(bench, write(tmp_path / "plain.csv", vendor_file("plain", clicks)))).counts == {"known": 3}
    assert (
        await bench.rows("SELECT status, amount::text, payout::int, revenue::float FROM conversions ORDER BY amount")
        == expected
    )
    assert await differences(bench.conn) == []


async def test_what_a_report_says_otherwise_is_told_and_changed_when_asked(
    embedded_bench: Bench, tmp_path: Path
) -> None:
    """Amount, approval, reversal: told at first; with `update` made so, by the import, once; figures agree."""
    bench = embedded_bench
    await bench.apply(SHARES)
    scribe = bench.scribe(revision=2)
    clicks = [scribe.click(ms=now_ms() - 3 * DAY_MS + n, offer_id=18) for n in range(4)]
    for number, click in enumerate(clicks):
        scribe.convert(click, amount="10", conversion_unique_id=f"o{number}", status="pending" if number == 1 else "")
    await bench.drain()
    at = when(now_ms() - DAY_MS)
    said = [("20", "approved"), ("10", "approved"), ("10", "refunded"), ("10", "approved")]
    lines = [f"o{n},{clicks[n].hex()},{amount},{at},{status}" for n, (amount, status) in enumerate(said)]
    path = write(tmp_path / "report.csv", "\n".join(["conversion_id,click_id,amount,date,status", *lines]))
    told = await take_in(bench, path)
    assert told.counts == {"differ": 3, "known": 1}
    assert told.examples[0]["reason"] == "amount 10 here, 20 in the file"
    assert (await take_in(bench, path, update=True, dry_run=True)).counts == {"changed": 3, "known": 1}
    assert await bench.value("SELECT count(*) FROM conversion_changes") == 4
    assert (await take_in(bench, path, update=True)).counts == {"changed": 3, "known": 1}
    assert await bench.rows("SELECT status, amount::int, payout::float FROM conversions ORDER BY conversion_unique_id") == [
        ("approved", 20, 2.0), ("approved", 10, 1.0), ("reversed", 10, 1.0), ("approved", 10, 1.0),
    ]  # fmt: skip
    assert await bench.rows("SELECT DISTINCT actor FROM conversion_changes WHERE kind <> 'decided'") == [("test",)]
    assert (await take_in(bench, path, update=True)).counts == {"known": 4}
    assert await differences(bench.conn) == []


async def test_what_is_approved_by_a_report_gets_its_tier_s_share_of_the_amount_there(
    embedded_bench: Bench, tmp_path: Path
) -> None:
    """As the advertiser's postback would have it, which says the same."""
    bench = embedded_bench
    tiers = "tiers = [{ from_conversions = 2, payout_percent = '20' }]"
    await bench.apply(f"{SHARES}{tiers}\nrevenue_type = 'cpa_percentage'\nrevenue_percent = '30'")
    scribe = bench.scribe(revision=2)
    clicks = [scribe.click(ms=now_ms() - 3 * DAY_MS + n, offer_id=18) for n in range(3)]
    for number, click in enumerate(clicks):
        scribe.convert(click, amount="10", conversion_unique_id=f"o{number}", status="pending")
    await bench.drain()
    at = when(now_ms() - DAY_MS)
    lines = [f"o{n},{clicks[n].hex()},{amount},{at},approved" for n, amount in enumerate((20, 20, 10))]
    path = write(tmp_path / "report.csv", "\n".join(["conversion_id,click_id,amount,date,status", *lines]))
    assert (await take_in(bench, path, update=True)).counts == {"changed": 3}
    query = "SELECT amount::int, payout::float, revenue::float, tier FROM conversions ORDER BY conversion_unique_id"
    assert await bench.rows(query) == [(20, 2.0, 6.0, 0), (20, 4.0, 6.0, 2), (10, 2.0, 3.0, 2)]
    assert (await take_in(bench, path, update=True)).counts == {"known": 3}
    assert await differences(bench.conn) == []


async def test_what_was_taken_back_and_is_approved_again_has_the_amount_in_the_file(
    embedded_bench: Bench, tmp_path: Path
) -> None:
    """At once, not with the next run of the same file."""
    bench = embedded_bench
    await bench.apply(SHARES)
    scribe = bench.scribe(revision=2)
    click = scribe.click(ms=now_ms() - 3 * DAY_MS, offer_id=18)
    scribe.convert(click, amount="10", conversion_unique_id="o1")
    await bench.drain()
    for amount, status in (("10", "reversed"), ("20", "approved")):
        line = f"o1,{click.hex()},{amount},{when(now_ms() - DAY_MS)},{status}"
        path = write(tmp_path / "report.csv", f"conversion_id,click_id,amount,date,status\n{line}")
        assert (await take_in(bench, path, update=True)).counts == {"changed": 1}
    assert await bench.rows("SELECT status, amount::int, payout::float FROM conversions") == [("approved", 20, 2.0)]
    assert (await take_in(bench, path, update=True)).counts == {"known": 1}
    assert await differences(bench.conn) == []


async def test_partners_do_not_hear_of_what_is_changed_where_nobody_is_to_be_told(
    embedded_bench: Bench, tmp_path: Path
) -> None:
    """Without postbacks neither a new row nor one that changes a known conversion is told to its partner."""
    bench = embedded_bench
    await bench.apply('[[partners]]\nid = 2\nname = "Deal Blog"\npostback_url = "https://p.example/?m={payout}"')
    scribe = bench.scribe(revision=2)
    clicks = [scribe.click(ms=now_ms() - 3 * DAY_MS + n) for n in range(2)]
    scribe.convert(clicks[0], status="pending")
    await bench.drain()
    lines = [
        f"{click.hex()},0,{when(now_ms() - DAY_MS)},{said}"
        for click, said in zip(clicks, ("approved", ""), strict=True)
    ]
    path = write(tmp_path / "report.csv", "\n".join(["click_id,amount,date,status", *lines]))
    assert (await take_in(bench, path, update=True, postbacks=False)).counts == {"changed": 1, "stored": 1}
    assert await bench.rows("SELECT status FROM conversions") == [("approved",)] * 2
    assert await bench.value("SELECT count(*) FROM postback_outbox") == 0
    assert await differences(bench.conn) == []


SHARES = """
[[offers]]
id = 18
advertiser_id = 1
name = "Every sale"
url = "https://shop.example.com/"
duplicates = "new"
payout_type = "cpa_percentage"
payout_percent = "10"
"""


async def test_a_run_broken_off_is_simply_run_again(embedded_bench: Bench, tmp_path: Path) -> None:
    """The connection lost in the middle, equal sales and all: the run is told as interrupted, the next brings the rest."""
    bench = embedded_bench
    await bench.apply(SHARES)
    scribe = bench.scribe(revision=2)
    clicks = [scribe.click(ms=now_ms() - DAY_MS + n, offer_id=18).hex() for n in range(600)]
    await bench.drain()
    at = when(now_ms() - 1000)
    path = write(
        tmp_path / "sales.csv", "\n".join(["click_id,amount,date", *(f"{one},5,{at}\n{one},5,{at}" for one in clicks)])
    )
    conn = await bench.connect()
    source = Source(path, path.name, tmp_path / "rejects.csv")

    def cut(report: Report) -> None:
        conn.terminate()

    with pytest.raises(Exception, match="closed"):
        await run_import(
            conn,
            make_settings(bench.data_dir, bench.url),
            source,
            Plan(kind="conversions", zone=ZoneInfo("UTC")),
            on_progress=cut,
        )
    [run] = await list_runs(bench.conn, 10)
    stored = await bench.value("SELECT count(*) FROM conversions")
    assert (run["rows_stored"], stored) == (500, 500)

    async def is_told() -> bool:
        return bool((await list_runs(bench.conn, 1))[0]["state"] == "interrupted")

    await eventually(is_told, 10.0)
    assert (await take_in(bench, path)).counts == {"known": 500, "stored": 700}
    assert (await take_in(bench, path)).counts == {"known": 1200}
    assert await bench.rows("SELECT DISTINCT count(*) FROM conversions GROUP BY click_id") == [(2,)]
    assert await differences(bench.conn) == []


async def test_dates_that_could_be_read_in_two_ways_stop_a_file_before_anything_is_stored(
    embedded_bench: Bench, tmp_path: Path
) -> None:
    """The message names the option; with it, or with one date that can be read in one way only, it goes in."""
    bench = embedded_bench
    for kind, head in (("costs", "date,amount,currency"), ("contacts", "signup_date,contact_id,x")):
        path = write(tmp_path / f"{kind}.csv", f"{head}\n01/02/2026,5,USD\n02/03/2026,6,USD\n")
        with pytest.raises(UserError, match="'01/02/2026' does: say --date-format"):
            await take_in(bench, path, kind)
        report = await take_in(bench, path, kind, date_format="%d/%m/%Y")
        assert report.counts.get("stored") == 2
    assert await bench.rows("SELECT day::text FROM costs ORDER BY day") == [("2026-02-01",), ("2026-03-02",)]
    assert await bench.value("SELECT count(*) FROM imports") == 2


async def test_costs_are_summed_by_key_and_said_again_replace_what_the_feed_said(
    embedded_bench: Bench, tmp_path: Path
) -> None:
    """Rows of one key add up; the same file changes nothing, a corrected one only its keys, another feed is beside it."""
    bench = embedded_bench
    head = "Day;Offer;Partner;Creative;List;Cost;Currency;Sent"
    lines = [
        "2026-11-01;17;2;5;news;1.234,50;EUR;1.000",
        "2026-11-01;17;2;5;news;0,50;EUR;500",
        "01.11.2026;Flat (17);;;;7;;",
    ]
    bad = [
        "2026-11-01;99;;;;7;USD;",
        "2026-11-01;;77;;;7;USD;",
        "2026-11-01;;;;;7;;",
        "x;17;;;;7;;",
        "2026-11-02;17;;;;;;",
    ]
    path = write(tmp_path / "mail-2026-11-01.csv", "\n".join([head, *lines, *bad]))
    assert (await take_in(bench, path, "costs", dry_run=True)).counts == {"stored": 2, "known": 0, "rejected": 5}
    assert await bench.value("SELECT count(*) FROM costs") == 0
    report = await take_in(bench, path, "costs")
    assert report.counts == {"stored": 2, "known": 0, "rejected": 5}
    assert [one["line"] for one in rejected(report)] == ["5", "6", "7", "8", "9"] or len(rejected(report)) == 5
    query = "SELECT day::text, offer_id, aff_id, creative_id, list, currency, amount::float, sends, feed FROM costs ORDER BY amount, feed"
    stored = [
        ("2026-11-01", 17, 0, 0, "", "USD", 7.0, 0, "mail"),
        ("2026-11-01", 17, 2, 5, "news", "EUR", 1235.0, 1500, "mail"),
    ]
    assert await bench.rows(query) == stored
    assert (await take_in(bench, path, "costs")).counts == {"stored": 0, "known": 2, "rejected": 5}
    mended = write(tmp_path / "mail-2026-11-02.csv", f"{head}\n2026-11-01;17;;;;8;;\n")
    assert (await take_in(bench, mended, "costs")).counts == {"stored": 1, "known": 0}
    assert (await take_in(bench, mended, "costs", feed="other")).counts == {"stored": 1, "known": 0}
    assert await bench.rows(query) == [(*stored[0][:6], 8.0, 0, feed) for feed in ("mail", "other")] + [stored[1]]


async def test_refused_costs_do_not_replace_what_was_stored_beside_them(embedded_bench: Bench, tmp_path: Path) -> None:
    """A file of rejects knows a part of a day's costs: it is not taken for all of them; the file itself, corrected, is."""
    bench = embedded_bench
    text = "Day,Offer,Cost\n2026-11-01,17,30\n2026-11-01,17,{}\n"
    path = write(tmp_path / "ads.csv", text.format('"1,234"'))
    report = await take_in(bench, path, "costs")
    assert report.counts == {"stored": 1, "known": 0, "rejected": 1}
    rejects = Path(report.rejects)
    write(rejects, rejects.read_text().replace("1,234", "1234"))
    with pytest.raises(UserError, match="correct them in the file that they are of"):
        await take_in(bench, rejects, "costs")
    assert await bench.value("SELECT sum(amount)::int FROM costs") == 30
    await take_in(bench, write(path, text.format(1234)), "costs")
    assert await bench.value("SELECT sum(amount)::int FROM costs") == 1264


async def test_contacts_are_added_completed_and_left_deleted(embedded_bench: Bench, tmp_path: Path) -> None:
    """List, sign-up and other columns; scripts are text; what is said again wins; a deleted contact stays as it is."""
    bench = embedded_bench
    script = "<script>alert(1)</script>"
    path = write(
        tmp_path / "people.csv",
        f"Email;contact_id;list;signup_date;City\na@x.y;7;news;2026-11-01;Köln\nb;8;;;{script}\n;;;;x\n",
        "latin-1",
    )
    assert (await take_in(bench, path, "contacts")).counts == {"stored": 2, "rejected": 1}
    rows = await bench.rows("SELECT contact_id, list, signed_up_at::date::text, extras FROM contacts ORDER BY 1")
    assert rows == [
        ("7", "news", "2026-11-01", {"Email": "a@x.y", "City": "Köln"}), ("8", "", None, {"Email": "b", "City": script}),
    ]  # fmt: skip
    assert (await take_in(bench, path, "contacts")).counts == {"known": 2, "rejected": 1}
    await bench.conn.execute("UPDATE contacts SET deleted_at = now(), extras = '{}' WHERE contact_id = '7'")
    more = write(tmp_path / "more.csv", "contact_id,list,City\n7,spring,Bonn\n8,spring,Bonn\n9,spring,Bonn\n")
    assert (await take_in(bench, more, "contacts")).counts == {"skipped": 1, "changed": 1, "stored": 1}
    assert await bench.rows("SELECT list, extras->>'City' FROM contacts ORDER BY contact_id") == [
        ("news", None), ("spring", "Bonn"), ("spring", "Bonn"),
    ]  # fmt: skip


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.faults
async def test_memory_does_not_grow_with_the_file(embedded_bench: Bench, tmp_path: Path) -> None:
    """Two hundred thousand rows of costs, packed: after the first batches the process grows by less than 16 MB."""
    path = tmp_path / "costs.csv.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("day,offer,partner,list,amount,currency,sends\n")
        for block in range(200):
            file.writelines(
                f"2026-11-{n % 28 + 1:02},17,2,list-{n % 50},0.01,USD,1\n" for n in range(block, block + 1000)
            )
    held: list[int] = []
    source = Source(path, path.name, tmp_path / "rejects.csv")
    plan = Plan(kind="costs", zone=ZoneInfo("UTC"))
    settings = make_settings(embedded_bench.data_dir, embedded_bench.url)
    conn = await embedded_bench.connect()
    await run_import(conn, settings, source, plan, on_progress=lambda report: held.append(resident_bytes()))
    assert len(held) > 300
    assert max(held) - held[5] < 16 * 2**20
    assert await embedded_bench.rows("SELECT sum(amount)::int, sum(sends)::int FROM costs") == [(2000, 200_000)]
