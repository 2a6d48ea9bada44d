"""Visitors, networks and advertisers: a mix of all that is asked of a node, and a ledger of what was answered.

Every request carries a mark of its own: `aff_sub` on clicks and impressions, `adv_sub` on conversions.
"""

import asyncio
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults.load import Client, Reply
from tests.faults.offers import (
    CAPPED_OFFER,
    DIALECTS,
    GOAL_ID,
    OFFERS,
    PARTNERS,
    SOURCES,
    TOKEN,
    TOKEN_OFFER,
    UNKNOWN_OFFER,
    Words,
)

RETRY_S = 0.05
GIF_BYTES = 43
VISITORS = 2000
_LOCATION = re.compile(r"https://shop\.example\.com/o(\d+)(?:p(\d+))?\?clickid=([0-9a-f]{32})&m=([a-z0-9]+)")
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Version/17.0 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "",
)


class Visit(NamedTuple):
    """A click that was answered. `family`: the first click that its cookie remembers."""

    click_id: str
    offer_id: int
    family: str
    external_id: str
    cookie: str


@dataclass
class Conversion:
    """A conversion that was sent. `is_good`: nothing but an earlier one of its family and goal, or a cap, speaks against it."""

    family: str
    goal_id: int
    reason: str = ""
    is_answered: bool = False
    may_be_capped: bool = False

    @property
    def is_good(self) -> bool:
        return not self.reason


class Expected(NamedTuple):
    """What the good conversions of a family and goal come to: at least one earns if `is_certain`."""

    is_certain: bool
    sent: int


@dataclass
class Ledger:
    """What was sent, by mark, and what was answered."""

    clicks: dict[str, str | None] = field(default_factory=dict)
    """None: sent, no answer. "": answered without an id. Else the id in the Location."""
    pages: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The offer and landing page that a click was led to."""
    families: Counter[str] = field(default_factory=Counter)
    """How many clicks were sent with each cookie."""
    impressions: dict[str, bool] = field(default_factory=dict)
    conversions: dict[str, Conversion] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """Answers that no client should get."""
    unanswered: int = 0

    @property
    def sent(self) -> int:
        """All requests."""
        return len(self.clicks) + len(self.impressions) + len(self.conversions)

    def expected_verdicts(self) -> dict[tuple[str, int], Expected]:
        """For each family and goal of good conversions: whether one must earn, and how many were sent."""
        found: dict[tuple[str, int], Expected] = {}
        for one in self.conversions.values():
            if one.is_good:
                is_certain, sent = found.get((one.family, one.goal_id), (False, 0))
                is_certain = is_certain or (one.is_answered and not one.may_be_capped)
                found[one.family, one.goal_id] = Expected(is_certain, sent + 1)
        return found


class Traffic:
    """A mix of everything, from `clients` connections; the seed decides who asks for what."""

    def __init__(self, port: int, ledger: Ledger, seed: int, clients: int = 16) -> None:
        self._port = port
        self._ledger = ledger
        self._random = random.Random(seed)
        self._clients = clients
        self._visits: list[Visit] = []
        self._converted: list[Visit] = []
        self._number = 0
        self.kinds: dict[str, int] = defaultdict(int)
        self.knows_external_ids = False
        """Whether every worker has heard of clicks with their sender's ids; before, such ids are refused."""

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
        if kind in ("postback", "goal", "pixel") and not self._visits:
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
        chance, ledger = self._random, self._ledger
        offer_id = UNKNOWN_OFFER if chance.random() < 0.02 else chance.choice(OFFERS)
        # Who comes again with a cookie asks for the offer that gave it.
        before = self._choose_visit() if self._visits and chance.random() < 0.1 else None
        if before:
            offer_id = before.offer_id
            ledger.families[before.family] += 1
        external_id = f"other-{mark}" if chance.random() < 0.1 else ""
        method = "HEAD" if chance.random() < 0.03 else "GET"
        ledger.clicks[mark] = None
        headers = self._headers() + (f"Cookie: {before.cookie}\r\n" if before else "")
        reply = await client.ask(self._link(offer_id, mark, external_id), method=method, headers=headers)
        if offer_id == UNKNOWN_OFFER:
            self._expect(reply.status == 404, mark, reply)
            ledger.clicks[mark] = ""
            return
        found = _LOCATION.fullmatch(reply.headers.get("Location", ""))
        if reply.status != 302 or not found or found[4] != mark:
            self._expect(False, mark, reply)
            return
        taken_id, click_id = int(found[1]), found[3]
        ledger.clicks[mark], ledger.pages[mark] = click_id, (taken_id, int(found[2] or 0))
        family = before.family if before and taken_id == offer_id else click_id
        ledger.families[family] += family == click_id
        is_prefetch = method == "HEAD" or "prefetch" in headers
        cookie = reply.headers.get("Set-Cookie", "").partition(";")[0]
        self._visits.append(Visit(click_id, taken_id, family, "" if is_prefetch else external_id, cookie))

    def _link(self, offer_id: int, mark: str, external_id: str) -> str:
        chance = self._random
        aff_id, source = chance.choice(PARTNERS), chance.choice(SOURCES)
        target = f"/aff_c?offer_id={offer_id}&aff_id={aff_id}&aff_sub={mark}&source={source}&x=1"
        if chance.random() < 0.2:
            target += f"&cost=0.0{chance.randrange(1, 9)}"
        return target + (f"&ad_id={external_id}" if external_id else "")

    async def _impression(self, client: Client, mark: str) -> None:
        offer_id, aff_id = self._random.choice(OFFERS), self._random.choice(PARTNERS)
        self._ledger.impressions[mark] = False
        reply = await client.ask(f"/aff_i?offer_id={offer_id}&aff_id={aff_id}&aff_sub={mark}", headers=self._headers())
        self._expect(reply.status == 200 and len(reply.body) == GIF_BYTES, mark, reply)
        self._ledger.impressions[mark] = True

    async def _forge(self, client: Client, mark: str) -> None:
        click_id = f"{self._random.getrandbits(128):032x}"
        if self._visits and self._random.random() < 0.5:
            real = self._random.choice(self._visits).click_id
            click_id = real[:-1] + f"{int(real[-1], 16) ^ 1:x}"
        # To a worker that knows of other systems' ids it may be one of them: nobody's click, but no forgery.
        conversion = self._ledger.conversions[mark] = Conversion(click_id, 0, "forged_id|unknown_click")
        reply = await client.ask(f"/aff_lsr?transaction_id={click_id}&adv_sub={mark}")
        is_refused = reply.body.startswith(b"success=false;")
        conversion.reason = "forged_id" if is_refused else "unknown_click"
        self._expect(is_refused or reply.body == b"success=true;", mark, reply)
        conversion.is_answered = True

    async def _convert(self, client: Client, mark: str, kind: str) -> None:
        chance, visit = self._random, self._choose_convert()
        words = chance.choice(DIALECTS) if kind == "postback" else DIALECTS[0]
        conversion = Conversion(visit.family, GOAL_ID if kind == "goal" else 0)
        conversion.may_be_capped = visit.offer_id == CAPPED_OFFER
        has_token = visit.offer_id == TOKEN_OFFER and chance.random() < 0.7 and bool(words.token)
        if visit.offer_id == TOKEN_OFFER and kind != "pixel" and not has_token:
            conversion.reason = "bad_token"
        self._ledger.conversions[mark] = conversion
        reply = await client.ask(self._told(visit, mark, kind, words) + words.token.format(token=TOKEN) * has_token)
        expected = len(reply.body) == GIF_BYTES if kind == "pixel" else reply.body == words.reply
        self._expect(reply.status == 200 and expected, mark, reply)
        conversion.is_answered = True
        self._converted.append(visit)

    def _told(self, visit: Visit, mark: str, kind: str, words: Words) -> str:
        """What the advertiser asks for, by our id or by the network's own."""
        amount = self._random.randrange(1, 9999) / 100
        if kind == "pixel":
            return f"/aff_l?transaction_id={visit.click_id}&adv_sub={mark}&amount={amount}&offer_id={visit.offer_id}"
        is_by_theirs = visit.external_id and self.knows_external_ids and self._random.random() < 0.7
        transaction_id = visit.external_id if is_by_theirs else visit.click_id
        target = words.target.format(id=transaction_id, mark=mark, amount=amount)
        if kind == "goal":
            return target.replace("/aff_lsr?", f"/aff_goal?a=lsr&goal_id={GOAL_ID}&")
        return target

    def _choose_visit(self) -> Visit:
        """A click of before, mostly a recent one, that left a cookie."""
        some = [one for one in self._visits[-200:] if one.cookie]
        return self._random.choice(some or self._visits)

    def _choose_convert(self) -> Visit:
        """A recent click, whose session a worker still holds, any earlier one, or one that has converted before."""
        chance = self._random.random()
        if chance < 0.2 and self._converted:
            return self._random.choice(self._converted)
        return self._random.choice(self._visits[-200:] if chance < 0.6 else self._visits)

    def _headers(self) -> str:
        chance = self._random
        agent = chance.choice(_AGENTS)
        visitor = chance.randrange(VISITORS)
        headers = f"X-Forwarded-For: 198.18.{visitor >> 8}.{visitor & 255}\r\n"
        if chance.random() < 0.03:
            headers += "Sec-Purpose: prefetch\r\n"
        return headers + (f"User-Agent: {agent}\r\n" if agent else "")

    def _expect(self, is_so: bool, mark: str, reply: Reply) -> None:
        if not is_so:
            self._ledger.faults.append(f"{mark}: {reply.status} {reply.headers} {reply.body[:200]!r}")
