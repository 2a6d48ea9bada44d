"""Visitors, networks and advertisers under load: real requests over real sockets, and a ledger of what was answered.

The client never repeats a request by itself (aiohttp's does), so that a row that is there twice is the product's doing.
Every request carries a mark of its own: `aff_sub` on clicks and impressions, `adv_sub` on conversions.
"""

import asyncio
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

Say = Callable[[str], None]
"""Shows a line of figures although the test passes."""

REQUEST_TIMEOUT_S = 30.0
RETRY_S = 0.05
GIF_BYTES = 43
TOKEN = "t0ken-of-the-second"
GOAL_ID = 1
PARTNERS = range(1, 21)
OFFERS = range(1, 11)
UNKNOWN_OFFER = 99
MANUAL_OFFER, PAUSED_OFFER, TOKEN_OFFER, INCREMENT_OFFER, TIERED_OFFER = 4, 5, 6, 7, 8
_ADVERTISERS = f"""
[[advertisers]]
id = 1
name = "open"

[[advertisers]]
id = 2
name = "with a token"
security_token = "{TOKEN}"
"""
_TERMS = {
    1: 'payout = "5.00"\nrevenue = "7.50"',
    2: 'payout_type = "cpc"\npayout = "0.101"\nrevenue_type = "cpc"\nrevenue = "0.2"',
    3: 'payout_type = "cpm"\npayout = "1.25"\nrevenue_type = "cpm"\nrevenue = "2.5"',
    MANUAL_OFFER: 'payout = "1"\nrevenue = "2"\napproval = "manual"',
    PAUSED_OFFER: 'payout = "1"\nstatus = "paused"\nredirect_offer_id = 1',
    TOKEN_OFFER: 'payout_type = "cpa_percentage"\npayout_percent = "8"\nrevenue_type = "cpa_both"\nrevenue = "0.5"\n'
    'revenue_percent = "12.5"\ncurrency = "EUR"',
    INCREMENT_OFFER: 'payout_type = "cpa_percentage"\npayout_percent = "10"\nduplicates = "increment"',
    TIERED_OFFER: 'payout = "1"\nduplicates = "update"\ntiers = [{ from_conversions = 3, payout = "2" }]',
}
_LOCATION = re.compile(r"https://shop\.example\.com/o(\d+)\?clickid=([0-9a-f]{32})&m=([a-z0-9]+)")
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Version/17.0 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "",
)


def catalog_text() -> str:
    """A catalog with every kind of terms, a token, a paused offer, manual approval, goals and overrides."""
    parts = [_ADVERTISERS]
    parts += [f'[[partners]]\nid = {number}\nname = "partner {number}"\n' for number in PARTNERS]
    for number in OFFERS:
        parts.append(
            f'[[offers]]\nid = {number}\nadvertiser_id = {2 if number == TOKEN_OFFER else 1}\nname = "offer {number}"\n'
            f'url = "https://shop.example.com/o{number}?clickid={{transaction_id}}&m={{aff_sub}}"\n'
            f"{_TERMS.get(number, _TERMS[1])}\n"
            f'[[offers.goals]]\nid = {GOAL_ID}\nname = "lead"\npayout = "1.10"\nrevenue = "1.30"\n'
            f'[[offers.overrides]]\naff_id = 2\npayout = "6.00"\n'
        )
    return "\n".join(parts)


class Reply(NamedTuple):
    """An answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection at a time, kept open between requests unless told otherwise."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None
        self._reader = asyncio.StreamReader()

    async def ask(self, target: str, *, method: str = "GET", headers: str = "") -> Reply:
        """The answer; OSError, EOFError or TimeoutError when there is none, and the connection is given up."""
        try:
            return await asyncio.wait_for(self._ask(target, method, headers), REQUEST_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    async def _ask(self, target: str, method: str, headers: str) -> Reply:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(f"{method} {target} HTTP/1.1\r\nHost: edge.test\r\n{headers}\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        length = 0 if method == "HEAD" else int(fields.get("Content-Length", "0"))
        body = await self._reader.readexactly(length) if length else b""
        if fields.get("Connection") == "close":
            self.close()
        return Reply(int(head[0].split(" ")[1]), fields, body)

    def close(self) -> None:
        """Let go of the connection."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
            self._writer = None


MakeClient = Callable[[int], Client]


@dataclass
class Conversion:
    """A conversion that was sent. `is_good`: nothing but an earlier one of its click and goal speaks against it."""

    click_id: str
    goal_id: int
    reason: str = ""
    is_answered: bool = False

    @property
    def is_good(self) -> bool:
        return not self.reason


@dataclass
class Ledger:
    """What was sent, by mark, and what was answered."""

    clicks: dict[str, str | None] = field(default_factory=dict)
    """None: sent, no answer. "": answered without an id. Else the id in the Location."""
    impressions: dict[str, bool] = field(default_factory=dict)
    conversions: dict[str, Conversion] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """Answers that no client should get."""
    unanswered: int = 0

    @property
    def sent(self) -> int:
        """All requests."""
        return len(self.clicks) + len(self.impressions) + len(self.conversions)

    def expected_verdicts(self) -> dict[tuple[str, int], tuple[bool, int]]:
        """For each click and goal of good conversions: whether one was answered, and how many were sent."""
        found: dict[tuple[str, int], tuple[bool, int]] = {}
        for one in self.conversions.values():
            if one.is_good:
                answered, sent = found.get((one.click_id, one.goal_id), (False, 0))
                found[one.click_id, one.goal_id] = (answered or one.is_answered, sent + 1)
        return found


class Traffic:
    """A mix of everything, from `clients` connections; the seed decides who asks for what."""

    def __init__(self, port: int, ledger: Ledger, seed: int, clients: int = 16) -> None:
        self._port = port
        self._ledger = ledger
        self._random = random.Random(seed)
        self._clients = clients
        self._redirected: list[tuple[str, int]] = []
        self._converted: list[tuple[str, int]] = []
        self._number = 0
        self.kinds: dict[str, int] = defaultdict(int)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; every request that was begun is then answered or given up."""
        await asyncio.gather(*(self._visit(stop) for _ in range(self._clients)))

    async def _visit(self, stop: asyncio.Event) -> None:
        client = Client(self._port)
        try:
            while not stop.is_set():
                await self._visit_once(client)
        finally:
            client.close()

    async def _visit_once(self, client: Client) -> None:
        kinds = ("click", "impression", "postback", "goal", "pixel", "forged")
        kind = self._random.choices(kinds, (52, 12, 26, 5, 4, 1))[0]
        if kind in ("postback", "goal", "pixel") and not self._redirected:
            kind = "click"
        try:
            await self._act(client, kind)
        except (OSError, EOFError, TimeoutError):
            self._ledger.unanswered += 1
            await asyncio.sleep(RETRY_S)
        else:
            self.kinds[kind] += 1
        if self._random.random() < 0.15:
            client.close()
        await asyncio.sleep(self._random.uniform(0, 0.02))

    async def _act(self, client: Client, kind: str) -> None:
        self._number += 1
        mark = f"m{self._number}"
        match kind:
            case "click":
                await self._click(client, mark)
            case "impression":
                await self._impression(client, mark)
            case "forged":
                await self._forge(client, mark)
            case _:
                await self._convert(client, mark, kind)

    async def _click(self, client: Client, mark: str) -> None:
        chance = self._random
        offer_id = UNKNOWN_OFFER if chance.random() < 0.02 else chance.choice(OFFERS)
        target = f"/aff_c?offer_id={offer_id}&aff_id={chance.choice(PARTNERS)}&aff_sub={mark}&x=1"
        if chance.random() < 0.2:
            target += f"&cost=0.0{chance.randrange(1, 9)}"
        method = "HEAD" if chance.random() < 0.03 else "GET"
        self._ledger.clicks[mark] = None
        reply = await client.ask(target, method=method, headers=self._headers())
        if offer_id == UNKNOWN_OFFER:
            self._expect(reply.status == 404, mark, reply)
            self._ledger.clicks[mark] = ""
            return
        found = _LOCATION.fullmatch(reply.headers.get("Location", ""))
        if reply.status != 302 or not found or found[3] != mark:
            self._expect(False, mark, reply)
            return
        self._ledger.clicks[mark] = found[2]
        self._redirected.append((found[2], int(found[1])))

    async def _impression(self, client: Client, mark: str) -> None:
        offer_id, aff_id = self._random.choice(OFFERS), self._random.choice(PARTNERS)
        self._ledger.impressions[mark] = False
        reply = await client.ask(f"/aff_i?offer_id={offer_id}&aff_id={aff_id}&aff_sub={mark}", headers=self._headers())
        self._expect(reply.status == 200 and len(reply.body) == GIF_BYTES, mark, reply)
        self._ledger.impressions[mark] = True

    async def _forge(self, client: Client, mark: str) -> None:
        click_id = f"{self._random.getrandbits(128):032x}"
        if self._redirected and self._random.random() < 0.5:
            real = self._random.choice(self._redirected)[0]
            click_id = real[:-1] + f"{int(real[-1], 16) ^ 1:x}"
        conversion = self._ledger.conversions[mark] = Conversion(click_id, 0, "forged_id")
        reply = await client.ask(f"/aff_lsr?transaction_id={click_id}&adv_sub={mark}")
        self._expect(reply.body.startswith(b"success=false;"), mark, reply)
        conversion.is_answered = True

    async def _convert(self, client: Client, mark: str, kind: str) -> None:
        click_id, offer_id = self._choose_click()
        goal_id = GOAL_ID if kind == "goal" else 0
        conversion = Conversion(click_id, goal_id)
        path = {"postback": "/aff_lsr?", "goal": f"/aff_goal?a=lsr&goal_id={GOAL_ID}&", "pixel": "/aff_l?"}[kind]
        target = f"{path}transaction_id={click_id}&adv_sub={mark}&amount={self._random.randrange(1, 9999) / 100}"
        if kind == "pixel":
            target += f"&offer_id={offer_id}"
        elif offer_id == TOKEN_OFFER:
            if self._random.random() < 0.7:
                target += f"&security_token={TOKEN}"
            else:
                conversion.reason = "bad_token"
        self._ledger.conversions[mark] = conversion
        reply = await client.ask(target)
        expected = reply.body == b"success=true;" or (kind == "pixel" and len(reply.body) == GIF_BYTES)
        self._expect(reply.status == 200 and expected, mark, reply)
        conversion.is_answered = True
        self._converted.append((click_id, offer_id))

    def _choose_click(self) -> tuple[str, int]:
        """A recent click, whose session a worker still holds, any earlier one, or one that has converted before."""
        chance = self._random.random()
        if chance < 0.2 and self._converted:
            return self._random.choice(self._converted)
        return self._random.choice(self._redirected[-200:] if chance < 0.6 else self._redirected)

    def _headers(self) -> str:
        agent = self._random.choice(_AGENTS)
        prefetch = "Sec-Purpose: prefetch\r\n" if self._random.random() < 0.03 else ""
        return f"User-Agent: {agent}\r\n{prefetch}" if agent else prefetch

    def _expect(self, is_so: bool, mark: str, reply: Reply) -> None:
        if not is_so:
            self._ledger.faults.append(f"{mark}: {reply.status} {reply.headers} {reply.body[:200]!r}")


class Outcome(NamedTuple):
    """A paced load's result: latencies in seconds, sorted; marks with the ids in their Locations; the rest."""

    latencies: list[float]
    clicks: dict[str, str]
    others: list[str]

    def percentile_ms(self, share: float) -> float:
        """The latency below which that share lies."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] * 1000


async def paced_clicks(port: int, *, per_s: int, seconds: float, prefix: str, clients: int = 32) -> Outcome:
    """Clicks at an even pace, over kept connections, however long the answers take; late ones are made up for."""
    loop = asyncio.get_running_loop()
    outcome = Outcome([], {}, [])
    began_s = loop.time()
    numbers = iter(range(int(per_s * seconds)))

    async def visit() -> None:
        client = Client(port)
        for number in numbers:
            due_s = began_s + number / per_s
            if (early_s := due_s - loop.time()) > 0:
                await asyncio.sleep(early_s)
            asked_s = time.perf_counter()  # uvloop's own clock has whole milliseconds
            mark = f"{prefix}{number}"
            try:
                reply = await client.ask(f"/aff_c?offer_id=1&aff_id=1&aff_sub={mark}")
            except (OSError, EOFError, TimeoutError) as error:
                outcome.others.append(f"{mark}: {error!r}")
                continue
            outcome.latencies.append(time.perf_counter() - asked_s)
            found = _LOCATION.fullmatch(reply.headers.get("Location", ""))
            if reply.status == 302 and found and found[3] == mark:
                outcome.clicks[mark] = found[2]
            else:
                outcome.others.append(f"{mark}: {reply.status}")
        client.close()

    await asyncio.gather(*(visit() for _ in range(clients)))
    outcome.latencies.sort()
    return outcome


def id_in(reply: Reply) -> str:
    """The click id that a redirect carries."""
    found = _LOCATION.fullmatch(reply.headers.get("Location", ""))
    assert found, reply
    return found[2]
