"""A real browser, advertisers' pages on a server of their own, and a real node behind them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright

from tests.conftest import CHROMIUM
from tests.node import Node, end, eventually, free_port

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TLS = Path(__file__).parent.parent / "wire" / "tls"
CATALOG = """
[[advertisers]]
id = 1
name = "Shop"
[[partners]]
id = 2
name = "Deal Blog"
[[partners]]
id = 3
name = "Coupon Corner"
[[offers]]
id = 17
advertiser_id = 1
name = "Holiday decor"
url = "http://localhost:{port}/landing?transaction_id={transaction_id}"
payout = "5.00"
[[offers.goals]]
id = 1
name = "lead"
payout = "1.00"
[[offers]]
id = 18
advertiser_id = 1
name = "Without an id in the URL"
url = "http://localhost:{port}/plain"
payout = "2.00"
[[offers]]
id = 19
advertiser_id = 1
name = "Without cookies"
url = "http://localhost:{port}/landing?transaction_id={transaction_id}"
payout = "3.00"
cookies = false
"""


class Site:
    """A node, and the port where the advertiser's pages are."""

    def __init__(self, node: Node, port: int) -> None:
        self.node = node
        self.port = port
        self.edge = node.origin
        self.home = f"http://localhost:{port}"
        """Another site than the edge's 127.0.0.1, as browsers see it."""

    async def row(self, query: str, *arguments: Any) -> Any:
        """The first row of a query, as soon as there is one."""
        found: list[Any] = []

        async def is_there() -> bool:
            found[:] = await self.node.fetch(query, *arguments)
            return bool(found)

        await eventually(is_there, 20.0, self.node.describe)
        return found[0]


@pytest.fixture(scope="module")
def site(short_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One node for all tests of a file; each test is another visitor."""
    port = free_port()
    catalog = tmp_path_factory.mktemp("browser") / "catalog.toml"
    catalog.write_text(CATALOG.replace("{port}", str(port)))
    env = {"EDGE_TRUSTED_PROXIES": "127.0.0.1/32", "EDGE_BATCH_INTERVAL_MS": "20"}
    node = Node(short_directory / "browser", catalog=catalog, env=env)
    with asyncio.Runner() as runner:
        try:
            yield Site(runner.run(node.start()), port)
        finally:
            runner.run(end(node))


class Pages:
    """The advertiser's server: `/landing` and `/plain` have the script, `html` whatever a test puts there."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.attributes = 'data-offer-id="17"'
        self.html: dict[str, str] = {}

    def script(self, attributes: str | None = None, edge: str = "") -> str:
        """The tag that an advertiser puts on a page."""
        return f'<script src="{edge or self.site.edge}/edge.js" {attributes or self.attributes}></script>'

    async def answer(self, request: web.Request) -> web.Response:
        body = self.html.get(request.path, f"<h1>Holiday decor</h1>{self.script()}")
        return web.Response(text=f"<!doctype html><title>Shop</title>{body}", content_type="text/html")


@asynccontextmanager
async def serving(handler: Any, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """Every path of 127.0.0.1 at `port` answered by `handler`."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
async def pages(site: Site) -> AsyncIterator[Pages]:
    """The advertiser's pages."""
    pages = Pages(site)
    async with serving(pages.answer, site.port):
        yield pages


@pytest.fixture
async def secure_edge(site: Site) -> AsyncIterator[str]:
    """The edge's origin behind a proxy that ends TLS, as in production: third-party cookies need it."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    port = free_port()

    async def forward(request: web.BaseRequest) -> web.Response:
        headers = {**request.headers, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(site.edge + request.path_qs, headers=headers, allow_redirects=False) as answer,
        ):
            kept = {name: value for name, value in answer.headers.items() if name not in ("Content-Length", "Date")}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    async with serving(forward, port, tls):
        yield f"https://127.0.0.1:{port}"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Debian's chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


class Visitor:
    """A person with a fresh browser; what their page asks of the edge, and what goes wrong in it, is noted."""

    def __init__(self, site: Site, context: BrowserContext, page: Page) -> None:
        self.site = site
        self.context = context
        self.page = page
        self.asked: list[str] = []
        """Path and query of the edge's URLs that were requested."""
        self.errors: list[str] = []
        context.on("request", self._note)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def _note(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.hostname == "127.0.0.1":
            self.asked.append(f"{url.path}?{url.query}")

    def asked_for(self, path: str) -> list[str]:
        """Those of the requests with that path."""
        return [url for url in self.asked if url.split("?")[0] == path]

    async def known_id(self) -> str:
        """The id that the page knows, as soon as the script does."""
        return str(await self.page.evaluate("new Promise(done => clickedge.ready(done))"))

    async def kept(self) -> str:
        """The script's cookie on the page's site; empty: none."""
        cookies = await self.context.cookies(self.site.home)
        return next((cookie["value"] for cookie in cookies if cookie["name"] == "_clickedge"), "")

    async def calls(self, script: str) -> None:
        """Run a line of the page's own."""
        await self.page.evaluate(f"() => {{ {script} }}")


@pytest.fixture
async def visitor(site: Site, browser: Browser) -> AsyncIterator[Visitor]:
    """Somebody new, of whom nobody knows anything; their page has no error at the end."""
    # A headless browser says so in its user agent, and would be flagged as a bot.
    user_agent = (
        f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{browser.version} Safari/537.36"
    )
    context = await browser.new_context(ignore_https_errors=True, user_agent=user_agent)
    visitor = Visitor(site, context, await context.new_page())
    yield visitor
    await context.close()
    assert visitor.errors == []


@pytest.fixture
async def everyday(site: Site, tmp_path: Path) -> AsyncIterator[Visitor]:
    """A visitor whose profile takes third-party cookies; a private window, as `visitor` has, does not."""
    profile = tmp_path / "profile" / "Default"
    profile.mkdir(parents=True)
    (profile / "Preferences").write_text('{"profile": {"cookie_controls_mode": 0, "block_third_party_cookies": false}}')
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile.parent, executable_path=CHROMIUM, args=ARGUMENTS, ignore_https_errors=True
        )
        yield Visitor(site, context, context.pages[0])
        await context.close()
