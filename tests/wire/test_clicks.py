"""Clicks through the public port: the Location on the wire, and the event in the journal."""

import errno
import re
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from storage.journal.events import Click
from storage.journal.filesystem import Filesystem
from tests.journal_disk import FaultyDisk
from tests.node import eventually
from tests.wire.port import Port, logged, serving, session_of

pytestmark = pytest.mark.both_loops

AGENT = "User-Agent: Mozilla/5.0"
SILENCE_S = 0.5


async def test_a_click_is_redirected_byte_for_byte_and_journalled(tmp_path: Path) -> None:
    """The answer is the compiled URL and nothing more; the event has the same id."""
    async with serving(tmp_path) as port:
        query = "offer_id=17&aff_id=2&aff_sub=a%20b%26c%3D%C3%BC%2F%25"
        reply = await port.get(f"/aff_c?{query}", AGENT, "Referer: https://blog.example/", "Accept-Language: de")
        event = port.last(Click)
        session = session_of(event)
        assert (reply.status, reply.body) == (302, b"")
        assert reply.get("location") == (
            f"https://shop.example.com/landing?clickid={session.click_id.hex()}&p=2&s=a%20b%26c%3D%C3%BC%2F%25"
        )
        assert reply.get("cache-control") == "no-store"
        assert reply.get("server") == "clickedge"
        assert (event.outcome, event.reason, event.flags, event.alias) == ("redirected", "", [], "")
        assert event.params == {"offer_id": "17", "aff_id": "2", "aff_sub1": "a b&c=ü/%"}
        assert (event.referrer, event.language) == ("https://blog.example/", "de")
        assert (session.revision, session.offer_id, session.aff_id) == (7, 17, 2)
        assert (session.ip, session.user_agent) == ("127.0.0.1", "Mozilla/5.0")
        assert port.count("edge_requests_total", "click", "redirected") == 1


async def test_a_browser_like_client_gets_the_same_bytes(tmp_path: Path) -> None:
    """aiohttp's client, which keeps the connection, sees raw Location bytes as the journal has them."""
    async with serving(tmp_path) as port, aiohttp.ClientSession() as session:
        for count in range(1, 4):
            async with session.get(
                f"{port.origin}/aff_c", params={"offer_id": "18", "aff_id": "2", "source": "ü/?"}, allow_redirects=False
            ) as answer:
                click_id = session_of(port.last(Click)).click_id.hex()
                assert answer.headers["Location"] == f"https://first.example.com/%C3%BC%2F%3F/{click_id}"
                assert answer.cookies["ce_18"].value.endswith(click_id)
            assert len(port.events()) == count


@pytest.mark.parametrize(
    ("query", "host", "outcome", "reason"),
    [
        ("offer_id=17&aff_id=2", "shop.example.com", "redirected", ""),
        ("offer_id=17&aff_id=2&url_id=1", "pages.example.com", "redirected", ""),
        ("offer_id=17&aff_id=2&url_id=9", "shop.example.com", "redirected", ""),
        ("offer_id=17&aff_id=3", "shop.example.com", "redirected", "partner_blocked"),
        ("offer_id=17&aff_id=99", "shop.example.com", "redirected", "unknown_partner"),
        ("offer_id=17", "shop.example.com", "redirected", "unknown_partner"),
        ("offer_id=20&aff_id=2", "shop.example.com", "redirected", "offer_paused"),
        ("offer_id=21&aff_id=2", "shop.example.com", "redirected", "offer_expired"),
        ("offer_id=22&aff_id=2", "shop.example.com", "redirected", "offer_expired"),
        ("offer_id=24&aff_id=2", "fall.example.com", "fallback", "offer_paused"),
        ("offer_id=99&aff_id=2", "fall.example.com", "fallback", "unknown_offer"),
        ("offer_id=99999999999&aff_id=99999999999", "fall.example.com", "fallback", "unknown_offer"),
        ("", "fall.example.com", "fallback", "unknown_offer"),
    ],
)
async def test_a_click_never_fails_for_want_of_a_side_condition(
    tmp_path: Path, query: str, host: str, outcome: str, reason: str
) -> None:
    """Stand-in, fallback, blocked or unknown partner: redirected, and the reason is journalled."""
    async with serving(tmp_path, fallback="https://fall.example.com/?o={offer_id}") as port:
        reply = await port.get(f"/aff_c?{query}")
        event = port.last(Click)
        assert (reply.status, reply.get("location").split("/")[2]) == (302, host)
        assert (event.outcome, event.reason) == (outcome, reason)
        assert bool(reply.get("set-cookie")) == (outcome == "redirected")


@pytest.mark.parametrize("query", ["offer_id=99&aff_id=2", "offer_id=24&aff_id=2", ""])
async def test_only_without_a_fallback_it_is_not_found(tmp_path: Path, query: str) -> None:
    """404 in plain words, and still an event."""
    async with serving(tmp_path) as port:
        reply = await port.get(f"/aff_c?{query}")
        assert (reply.status, reply.body, reply.get("location")) == (404, b"unknown offer\n", "")
        assert port.last(Click).outcome == "rejected"
        assert port.count("edge_requests_total", "click", "rejected") == 1


@pytest.mark.parametrize(
    ("method", "header"),
    [
        ("HEAD", "A: b"),
        ("GET", "Sec-Purpose: prefetch;prerender"),
        ("GET", "X-Purpose: preview"),
        ("GET", "X-Moz: prefetch"),
    ],
)
async def test_fetches_ahead_get_the_same_answer_and_a_flag(tmp_path: Path, method: str, header: str) -> None:
    """Same status, same headers but for the id; not billable."""
    async with serving(tmp_path) as port:
        plain = await port.get("/aff_c?offer_id=17&aff_id=2")
        plain_id = session_of(port.last(Click)).click_id.hex()
        ahead = await port.get("/aff_c?offer_id=17&aff_id=2", header, method=method)
        ahead_id = session_of(port.last(Click)).click_id.hex()
        assert port.last(Click).flags == ["prefetch"]
        assert ahead.status == plain.status

        def comparable(headers: list[tuple[str, str]], click_id: str) -> list[tuple[str, str]]:
            return [
                (name, value.replace(click_id, "ID"))
                for name, value in headers
                if name not in ("date", "content-length")
            ]

        assert comparable(ahead.headers, ahead_id) == comparable(plain.headers, plain_id)


async def test_the_cookie_is_for_pixels_and_says_no_more_than_needed(tmp_path: Path) -> None:
    """One per offer, `first.last`, not for scripts; `SameSite=None; Secure` only where https is certain."""
    async with serving(tmp_path) as port:
        first = (await port.get("/aff_c?offer_id=17&aff_id=2", "X-Forwarded-Proto: https")).get("set-cookie")
        found = re.fullmatch(r"(ce_17=([0-9a-f]{32})\.\2); Max-Age=2592000; Path=/; HttpOnly", first)
        assert found
        second = (await port.get("/aff_c?offer_id=17&aff_id=2", f"Cookie: {found[1]}")).get("set-cookie")
        last = session_of(port.last(Click)).click_id.hex()
        assert second == f"ce_17={found[2]}.{last}; Max-Age=2592000; Path=/; HttpOnly"
        assert port.last(Click).visitor.hex() == found[2]
        opted_out = await port.get("/aff_c?offer_id=17&aff_id=2", "Sec-GPC: 1")
        assert (opted_out.status, opted_out.get("set-cookie")) == (302, "")
        assert port.last(Click).flags == ["opted_out"]
    async with serving(tmp_path / "2", honour_gpc=False, trusted="127.0.0.0/8") as port:
        reply = await port.get("/aff_c?offer_id=17&aff_id=2", "Sec-GPC: 1", "X-Forwarded-Proto: https")
        assert reply.get("set-cookie").endswith("; Path=/; HttpOnly; SameSite=None; Secure")
        assert port.last(Click).flags == []


@pytest.mark.parametrize(
    ("headers", "ip"),
    [
        (["X-Forwarded-For: 198.51.100.7"], "198.51.100.7"),
        (["X-Forwarded-For: 6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        (["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 198.51.100.7"], "198.51.100.7"),
        (["X-Forwarded-For: 198.51.100.7, 127.0.0.9"], "198.51.100.7"),
        (["X-Forwarded-For: nonsense"], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
async def test_behind_a_trusted_proxy_the_address_is_the_one_it_saw(
    tmp_path: Path, headers: list[str], ip: str
) -> None:
    """The rightmost untrusted one, over all lines of the header; what a client made up stands left of it."""
    async with serving(tmp_path, trusted="127.0.0.0/8") as port:
        await port.get("/aff_c?offer_id=17&aff_id=2", *headers)
        assert session_of(port.last(Click)).ip == ip


async def test_a_deep_link_is_refused_and_flagged(tmp_path: Path) -> None:
    """No allowed domain: the offer's own URL."""
    async with serving(tmp_path) as port:
        reply = await port.get("/aff_c?offer_id=17&aff_id=2&url=https%3A%2F%2Fevil.example%2F")
        assert reply.get("location").startswith("https://shop.example.com/landing?")
        assert port.last(Click).flags == ["deep_link_refused"]


class WatchingDisk(Filesystem):
    """Looks at a client's socket while the journal is written and synced: did a byte arrive already?"""

    def __init__(self) -> None:
        self.client: socket.socket | None = None
        self.writes: list[bool] = []
        self.syncs: list[bool] = []

    def write(self, descriptor: int, data: bytes) -> int:  # type: ignore[override]
        """Look, then write."""
        self._look(self.writes)
        return super().write(descriptor, data)

    def sync_data(self, descriptor: int) -> None:
        """Sync, then look: the answer must not overtake even the end of the call."""
        super().sync_data(descriptor)
        self._look(self.syncs)

    def _look(self, seen: list[bool]) -> None:
        if self.client is not None:
            seen.append(bool(select.select([self.client], [], [], 0.05)[0]))


@pytest.mark.parametrize(
    ("target", "is_durable"),
    [
        (lambda click_id: "/aff_c?offer_id=17&aff_id=2", False),
        (lambda click_id: "/aff_c?offer_id=17&aff_id=2", True),
        (lambda click_id: "/aff_i?offer_id=17&aff_id=2", False),
        (lambda click_id: f"/aff_lsr?transaction_id={click_id}", False),
        (lambda click_id: f"/aff_lsr?transaction_id={click_id}", True),
        (lambda click_id: f"/aff_l?offer_id=17&transaction_id={click_id}", True),
        (lambda click_id: "/aff_lsr?transaction_id=forged", True),
    ],
)
async def test_no_byte_leaves_before_the_journal_has_the_event(
    tmp_path: Path, target: Callable[[str], str], is_durable: bool
) -> None:
    """Seen from inside write(2) the client has nothing to read; with `disk`, nor from inside the fsync."""
    disk = WatchingDisk()
    async with serving(tmp_path, disk=disk, durable_clicks=is_durable, durable_conversions=is_durable) as port:
        click_id = await port.click()
        # Nothing on the loop reads this socket, so that what arrives stays to be seen.
        with socket.create_connection(("127.0.0.1", port.number)) as client:
            disk.client = client
            client.sendall(f"GET {target(click_id)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

            async def is_answered() -> bool:
                return bool(select.select([client], [], [], 0)[0])

            await eventually(is_answered, 20)
            disk.client = None
            assert client.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 302")
        assert disk.writes == [False]
        if is_durable:
            assert not disk.syncs[0]


class GatedDisk(Filesystem):
    """An fsync takes as long as the test likes."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def sync_data(self, descriptor: int) -> None:
        """Wait for the gate, then sync."""
        assert self.gate.wait(30)
        super().sync_data(descriptor)


@pytest.mark.parametrize("is_durable", [False, True])
@pytest.mark.reliability(number=2)
async def test_a_slow_fsync_holds_back_answers_in_disk_mode_only(tmp_path: Path, is_durable: bool) -> None:
    """`process` answers while the disk is busy; `disk` says nothing until it is done, and serves others meanwhile."""
    disk = GatedDisk()
    async with serving(tmp_path, disk=disk, durable_clicks=is_durable, durable_conversions=is_durable) as port:
        click_id = await port.click()
        disk.gate.clear()
        try:
            for target in ("/aff_c?offer_id=17&aff_id=2", f"/aff_lsr?transaction_id={click_id}"):
                async with port.wire() as wire:
                    wire.get(target)
                    if is_durable:
                        assert await wire.is_silent(SILENCE_S)
                        assert (await port.get("/livez")).status == 200
                        assert len(port.events()) > 1
                    else:
                        assert (await wire.reply()).status in (200, 302)
            async with port.wire() as wire:
                wire.get("/aff_c?offer_id=17&aff_id=2")
                disk.gate.set()
                assert (await wire.reply()).status == 302
        finally:
            disk.gate.set()


@pytest.mark.reliability(number=6)
async def test_a_full_disk_costs_a_count_and_no_redirect(tmp_path: Path) -> None:
    """ENOSPC or a short write: 302 all the same, counted exactly; the next click is journalled, with no restart."""
    disk = FaultyDisk()
    async with serving(tmp_path, disk=disk) as port:
        await port.click()
        for fault in ((0, errno.ENOSPC), (9, errno.ENOSPC), (9, 0)):
            disk.short_writes.append(fault)
            assert (await port.get("/aff_c?offer_id=17&aff_id=2")).status == 302
        assert (len(port.events()), port.count("edge_events_dropped_total")) == (1, 3)
        assert len(port.state.sessions) == 1, "a click that was never stored must not be remembered by one worker"
        disk.short_writes.append((0, errno.ENOSPC))
        assert (await port.get("/aff_i?offer_id=17&aff_id=2")).status == 200
        assert (await port.get("/aff_c?offer_id=17&aff_id=2")).status == 302
        assert (len(port.events()), port.count("edge_events_dropped_total")) == (2, 4)
        assert port.count("edge_requests_total", "click", "redirected") == 5
        assert port.broken == []


async def test_a_journal_near_its_cap_drops_clicks_and_keeps_conversions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90 %: clicks go on and are counted; 100 %: conversions get 503. Every answer is accounted for."""
    # What is written while the disk is scanned counts twice until the next scan: here there is none.
    monkeypatch.setattr("storage.journal.commit.CAPACITY_SCAN_S", 3600)
    async with serving(tmp_path, max_bytes=20_000) as port:
        click_id = await port.click()
        clicks = 1
        while not port.count("edge_events_dropped_total"):
            assert (await port.get("/aff_c?offer_id=17&aff_id=2")).status == 302
            clicks += 1
        assert port.journal.undrained_bytes >= 18_000
        recorded = 0
        while (reply := await port.get(f"/aff_lsr?transaction_id={click_id}")).status == 200:
            assert reply.body == b"success=true;"
            recorded += 1
        assert recorded
        assert (reply.status, reply.get("retry-after")) == (503, "5")
        assert (await port.get("/aff_c?offer_id=17&aff_id=2")).status == 302
        assert port.count("edge_events_dropped_total") == 2
        assert len(port.events()) == clicks - 1 + recorded
        assert port.count("edge_requests_total", "postback", "unavailable") == 1


@pytest.mark.parametrize("is_durable", [False, True])
@pytest.mark.reliability(number=7)
async def test_after_a_failed_fsync_nothing_is_answered(tmp_path: Path, is_durable: bool) -> None:
    """What the kernel still holds is unknown: the worker is told to end, and confirms nothing until it has."""
    disk = FaultyDisk()
    async with serving(tmp_path, disk=disk, durable_clicks=is_durable) as port:
        click_id = await port.click()
        disk.failing.add("sync_data")
        await unanswered(port, f"/aff_lsr?transaction_id={click_id}")

        async def is_told() -> bool:
            return bool(port.broken)

        await eventually(is_told, 20)
        disk.failing.clear()
        await unanswered(port, "/aff_c?offer_id=17&aff_id=2")
        await unanswered(port, f"/aff_lsr?transaction_id={click_id}")


async def unanswered(port: Port, target: str) -> None:
    async with port.wire() as wire:
        wire.get(target)
        assert await wire.is_silent(SILENCE_S), target


@pytest.mark.reliability(number=6)
async def test_a_disk_that_stays_full_is_counted_and_not_logged(tmp_path: Path) -> None:
    """Three hundred failed writes: as many counts, no line; ready all the while, since clicks are answered."""
    disk = FaultyDisk()
    async with serving(tmp_path, disk=disk) as port:
        disk.short_writes.extend([(0, errno.ENOSPC)] * 300)
        with capture_logs() as lines, logged() as others:
            for _ in range(300):
                assert (await port.get("/aff_c?offer_id=17&aff_id=2")).status == 302
            assert (await port.get("/readyz")).status == 200
        assert (lines, others, port.count("edge_events_dropped_total")) == ([], [], 300)
        assert (await port.get("/aff_c?offer_id=17&aff_id=2")).status == 302
        assert len(port.events()) == 1
