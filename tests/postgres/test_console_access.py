"""Who gets into the console, and what each may see and do there."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.admin.console import PAGES, keys
from edge.admin.console.app import SECRET_FILE
from edge.admin.console.protection import FAILURES_ALLOWED, FORGIVEN_AFTER_S, Attempts
from edge.admin.console.sessions import LASTS_S, Signer
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.postgres.consoles import KEYS, Filled, cookie_of, fill, log_in, open_console, read, send, value_of


@pytest.fixture(scope="module")
def filled(embedded_server: Server) -> Iterator[Filled]:
    """One database for all tests of this file: none of them changes what another reads."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        yield fill(url)


async def test_a_key_becomes_a_session_that_no_script_can_read(filled: Filled, data_dir: Path) -> None:
    """The cookie is HttpOnly and SameSite, Secure behind TLS, and its secret is the owner's alone."""
    async with open_console(filled.url, data_dir) as client:
        answer = await client.post("/login", data={"key": KEYS["admin"][0]}, allow_redirects=False)
        assert answer.headers["Location"] == "/"
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Secure" not in cookie
        https = {"X-Forwarded-Proto": "https"}
        answer = await client.post("/login", data={"key": KEYS["admin"][0]}, headers=https, allow_redirects=False)
        assert "Secure" in answer.headers["Set-Cookie"]
        assert (data_dir / SECRET_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("where", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/a\r\nSet-Cookie: x=1"])
async def test_a_log_in_leads_to_no_other_site(filled: Filled, data_dir: Path, where: str) -> None:
    """What `next` says is followed only if it is a path of the console."""
    async with open_console(filled.url, data_dir) as client:
        form = {"key": KEYS["admin"][0], "next": where}
        answer = await client.post("/login", data=form, allow_redirects=False)
        assert answer.headers["Location"] == "/"
        answer = await client.post("/login", data={**form, "next": "/offers?q=a"}, allow_redirects=False)
        assert answer.headers["Location"] == "/offers?q=a"


async def test_without_a_session_there_is_only_the_log_in(filled: Filled, data_dir: Path) -> None:
    """Pages lead there and back again, their parts say so to htmx, changes are not made."""
    async with open_console(filled.url, data_dir) as client:
        answer = await client.get("/offers?q=a", allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/login?next=/offers%3Fq%3Da")
        answer = await client.get("/?part=live", headers={"HX-Request": "true"})
        assert (answer.status, answer.headers["HX-Redirect"]) == (401, "/login")
        answer = await client.post("/offers/17/archive", data={}, allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/login")
        assert (await client.get("/no-such-page", allow_redirects=False)).status == 404


async def test_keys_that_are_wrong_over_or_revoked_stay_outside(filled: Filled, data_dir: Path) -> None:
    """Each with the same words; nothing tells a key that was from one that never was."""
    await value_of(
        filled.url,
        "INSERT INTO api_keys (name, key_hash, scope, expires_at, revoked_at) VALUES"
        " ('over', sha256('ce_over'), 'admin', now() - interval '1 s', NULL),"
        " ('revoked', sha256('ce_revoked'), 'admin', NULL, now())",
    )
    async with open_console(filled.url, data_dir) as client:
        for key in ("", "ce_never", "ce_over", "ce_revoked", "x" * 10_000, "\u2603"):
            answer = await client.post("/login", data={"key": key}, allow_redirects=False)
            assert answer.status == 401
            assert "No such key, or it has been revoked or is over." in await answer.text()
            assert "Set-Cookie" not in answer.headers


async def test_guessing_keys_is_slowed_down(filled: Filled, data_dir: Path) -> None:
    """After ten wrong ones even the right one must wait, and how long is said."""
    async with open_console(filled.url, data_dir) as client:
        for _ in range(FAILURES_ALLOWED):
            assert (await client.post("/login", data={"key": "ce_guess"})).status == 401
        answer = await client.post("/login", data={"key": KEYS["admin"][0]})
        assert answer.status == 429
        assert 0 < int(answer.headers["Retry-After"]) <= FORGIVEN_AFTER_S


async def test_guesses_that_come_all_at_once_are_counted_too(filled: Filled, data_dir: Path) -> None:
    """No more of them are looked up than of those that come one after the other."""
    async with open_console(filled.url, data_dir) as client:
        guesses = [client.post("/login", data={"key": f"ce_guess{number}"}) for number in range(4 * FAILURES_ALLOWED)]
        statuses = [answer.status for answer in await asyncio.gather(*guesses)]
    assert statuses.count(401) == FAILURES_ALLOWED
    assert statuses.count(429) == 3 * FAILURES_ALLOWED


def test_wrong_keys_are_forgiven_after_a_minute_and_by_a_right_one() -> None:
    """One address's guesses are not another's."""
    attempts = Attempts()
    for moment in range(FAILURES_ALLOWED):
        attempts.note_failure("192.0.2.1", float(moment))
    assert attempts.wait_s("192.0.2.1", 10.0) == FORGIVEN_AFTER_S - 10
    assert attempts.wait_s("192.0.2.2", 10.0) == 0
    assert attempts.wait_s("192.0.2.1", FORGIVEN_AFTER_S) == 0
    attempts.forget("192.0.2.1")
    assert attempts.wait_s("192.0.2.1", 10.0) == 0


async def test_another_sites_form_logs_nobody_in(filled: Filled, data_dir: Path) -> None:
    """Browsers say where a form came from."""
    async with open_console(filled.url, data_dir) as client:
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            answer = await client.post("/login", data={"key": KEYS["admin"][0]}, headers=headers, allow_redirects=False)
            assert answer.status == 403
            assert "Set-Cookie" not in answer.headers


def test_a_session_is_what_we_signed_and_ends() -> None:
    """Another secret, a changed number, a time that is over: no session."""
    signer = Signer("a secret")
    cookie = signer.issue(7, "the key", 1000.0)
    session = signer.read(cookie, 1000.0)
    assert session is not None
    assert (session.key_id, session.expires_s) == (7, 1000 + LASTS_S)
    assert signer.is_of(session, "the key")
    assert not signer.is_of(session, "another key of this id")
    assert signer.read(cookie, 1000.0 + LASTS_S) is None
    assert Signer("another").read(cookie, 1000.0) is None
    assert signer.read("1" + cookie, 1000.0) is None
    assert signer.read("", 1000.0) is None
    assert not signer.is_form_token(cookie, Signer("another").form_token(cookie))
    assert not signer.is_form_token(cookie, "é")


async def test_a_revoked_keys_session_ends(filled: Filled, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the seconds that a key is believed, here none."""
    monkeypatch.setattr(keys, "STALE_AFTER_S", -1.0)
    await value_of(filled.url, "INSERT INTO api_keys (name, key_hash, scope) VALUES ('short', sha256('ce_short'), 'reports')")
    async with open_console(filled.url, data_dir) as client:
        await client.post("/login", data={"key": "ce_short"}, allow_redirects=False)
        await read(client, "/offers")
        await value_of(filled.url, "UPDATE api_keys SET revoked_at = now() WHERE name = 'short'")
        await read(client, "/offers", 303)


async def test_a_form_without_its_token_changes_nothing(filled: Filled, data_dir: Path) -> None:
    """No token, another session's, or one in another place: refused; the header that htmx sends is as good as the field."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "reports")
        strangers = Signer((data_dir / SECRET_FILE).read_text().strip()).form_token("another cookie")
        await log_in(client, "admin")
        own = Signer((data_dir / SECRET_FILE).read_text().strip()).form_token(cookie_of(client))
        for form in ({}, {"csrf": ""}, {"csrf": strangers}):
            for path in ("/offers/18/archive", "/logout", "/postbacks/replay", "/offers/17"):
                assert (await client.post(path, data=form, allow_redirects=False)).status == 403
        assert (await client.post(f"/offers/18/archive?csrf={own}", allow_redirects=False)).status == 403
        answer = await client.post("/postbacks/test", data={"url": "/aff_lsr"}, headers={"X-CSRF-Token": own})
        assert answer.status == 200
        assert "Espresso machines" in await read(client, "/offers/18")
        assert await send(client, "/logout", {}, 303) == "/login"


async def test_every_answer_carries_the_policy_and_no_page_needs_an_exception(filled: Filled, data_dir: Path) -> None:
    """No inline script, no inline style, no handler in an attribute; pages are kept by nobody."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        more = ["/login", "/offers/17", "/offers/17/edit", "/offers/new", "/postbacks/test", "/links?offer_id=17&aff_id=2"]
        for path in [*(page.path for page in PAGES), *more, f"/clicks/{filled.ids[2].hex}", "/nowhere"]:
            answer = await client.get(path)
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            text = await answer.text()
            assert re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", text) is None, path


async def test_style_and_script_are_kept_for_ever_under_the_name_of_their_content(filled: Filled, data_dir: Path) -> None:
    """Packed where the browser takes that; another name is not there."""
    async with open_console(filled.url, data_dir) as client:
        page = await read(client, "/login")
        found = re.search(r'href="(/static/console\.[0-9a-f]{10}\.css)"', page)
        assert found
        answer = await client.get(found[1])
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Encoding"] == "gzip"
        assert ":root" in await answer.text()
        plain = await client.get(found[1], headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        for name in ("console.css", "console.0000000000.css", "..%2Fapp.py"):
            assert (await client.get(f"/static/{name}")).status == 404


@pytest.mark.parametrize(
    ("scope", "allowed", "hidden", "forbidden"),
    [
        ("admin", ["/", "/clicks", "/conversions", "/contacts", "/cohorts", "/offers", "/partners", "/advertisers", "/links", "/postbacks", "/health"], [], []),
        ("reports", ["/", "/partners/3", "/advertisers/1", "/health"], [], ["/offers/new", "/postbacks/test", "/offers/17/edit"]),
        ("partner", ["/", "/clicks", "/conversions", "/offers/18", "/links", "/postbacks"], ["/partners", "/partners/2", "/advertisers", "/health", "/contacts", "/cohorts"], ["/offers/17/edit"]),
        ("advertiser", ["/", "/clicks", "/conversions", "/offers/17", "/links"], ["/offers/18", "/partners", "/advertisers/1", "/postbacks", "/health", "/contacts"], ["/offers/17/edit"]),
    ],
)  # fmt: skip
async def test_each_scope_has_its_pages(
    filled: Filled, data_dir: Path, scope: str, allowed: list[str], hidden: list[str], forbidden: list[str]
) -> None:
    """What is another's is not there, what may only be looked at cannot be changed, and the navigation names no more."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, scope)
        for path in allowed:
            await read(client, path)
        for path in hidden:
            await read(client, path, 404)
        for path in forbidden:
            await read(client, path, 403)
        menu = set(re.findall(r'<li><a href="(/\w*)"', await read(client, "/")))
        assert menu == {page.path for page in PAGES if scope in page.scopes}


async def test_a_partner_reads_no_revenue_and_an_advertiser_no_payout(filled: Filled, data_dir: Path) -> None:
    """Not on any page that is theirs, nor of anybody else's click or conversion."""
    async with open_console(filled.url, data_dir) as client:
        own, mine = f"/clicks/{filled.ids[2].hex}", f"/conversions/{filled.conversions[2].hex}"
        await log_in(client, "partner")
        for path in ("/", "/clicks", own, "/conversions", mine, "/offers", "/offers/17", "/offers/18", "/postbacks", "/links?offer_id=17"):
            text = await read(client, path)
            for secret in ("7.77", "7.50", "4.44", "evenue", "6.66", "203.0.113", "Outletforce", "s3cret", "Corner"):
                assert secret not in text, (path, secret)
        assert "5.55" in await read(client, own)
        await read(client, f"/clicks/{filled.ids[3].hex}", 404)
        await read(client, "/clicks/nonsense", 404)
        await log_in(client, "advertiser")
        for path in ("/", "/clicks", own, "/conversions", mine, "/offers", "/offers/17", "/links?offer_id=17"):
            text = await read(client, path)
            for secret in ("5.55", "5.00", "6.66", "ayout", "Espresso", "203.0.113", "partner.example", "s3cret"):
                assert secret not in text, (path, secret)
        assert "7.77" in await read(client, own)
        await read(client, f"/clicks/{filled.ids[3].hex}", 404)


async def test_a_database_that_is_away_is_said_in_words(data_dir: Path) -> None:
    """With 503 and when to ask again; the log-in page itself needs no database."""
    async with open_console("postgresql://127.0.0.1:1/nowhere", data_dir) as client:
        await read(client, "/login")
        answer = await client.post("/login", data={"key": "ce_admin-key"})
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert "The database is away" in await answer.text()
        signer = Signer((data_dir / SECRET_FILE).read_text().strip())
        cookie = {"Cookie": f"clickedge_session={signer.issue(1, 'x', time.time())}"}
        assert (await client.get("/", headers=cookie)).status == 503
