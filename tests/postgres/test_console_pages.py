"""What the console's pages say: figures, links, postbacks, health."""

import asyncio
import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from edge.admin.console.overview import _added
from storage.postgres.overview import COUNTS, SUMS
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.postgres.consoles import Filled, add_hour, fill, log_in, open_console, read, send, value_of


@pytest.fixture(scope="module")
def filled(embedded_server: Server) -> Iterator[Filled]:
    """One database for all tests of this file."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        filled = fill(url)
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        clicks = {"gross_clicks": 220, "invalid_clicks": 20, "unique_clicks": 150}
        money = {"conversions": 8, "revenue": Decimal("60.5"), "payout": Decimal(40)}
        asyncio.run(add_hour(url, hour, **clicks, **money))
        euro = {"offer_id": 18, "aff_id": 3, "advertiser_id": 2, "currency": "EUR"}
        asyncio.run(add_hour(url, hour, **euro, gross_clicks=100, conversions=1, revenue=Decimal(9), payout=Decimal(4)))
        yield filled


def cards(page: str) -> dict[str, str]:
    """The key figures by label and unit."""
    found = re.findall(r'class="label"[^>]*>([^<]+)</span>\s*<b>(.*?)</b>', page, re.DOTALL)
    values = [(label, " ".join(re.sub("<[^>]+>", " ", value).split())) for label, value in found]
    return {f"{label} {value[-3:] if value[-1].isalpha() else ''}".strip(): value for label, value in values}


async def test_key_figures_come_from_sums_and_currencies_stay_apart(filled: Filled, data_dir: Path) -> None:
    """Clicks without the invalid ones, ratios of sums, EPC by what each earns, no sum of dollars and euros."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "reports")
        found = cards(await read(client, "/?part=figures"))
        assert (found["Clicks"], found["Conversions"], found["CR"]) == ("300", "9", "3.00 %")
        assert (found["Revenue USD"], found["Profit USD"], found["EPC USD"]) == ("60.50 USD", "20.50 USD", "0.3025 USD")
        assert (found["Revenue EUR"], found["Payout EUR"], found["EPC EUR"]) == ("9.00 EUR", "4.00 EUR", "0.09 EUR")
        await log_in(client, "partner")
        found = cards(await read(client, "/?part=figures"))
        assert (found["Clicks"], found["Earnings USD"], found["EPC USD"]) == ("200", "40.00 USD", "0.20 USD")
        assert not [label for label in found if "EUR" in label or "Revenue" in label or "Profit" in label]
        await log_in(client, "advertiser")
        found = cards(await read(client, "/?part=figures"))
        assert (found["Revenue USD"], found["EPC USD"]) == ("60.50 USD", "0.3025 USD")
        assert not [label for label in found if "EUR" in label or "Payout" in label or "Profit" in label]


@pytest.mark.parametrize(("step", "count"), [("hour", 24), ("day", 14)])
async def test_the_chart_has_every_step_also_the_empty_ones(filled: Filled, data_dir: Path, step: str, count: int) -> None:
    """The last one is the running one; others' clicks are not in a partner's."""
    async with open_console(filled.url, data_dir) as client:
        for scope, clicks in (("admin", 300), ("partner", 200)):
            await log_in(client, scope)
            answer = await (await client.get(f"/overview/chart.json?step={step}")).json()
            assert len(answer["at"]) == len(answer["labels"]) == count
            assert answer["clicks"] == [0] * (count - 1) + [clicks]


async def test_the_chart_by_hours_is_filled_in_every_zone(filled: Filled, data_dir: Path) -> None:
    """The roll-ups' hours are those of UTC: where the zone is half an hour off, they begin at half past."""
    async with open_console(filled.url, data_dir, timezone="Asia/Kolkata") as client:
        await log_in(client, "admin")
        answer = await (await client.get("/overview/chart.json?step=hour")).json()
        assert answer["clicks"] == [0] * 23 + [300]
        assert {label[-2:] for label in answer["labels"]} == {"30"}


def test_of_the_running_hour_yesterday_counts_in_proportion() -> None:
    """Counts in whole numbers, money exactly, a currency that was only in that hour too."""
    whole = [_sums("USD", gross_clicks=100, revenue=Decimal(10))]
    running = [_sums("USD", gross_clicks=11, revenue=Decimal(3)), _sums("EUR", conversions=4)]
    added = {row["currency"]: row for row in _added(whole, running, Decimal("0.5"))}
    assert (added["USD"]["gross_clicks"], added["USD"]["revenue"]) == (105, Decimal("11.5"))
    assert added["EUR"]["conversions"] == 2


def _sums(currency: str, **values: Any) -> dict[str, Any]:
    return {**dict.fromkeys(COUNTS, 0), **dict.fromkeys(SUMS, Decimal(0)), "currency": currency, **values}


async def test_a_link_carries_its_parameters_encoded(filled: Filled, data_dir: Path) -> None:
    """Also what would break out of it; a partner's links are its own whatever is asked."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        query = "offer_id=17&aff_id=2&aff_sub=a%26b%3D%22%3Cb%3E&utm_source=news&origin=https://track.example/"
        page = await read(client, f"/links?{query}")
        wanted = "https://track.example/aff_c?offer_id=17&aff_id=2&aff_sub=a%26b%3D%22%3Cb%3E&utm_source=news"
        assert f'<code id="link">{html.escape(wanted)}</code>' in page
        assert "<svg" in page.partition('class="qr"')[2]
        assert "https://track.example/aff_lsr?transaction_id=CLICK_ID&amp;amount=TOTAL" in page
        assert "security_token=TOKEN" in page
        picture = await client.get(f"/links/qr.svg?{query}")
        assert (picture.content_type, picture.headers["Content-Disposition"][:10]) == ("image/svg+xml", "attachment")
        assert (await client.get("/links/qr.svg?offer_id=17")).status == 422
        for origin in ("javascript:alert(1)", "https://", "ftp://x", "https://a b"):
            page = await read(client, f"/links?offer_id=17&aff_id=2&origin={origin}")
            assert "the tracking domain" in page
            assert 'id="link"' not in page
        await log_in(client, "partner")
        assert "aff_id=2" in await read(client, "/links?offer_id=18&aff_id=3")


async def test_a_link_too_long_for_a_picture_is_still_a_link(filled: Filled, data_dir: Path) -> None:
    """A QR code holds so much and no more."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        long = "&".join(f"{name}={'%C3%BC' * 150}" for name in ("source", "aff_sub", "aff_sub2", "aff_sub3"))
        page = await read(client, f"/links?offer_id=17&aff_id=2&{long}")
        assert 'id="link"' in page
        assert "too long for a QR code" in page


async def test_a_postback_that_was_given_up_is_told_again(filled: Filled, data_dir: Path) -> None:
    """By who may change things; the log is a partner's own for a partner."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "partner")
        page = await read(client, "/postbacks")
        assert "Deal Blog" in page
        assert page.count("partner.example") == 1
        await log_in(client, "reports")
        page = await read(client, "/postbacks?show=failed")
        assert page.count("given up,") == 2
        assert "Tell again" not in page
        await send(client, "/postbacks/replay", {"conversion_id": "x"}, 403)
        await log_in(client, "admin")
        conversion_id = await value_of(filled.url, "SELECT conversion_id FROM conversions WHERE aff_id = 2")
        assert await send(client, "/postbacks/replay", {"conversion_id": str(conversion_id)}, 303) == "/postbacks?queued=1"
        assert await value_of(filled.url, "SELECT actor FROM postback_outbox WHERE state = 'pending'") == "replay by key of admin"
        await send(client, "/postbacks/replay", {"conversion_id": "nonsense"}, 422)


async def test_a_postback_is_tried_without_recording_it(filled: Filled, data_dir: Path) -> None:
    """An advertiser's is judged; a partner's address that nobody may reach is refused; faults are said at the field."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        before = await value_of(filled.url, "SELECT count(*) FROM conversions")
        page = await send(client, "/postbacks/test", {"url": f"/aff_lsr?transaction_id={filled.ids[2].hex}&amount=10"})
        assert "bad_token" in page
        assert "nothing was recorded" in page
        page = await send(client, "/postbacks/test", {"url": "http://127.0.0.1:9/pb?cid={aff_click_id}"})
        assert "cid=sample-click" in page
        assert "failed" in page
        for fields in ({"url": ""}, {"url": "no address"}, {"url": "/aff_lsr?a=b", "from_ip": "here"}, {"url": "x{"}):
            assert 'role="alert"' in await send(client, "/postbacks/test", fields, 422)
        assert await value_of(filled.url, "SELECT count(*) FROM conversions") == before


async def test_a_story_is_told_in_order(filled: Filled, data_dir: Path) -> None:
    """Click, conversion, postback; with dashes and in capitals it is the same; an id of nothing says so."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        page = await read(client, f"/clicks/{str(filled.ids[3]).upper()}")
        titles = re.findall(r"<h3>([^<]+)<", page)
        assert [title.strip() for title in titles] == ["Click", "Conversion", "Postback to partner 3: approved"]
        assert "203.0.113.77" in page
        assert "after the click" in page
        answer = await client.get("/clicks?id=a%2Fb%20%3Cb%3E", allow_redirects=False)
        assert answer.headers["Location"] == "/clicks/a%2Fb%20%3Cb%3E"
        for wanted in ("nonsense", "a%2Fb%20%3Cb%3E", "%00", "0" * 32, "x" * 5000):
            assert "Nothing has been received" in await read(client, f"/clicks/{wanted}")


async def test_lists_take_any_query(filled: Filled, data_dir: Path) -> None:
    """Nonsense in a filter finds nothing or everything, and fails nowhere."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        for value in ("", "'; DROP TABLE clicks", "%00", "9" * 40, "-1", "\u0661", "<script>"):
            for path in ("/clicks?offer=", "/clicks?partner=", "/offers?q=", "/offers?after=", "/postbacks?before=", "/?step="):
                assert "DROP TABLE clicks</" not in await read(client, path + value)


async def test_health_names_what_is_down(filled: Filled, data_dir: Path) -> None:
    """And is calm while everything runs."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "reports")
        assert "all up" in await read(client, "/health")
    async with open_console(filled.url, data_dir, is_up=False) as client:
        await log_in(client, "reports")
        page = await read(client, "/health")
        assert "2 down" in page
        assert "worker 0, drain 0" in page


async def test_what_the_catalog_does_not_know_is_no_link(filled: Filled, data_dir: Path) -> None:
    """A click with a mistyped offer and partner: their ids are shown, and lead to no page that is not there."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    await add_hour(filled.url, hour, offer_id=9999, aff_id=777, advertiser_id=0, gross_clicks=500)
    for table in ("clicks", "conversions"):
        query = f"WITH moved AS (UPDATE {table} SET offer_id = 9999, aff_id = 777 WHERE aff_id = 3 RETURNING 1) SELECT 1 FROM moved"
        assert await value_of(filled.url, query)
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        for path in ("/", f"/clicks/{filled.ids[3].hex}", f"/conversions/{filled.conversions[3].hex}"):
            page = await read(client, path)
            assert "offer 9999" in page, path
            assert "partner 777" in page, path
            assert 'href="/offers/9999"' not in page, path
            assert 'href="/partners/777"' not in page, path
