"""People at the console of a node of their own, and what they find there."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page

from tests.browser.conftest import Site
from tests.node import Node, end, free_port
from tests.postgres.api import add_key

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>"
PARTNER_KEY, REPORTS_KEY = "ce_partner-2-of-the-tests", "ce_reports-of-the-tests"
AGENT = {"User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36"}
# What the browser tells developers; everything else in its console is a fault.
HARMLESS = ("Failed to load resource",)


@contextmanager
def open_site(directory: Path, catalog: str, fill: Callable[[Site], Coroutine[Any, Any, None]]) -> Iterator[Site]:
    """A node with this catalog (`{port}`: of the advertiser's pages), filled. Its data dir: in `directory`."""
    port = free_port()
    path = directory.with_suffix(".toml")
    path.write_text(catalog.replace("{port}", str(port)))
    node = Node(directory, catalog=path, env={"EDGE_BATCH_INTERVAL_MS": "20"})
    with asyncio.Runner() as runner:
        try:
            site = Site(runner.run(node.start()), port)
            runner.run(fill(site))
            yield site
        finally:
            runner.run(end(node))


async def click(site: Site, queries: Iterable[str]) -> list[str]:
    """The ids of these clicks, in order; "" where the offer's URL does not carry it."""
    ids = []
    async with aiohttp.ClientSession(headers=AGENT) as session:
        for query in queries:
            async with session.get(f"{site.edge}/aff_c?{query}", allow_redirects=False) as answer:
                found = re.search("transaction_id=([0-9a-f]{32})", answer.headers["Location"])
            ids.append(found[1] if found else "")
    await site.row(f"SELECT 1 FROM clicks HAVING count(*) = {len(ids)}")
    return ids


async def convert(site: Site, queries: Sequence[str]) -> None:
    """The advertiser's postbacks; each begins with a click's id."""
    async with aiohttp.ClientSession() as session:
        for query in queries:
            await (await session.get(f"{site.edge}/aff_lsr?transaction_id={query}")).read()
    await site.row(f"SELECT 1 FROM conversions HAVING count(*) = {len(queries)}")


async def fill(site: Site) -> None:
    """Three clicks, one of them converted, and keys of two more people."""
    queries = ("offer_id=17&aff_id=2", "offer_id=17&aff_id=3", "offer_id=18&aff_id=2")
    ids = await click(site, [f"{query}&aff_sub={HOSTILE}" for query in queries])
    await convert(site, [f"{ids[0]}&amount=49.90"])
    await add_key(site.node.database_url, PARTNER_KEY, "partner", aff_id=2)
    await add_key(site.node.database_url, REPORTS_KEY, "reports")


@asynccontextmanager
async def person(site: Site, browser: Browser, key: str = "", *, phone: bool = False) -> AsyncIterator[Page]:
    """Somebody at the console, logged in if there is a key; an error or a broken policy in their browser fails the test."""
    size = {"width": 390, "height": 844} if phone else {"width": 1440, "height": 900}
    context = await browser.new_context(viewport=size, base_url=site.node.admin)  # type: ignore[arg-type]
    page = await context.new_page()
    wrong: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(HARMLESS):
            wrong.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    if key:
        await log_in(page, key)
    yield page
    await context.close()
    assert wrong == []


def admin_key(site: Site) -> str:
    """The key that the node made for its owner."""
    return (site.node.data_dir / "admin.token").read_text().strip()


async def log_in(page: Page, key: str, path: str = "/login") -> None:
    """Type the key and press Enter."""
    await page.goto(path)
    await page.get_by_label("API key").fill(key)
    await page.keyboard.press("Enter")
    await page.wait_for_url(lambda url: "/login" not in url)


async def click_id_of(site: Site, aff_id: int) -> str:
    """A click of that partner."""
    row = await site.row("SELECT click_id FROM clicks WHERE aff_id = $1 ORDER BY click_id LIMIT 1", aff_id)
    return str(row["click_id"].hex)


async def faults_of(page: Page, path: str, scheme: str) -> list[str]:
    """What axe says, a line a place."""
    # Structure is the same in the dark: only colours are looked at again there.
    wanted = {"resultTypes": ["violations"], **({"runOnly": ["color-contrast"]} if scheme == "dark" else {})}
    found = await Axe().run(page, options=wanted)
    return [
        f"{path}: {one['id']}: {place['html'][:160]} {place['failureSummary'][:200]}"
        for one in found.response["violations"]
        for place in one["nodes"]
    ]
