"""Offers, partners and advertisers edited in the console: reviewed, stored, refused, and never undone by accident."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.admin.catalog_apply import apply_text
from edge.tracking.catalog_document import Advertiser, Offer, Partner, decode_item
from storage.postgres.connection import connect
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.postgres.consoles import Client, Filled, fill, log_in, open_console, read, send, token_of, value_of

SECRET_TOKEN = "s3cret-of-outletforce"
GOALS = """
[[offers]]
id = 27
advertiser_id = 1
name = "Own terms"
url = "https://shop.example.com/"
payout = "9.99"
goals = [
    { id = 1, name = "lead", payout = "1.00" },
    { id = 2, name = "sale", payout_type = "cpa_percentage", payout_percent = "8" },
    { id = 3, name = "call" },
]
overrides = [{ aff_id = 2, payout = "6.00" }, { aff_id = 2, goal_id = 1, payout = "1.20" }]
"""


@pytest.fixture(scope="module")
def template(embedded_server: Server) -> Iterator[str]:
    """A filled database that each test gets a copy of."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        fill(url)
        yield url.rpartition("@/")[2].partition("?")[0]


@pytest.fixture
def filled(embedded_server: Server, template: str) -> Iterator[Filled]:
    """A database of one's own."""
    for url in _fresh_database(embedded_server, template):
        yield Filled(url)


async def stored(filled: Filled, kind: str, item_id: int) -> Offer | Partner | Advertiser | None:
    """The item in force."""
    conn = await connect(filled.url)
    query = "SELECT body FROM catalog_items WHERE kind = $1 AND id = $2 AND revision_to IS NULL"
    body = await conn.fetchval(query, kind, str(item_id))
    await conn.close()
    return decode_item(kind, body) if body else None  # type: ignore[return-value]


def fields_of(page: str) -> dict[str, str]:
    """The fields of the page's main form as a browser would send them."""
    form = page.partition('<form class="card"')[2].partition("</form>")[0] or page.partition("<main")[2]
    found = dict.fromkeys(re.findall(r'<input type="checkbox"[^>]* name="(\w+)" checked', form), "on")
    for tag in re.findall(r"<input (?!type=\"checkbox\")[^>]*>", form):
        name, value = re.search(r'name="(\w+)"', tag), re.search(r'value="([^"]*)"', tag)
        if name:
            found[name[1]] = html.unescape(value[1]) if value else ""
    for name, options in re.findall(r'<select id="\w+" name="(\w+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'<option(?: value="([^"]*)")? selected>([^<]*)', options)
        found[name] = html.unescape(chosen[1] or chosen[2]) if chosen else ""
    for name, text in re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        found[name] = html.unescape(text)
    return found


async def edit(client: Client, path: str, **changes: str) -> str:
    """The review of a form that was changed so."""
    fields = fields_of(await read(client, f"{path}/edit")) | changes
    return await send(client, f"{path}/review", fields)


async def store(client: Client, path: str, review: str) -> str:
    """Where storing what was reviewed leads."""
    return await send(client, path, fields_of(review), 303)


async def test_a_form_that_nobody_touched_changes_nothing(filled: Filled, data_dir: Path) -> None:
    """What a page shows and sends back is what is stored, for each table, as form and as text."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        for path in ("/offers/17", "/offers/18", "/partners/2", "/partners/3", "/advertisers/1"):
            assert "Nothing changes" in await edit(client, path), path
            text = fields_of(await read(client, f"{path}/edit?as=text"))
            assert "Nothing changes" in await send(client, f"{path}/review", text), path


async def test_a_change_is_shown_before_it_is_stored(filled: Filled, data_dir: Path) -> None:
    """The review stores nothing; storing makes a revision in the name of the key and keeps what the form does not show."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        before = await stored(filled, "offers", 17)
        review = await edit(client, "/offers/17", name="New <i>name</i>", payout="5.25", click_window="7d")
        assert "offers[17].payout: 5.00 -&gt; 5.25" in review
        assert "New &lt;i&gt;name&lt;/i&gt;" in review
        assert await stored(filled, "offers", 17) == before
        assert await store(client, "/offers/17", review) == "/offers/17?stored=2"
        after = await stored(filled, "offers", 17)
        assert isinstance(before, Offer)
        assert isinstance(after, Offer)
        assert (after.name, str(after.payout), after.click_window_s) == ("New <i>name</i>", "5.25", 7 * 86_400)
        assert (after.goals, after.overrides) == (before.goals, before.overrides)
        assert "Stored as catalog revision 2" in await read(client, "/offers/17?stored=2")
        assert await value_of(filled.url, "SELECT actor FROM catalog_revisions WHERE revision = 2") == "key of admin"


async def test_faults_stand_at_their_fields_and_what_was_written_stays(filled: Filled, data_dir: Path) -> None:
    """All of them at once, in the words of the catalog file; nothing is stored."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        fields = fields_of(await read(client, "/offers/17/edit"))
        wrong = {"payout": "five", "currency": "dollars", "url": "ftp://x", "name": ""}
        page = await send(client, "/offers/17/review", fields | wrong, 422)
        for field in wrong:
            assert re.search(rf'id="{field}"[^>]*aria-invalid="true"', page), field
            assert f"<code>{field}</code>" in page
        assert 'value="five"' in page
        page = await send(client, "/offers/17/review", {"etag": fields["etag"], "text": "id = 17\nname = oops"}, 422)
        assert "line 2" in page
        assert "name = oops" in page
        assert isinstance(await stored(filled, "offers", 17), Offer)
        assert "five" not in await read(client, "/offers/17")


async def test_two_people_do_not_undo_each_other(filled: Filled, data_dir: Path) -> None:
    """Whoever comes second is shown what the first did, and may store on top of it; another item's change is no matter."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        mine = await edit(client, "/offers/17", name="Mine")
        await store(client, "/offers/18", await edit(client, "/offers/18", status="active"))
        await store(client, "/offers/17", await edit(client, "/offers/17", payout="9.99"))
        page = await send(client, "/offers/17", fields_of(mine), 409)
        assert "Somebody else changed this offer" in page
        assert "offers[17].payout: 5.00 -&gt; 9.99" in page
        review = await send(client, "/offers/17/review", fields_of(page))
        assert "offers[17].payout: 9.99 -&gt; 5.00" in review
        await store(client, "/offers/17", review)
        offer = await stored(filled, "offers", 17)
        assert isinstance(offer, Offer)
        assert (offer.name, str(offer.payout)) == ("Mine", "5.00")


async def test_secrets_are_never_shown_and_stay_unless_they_are_written(filled: Filled, data_dir: Path) -> None:
    """Not in a page, a form, a text or a review; an empty field keeps one, the box removes it."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        for path in ("/advertisers", "/advertisers/1", "/advertisers/1/edit", "/advertisers/1/edit?as=text", "/links?offer_id=17"):
            assert SECRET_TOKEN not in await read(client, path)
        review = await edit(client, "/advertisers/1", name="Renamed")
        assert SECRET_TOKEN not in review
        await store(client, "/advertisers/1", review)
        item = await stored(filled, "advertisers", 1)
        assert isinstance(item, Advertiser)
        assert (item.name, item.security_token) == ("Renamed", SECRET_TOKEN)
        review = await edit(client, "/advertisers/1", security_token="another-s3cret")
        assert "advertisers[1].security_token: changed" in review
        await store(client, "/advertisers/1", review)
        await store(client, "/advertisers/1", await edit(client, "/advertisers/1", security_token_clear="on"))
        item = await stored(filled, "advertisers", 1)
        assert isinstance(item, Advertiser)
        assert item.security_token == ""


async def test_a_new_item_takes_the_next_id(filled: Filled, data_dir: Path) -> None:
    """Or the one that is asked for, if nobody has it."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        blank = fields_of(await read(client, "/partners/new"))
        review = await send(client, "/partners/new/review", blank | {"name": "Third"})
        assert await store(client, "/partners/new", review) == "/partners/4?stored=2"
        taken = await send(client, "/partners/new/review", blank | {"name": "Fourth", "id": "2"}, 409)
        assert "is there already" in taken
        offer = fields_of(await read(client, "/offers/new"))
        wanted = {"name": "New", "url": "https://shop.example.com/new", "advertiser_id": "2", "id": "40", "payout": "1"}
        assert await store(client, "/offers/new", await send(client, "/offers/new/review", offer | wanted)) == "/offers/40?stored=3"
        await read(client, "/offers/40")


async def test_editing_further_keeps_what_was_written(filled: Filled, data_dir: Path) -> None:
    """Back from the review the form has the new values; from the text, the text."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        review = await edit(client, "/offers/17", name="Not yet stored")
        again = await send(client, "/offers/17/edit", fields_of(review))
        assert 'value="Not yet stored"' in again
        assert fields_of(again)["etag"] == fields_of(review)["etag"]
        text = fields_of(await read(client, "/offers/17/edit?as=text"))
        text["text"] = text["text"].replace("tiers = []", 'tiers = [{ from_conversions = 10, payout = "6.00" }]')
        review = await send(client, "/offers/17/review", text)
        again = await send(client, "/offers/17/edit", fields_of(review))
        assert "from_conversions = 10" in fields_of(again)["text"]


async def test_an_item_that_others_name_is_not_archived(filled: Filled, data_dir: Path) -> None:
    """It is said who names it; one that nobody names goes after a question."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        assert "offers[17].advertiser_id" in await read(client, "/advertisers/1/archive", 409)
        assert "leaves the catalog" in await read(client, "/offers/18/archive")
        assert await send(client, "/offers/18/archive", {}, 303) == "/offers"
        assert await stored(filled, "offers", 18) is None
        await read(client, "/offers/18", 404)


async def test_lists_are_searched_by_name_and_id_and_come_in_pages(
    filled: Filled, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that finds nothing says so; htmx gets the rows alone; names with markup are text."""
    monkeypatch.setattr("edge.admin.console.catalog_list.PAGE_ROWS", 1)
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        first = await read(client, "/partners")
        assert "Deal Blog" in first
        assert "Coupon" not in first
        found = re.search(r'href="(/partners\?[^"]*after=2)"', first)
        assert found
        second = await read(client, html.unescape(found[1]))
        assert "Coupon &lt;b&gt;Corner&lt;/b&gt;" in second
        assert "Coupon <b>" not in second
        for query, name in (("q=coup", "Coupon"), ("q=2", "Deal Blog"), ("status=blocked", "Coupon")):
            assert name in await read(client, f"/partners?{query}")
        rows = await (await client.get("/partners?q=%3Cscript%3E", headers={"HX-Request": "true"})).text()
        assert "Nothing found" in rows
        assert "<html" not in rows


async def test_forms_of_any_shape_are_answered_in_words(filled: Filled, data_dir: Path) -> None:
    """Missing, doubled or nonsensical fields, deep and long texts: a fault or a review, never a failure of ours."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        forms: list[dict[str, str]] = [
            {},
            {"text": ""},
            {"text": "[" * 5000},
            {"text": "a" * 600_000},
            {"text": "id = 18", "etag": '"x"'},
            {"text": "\x00 = 1"},
            {"id": "9" * 30, "name": "\x00", "payout": "1e400"},
        ]
        for path in ("/offers/17/review", "/offers/new/review", "/advertisers/1/review"):
            for form in forms:
                await read_any(client, path, form)
        assert (await client.post("/offers/17", data={"csrf": "x"}, allow_redirects=False)).status == 403


async def read_any(client: Client, path: str, form: dict[str, str]) -> None:
    """Any answer but a failure of ours."""
    answer = await client.post(path, data={"csrf": await token_of(client), **form}, allow_redirects=False)
    assert answer.status in (200, 409, 413, 422), (path, form, await answer.text())


async def test_a_partner_reads_what_it_earns_by_each_goal(filled: Filled, data_dir: Path) -> None:
    """Its own terms, of the goal or of the whole offer, in the place of everybody's; a share of the amount too."""
    conn = await connect(filled.url)
    await apply_text(conn, GOALS, "goals.toml")
    await conn.close()
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "partner")
        assert goals_of(await read(client, "/offers/27")) == [
            "1 lead 1.20 USD cpa_flat", "2 sale 8.00 % of the amount cpa_percentage", "3 call 6.00 USD cpa_flat",
        ]  # fmt: skip
        assert "9.99" not in await read(client, "/offers/27")
        await log_in(client, "admin")
        lead, sale, call = goals_of(await read(client, "/offers/27"))
        assert lead.startswith("1 lead 1.00 USD cpa_flat")
        assert sale.startswith("2 sale 8.00 % of the amount cpa_percentage")
        assert call.startswith("3 call 9.99 USD cpa_flat")


def goals_of(page: str) -> list[str]:
    """The lines of the table of goals."""
    table = page.partition('aria-label="Goals, table"')[2].partition("</table>")[0].partition("<tbody>")[2]
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)]
