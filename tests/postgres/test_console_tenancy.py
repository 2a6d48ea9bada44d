"""Every page of the console with every scope: what no answer holds, whatever is in the address.

A new page is walked over by itself; one with a new name in its path fails here until NAMES says what to put there.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge.admin.console import PAGES
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.postgres.consoles import Client, open_console
from tests.postgres.tenants import FORBIDDEN, KEYS, Tenants, month, settle

QUERIES = (
    "", "q=e", "offer=18", "partner=3", "offer=17&partner=2", "advertiser=2", "aff_id=3&offer_id=18", "aff_id=3&offer_id=17",
    "part=live", "part=top", "part=figures", "step=day", "show=failed", "status=active", "status=approved", "as=text", "before=99999",
    "dimensions=partner,contact,aff_sub1&metrics=conversions,payout", "dimensions=advertiser,offer&metrics=revenue,profit,cost",
    "dimensions=extra.shop_margin,extra.own_word,list", f"month={month()}", "metric=revenue", "metric=payout", "id=17",
    "contact=contact-of-three", "compare=previous", "tab=contacts", "kind=clicks", "sort=-revenue", "cursor=bm9uc2Vuc2U", "limit=1000",
)  # fmt: skip
"""What each page is asked with, whether it knows it or not."""


@pytest.fixture(scope="module")
def tenants(embedded_server: Server, short_directory: Path) -> Iterator[Tenants]:
    """One database for all tests of this file: nothing here changes it."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        yield asyncio.run(settle(short_directory / "tenants-of-pages", url))


@pytest.fixture
async def client(tenants: Tenants, data_dir: Path) -> AsyncIterator[Client]:
    """The console on it."""
    async with open_console(tenants.url, data_dir) as client:
        yield client


def names(tenants: Tenants) -> dict[str, tuple[str, ...]]:
    """What stands for each name of a path."""
    ids = ("1", "2", "3", "17", "18", *tenants.mine, *tenants.theirs)
    return {
        "id": ids, "conversion_id": ids, "contact_id": ("contact-of-two", "contact-of-three"), "kind": ("clicks", "conversions"),
        "party": ("partner", "advertiser"), "month": (month(),), "what": ("clicks", "conversions", "reports"), "import_id": ("1",),
        "key_id": ("1", "2"), "draft": ("0" * 32,), "table": ("clicks", "conversions"), "name": ("clicks", "conversions"), "party_id": ("1", "2", "3"),
    }  # fmt: skip


def paths(tenants: Tenants) -> Iterator[str]:
    """The address of each page that is read, with each id."""
    known = names(tenants)
    for page in PAGES:
        for route in page.routes:
            if route.method == "GET":
                found = [re.sub(r"\{(\w+)(:[^/]*\}?)?\}(?=/|$|\.)", r"{\1}", route.path)]
                for name in dict.fromkeys(re.findall(r"\{(\w+)\}", found[0])):
                    found = [path.replace(f"{{{name}}}", value) for path in found for value in known[name]]
                yield from found


async def enter(client: Client, scope: str) -> None:
    """Log in with that key."""
    client.session.cookie_jar.clear()
    assert (await client.post("/login", data={"key": scope}, allow_redirects=False)).status == 303


@pytest.mark.parametrize("scope", ["partner", "advertiser", "reports"])
async def test_no_page_shows_what_is_not_for_that_scope(client: Client, tenants: Tenants, scope: str) -> None:
    """By no id and no parameter, as a page and as a part of one, and never a 5xx."""
    await enter(client, scope)
    leaks, count = [], 0
    for path in dict.fromkeys(paths(tenants)):
        for query in QUERIES if path.count("/") == 1 else QUERIES[:1]:
            for headers in ({}, {"HX-Request": "true"}):
                async with client.get(f"{path}?{query}", headers=headers, allow_redirects=False) as answer:
                    text = (await answer.read()).decode("utf-8", "replace") + str(answer.headers)
                    count += answer.status == 200
                    asked = [word for word in FORBIDDEN[scope] if word in path + query]
                    said = [word for word in FORBIDDEN[scope] if _plain(word) in text and word not in asked]
                    if said or answer.status >= 500:
                        leaks.append(f"{answer.status} {path}?{query}: {', '.join(said)}")
    assert not leaks, "\n".join(leaks[:60]) + f"\n{len(leaks)} in all"
    assert count > 20


def _plain(word: str) -> str:
    """Money as pages write it."""
    return f"{float(word):,.2f}" if re.fullmatch(r"\d{4}\.\d\d", word) else word


async def test_an_admin_sees_all_of_it(client: Client, tenants: Tenants) -> None:
    """Else the search for words would prove nothing."""
    await enter(client, "admin")
    everything = ""
    for path in ("/clicks/" + tenants.mine[0], "/clicks/" + tenants.theirs[0], "/offers/17", "/partners/3", "/"):
        everything += await (await client.get(path)).text()
    wanted = {*FORBIDDEN["partner"], *FORBIDDEN["advertiser"]} - {*FORBIDDEN["admin"]}
    missing = sorted(word for word in wanted if _plain(word) not in everything)
    assert len(missing) < len(wanted) / 3, missing


def test_the_keys_are_one_of_each_scope() -> None:
    """The walk is over all there are."""
    assert set(KEYS) == {"admin", "reports", "advertiser", "partner"}
