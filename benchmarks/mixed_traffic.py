"""Requests as a tracking edge gets them, what each must be answered, and what must be stored of it.

Clicks of a skewed crowd, some by bots; impressions; HEAD previews; forged ids; and after some clicks, later, a postback
or a pixel, now and then the same one twice. The catalog is any file for `clickedge apply`: only offers whose conversions
are decided by their click alone take part.
"""

import heapq
import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks import ledger
from benchmarks.ledger import Ledger
from benchmarks.traffic import OFFERS_OF_A_PARTNER, Traffic

CONVERTING, CONVERTING_TO_A_GOAL, SENT_TWICE = 0.25, 0.3, 0.12
"""Shares: of the clicks, of these, and of the conversions."""
MEAN_DELAY_S = 2.0
"""Of a conversion after its click, and of the same postback's second time after its first; exponential."""
_KINDS = {"click": 78, "impression": 16, "preview": 3, "forged": 3}
_WAYS = {"postback": 50, "postback (POST)": 20, "pixel": 12, "pixel (cookie)": 18}
_GIF_BYTES = 43
_ID = re.compile(r"\b[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}\b")
_OWN_RULES = {
    "status", "expires_at", "approval", "duplicates", "min_seconds_to_convert", "caps", "tiers", "tracking", "pixels", "rules",
}  # fmt: skip


class Offer(NamedTuple):
    """What the traffic must know of an offer: where its clicks lead, one of its goals (0: it has none), its token."""

    id: int
    host: str
    goal_id: int
    token: str


class Plan(NamedTuple):
    """One request. `kind`: its name in reports; `row`: the kind of row it becomes; `offer`: None where none is named."""

    kind: str
    row: str
    target: str
    headers: dict[str, str]
    method: str = "GET"
    body: str = ""
    offer: Offer | None = None
    transaction_id: str = ""


class Reply(NamedTuple):
    """An answer; status 0: there was none."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read_catalog(path: Path) -> tuple[dict[int, Offer], list[int]]:
    """Offers by id and the ids of active partners; ValueError when there is none of either that can be used."""
    catalog = tomllib.loads(path.read_text(encoding="utf-8"))
    tokens = {one["id"]: one.get("security_token", "") for one in catalog["advertisers"]}
    offers = {one["id"]: _offer(one, tokens) for one in catalog["offers"] if not _OWN_RULES & one.keys()}
    partners = [one["id"] for one in catalog["partners"] if one.get("status", "active") == "active"]
    if not offers or not partners:
        raise ValueError(f"{path} has no offer or no partner that this traffic can use")
    return offers, partners


def _offer(one: Mapping[str, Any], tokens: Mapping[int, str]) -> Offer:
    goals = [goal["id"] for goal in one.get("goals", []) if not _OWN_RULES & goal.keys()]
    host = urlsplit(one["url"]).hostname or ""
    return Offer(one["id"], host, goals[0] if goals else 0, tokens.get(one["advertiser_id"], ""))


class MixedTraffic:
    """Plans requests and judges their answers; the ledger is told of both. Not for several threads."""

    def __init__(self, catalog: Path, run: str, seed: int = 20261121) -> None:
        self.ledger = Ledger(run)
        self._chance = random.Random(seed)
        self._offers, partners = read_catalog(catalog)
        self._queries = self._endless_queries(partners)
        self._pending: list[tuple[float, int, Plan]] = []
        self._planned = 0

    def next_plan(self, now_s: float) -> Plan:
        """The request to send now, written down as sent: the conversion that is due longest, else anything new."""
        if self._pending and self._pending[0][0] <= now_s:
            plan = heapq.heappop(self._pending)[2]
        else:
            kind = self._chance.choices(list(_KINDS), list(_KINDS.values()))[0]
            plan = self._plan_forged() if kind == "forged" else self._plan_visit(kind)
        self.ledger.sent[plan.row] += 1
        return plan

    def settle(self, plan: Plan, reply: Reply, now_s: float) -> str:
        """What is wrong with the answer, "" for nothing; a right one is written down, and what follows it is planned."""
        if fault := self._fault(plan, reply):
            return fault
        self.ledger.answered[plan.row] += 1
        if plan.method == "HEAD" or plan.row in (ledger.CLICKS, ledger.BOTS):
            self.ledger.click_ids.append(_id_in(reply))
        if plan.row == ledger.CLICKS and plan.offer and self._chance.random() < CONVERTING:
            self._plan_conversions(plan.offer, reply, now_s)
        elif plan.row == ledger.APPROVED and self._chance.random() < SENT_TWICE:
            self._plan_later(plan._replace(kind="duplicate", row=ledger.DUPLICATES), now_s)
        return ""

    def _endless_queries(self, partners: list[int]) -> Iterator[tuple[str, str, str]]:
        traffic = Traffic()
        share = min(OFFERS_OF_A_PARTNER, len(self._offers))
        traffic.campaigns = [
            (offer_id, aff_id) for aff_id in partners for offer_id in self._chance.sample(list(self._offers), share)
        ]
        self._chance.shuffle(traffic.campaigns)
        while True:
            yield from traffic.queries(1000)

    def _plan_visit(self, kind: str) -> Plan:
        query, user_agent, address = next(self._queries)
        offer = self._offers[int(query.partition("&")[0].removeprefix("offer_id="))]
        headers = {
            "User-Agent": user_agent,
            "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
            "Accept-Language": "en-US,en;q=0.9",
            "Referer": "https://blog.example.com/deals/7",
            "X-Forwarded-For": address,
        }
        query += f"&aff_sub5={self.ledger.run}"
        if kind == "impression":
            return Plan(kind, ledger.IMPRESSIONS, f"/aff_i?{query}", headers, offer=offer)
        if kind == "preview":
            return Plan(kind, ledger.PREVIEWS, f"/aff_c?{query}", headers, "HEAD", offer=offer)
        is_bot = "bot" in user_agent.lower()
        row = ledger.BOTS if is_bot else ledger.CLICKS
        return Plan("click by a bot" if is_bot else kind, row, f"/aff_c?{query}", headers, offer=offer)

    def _plan_forged(self) -> Plan:
        """Half of them pure chance, half a real id with one digit changed."""
        sent = f"{self._chance.getrandbits(128):032x}"
        if self.ledger.click_ids and self._chance.random() < 0.5:
            real = self._chance.choice(self.ledger.click_ids)
            sent = real[:-1] + f"{int(real[-1], 16) ^ 1:x}"
        target = f"/aff_lsr?{self._conversion_query(sent)}"
        return Plan("forged postback", ledger.FORGED, target, self._server_headers(), transaction_id=sent)

    def _plan_conversions(self, offer: Offer, reply: Reply, now_s: float) -> None:
        click_id = _id_in(reply)
        way = self._chance.choices(list(_WAYS), list(_WAYS.values()))[0]
        self._plan_later(self._plan_conversion(way, offer, click_id, reply.headers.get("Set-Cookie", "")), now_s)
        if offer.goal_id and self._chance.random() < CONVERTING_TO_A_GOAL:
            query = self._conversion_query(click_id, offer)
            target = f"/aff_goal?a=lsr&goal_id={offer.goal_id}&{query}"
            self._plan_later(Plan("goal postback", ledger.APPROVED, target, self._server_headers()), now_s)

    def _plan_conversion(self, way: str, offer: Offer, click_id: str, cookie: str) -> Plan:
        query = self._conversion_query(click_id, offer)
        if way == "postback (POST)":
            headers = {**self._server_headers(), "Content-Type": "application/x-www-form-urlencoded"}
            return Plan(way, ledger.APPROVED, "/aff_lsr", headers, "POST", query)
        if way == "postback":
            return Plan(way, ledger.APPROVED, f"/aff_lsr?{query}", self._server_headers())
        browser = {"User-Agent": "Mozilla/5.0 (Linux; Android 15; Pixel 8)", "Accept": "image/*"}
        if way == "pixel (cookie)":
            browser["Cookie"] = cookie.partition(";")[0]
            query = query.partition("&")[2]  # without the id, which comes first
        return Plan(way, ledger.APPROVED, f"/aff_l?offer_id={offer.id}&{query}", browser)

    def _plan_later(self, plan: Plan, now_s: float) -> None:
        self._planned += 1  # decides between equal times: plans have no order
        due_s = now_s + self._chance.expovariate(1 / MEAN_DELAY_S)
        heapq.heappush(self._pending, (due_s, self._planned, plan))

    def _conversion_query(self, click_id: str, offer: Offer | None = None) -> str:
        token = f"&security_token={offer.token}" if offer and offer.token else ""
        amount = self._chance.randrange(100, 20_000) / 100
        order = self._chance.randrange(10**9)
        return f"transaction_id={click_id}&amount={amount}&adv_sub=order-{order}&adv_sub5={self.ledger.run}{token}"

    def _server_headers(self) -> dict[str, str]:
        return {"User-Agent": "ShopServer/2.1", "Accept": "*/*"}

    def _fault(self, plan: Plan, reply: Reply) -> str:
        if plan.row in (ledger.CLICKS, ledger.BOTS, ledger.PREVIEWS):
            return _redirect_fault(plan, reply)
        if plan.target.startswith(("/aff_i?", "/aff_l?")):
            is_right = reply.body.startswith(b"GIF89a") and len(reply.body) == _GIF_BYTES
        elif plan.row == ledger.FORGED:
            is_right = reply.body == f"success=false; err_msg=Invalid Trans. ID #{plan.transaction_id}.;".encode()
        else:
            is_right = reply.body == b"success=true;"
        return "" if is_right and reply.status == 200 else f"{reply.status} {reply.body[:100]!r}"


def _redirect_fault(plan: Plan, reply: Reply) -> str:
    location = reply.headers.get("Location", "")
    if reply.status != 302 or not location:
        return f"{reply.status} {reply.body[:100]!r}"
    if plan.offer is None or urlsplit(location).hostname != plan.offer.host:
        return "the Location leads to a host that is not the offer's"
    return "" if _ID.search(location) else "no click id in the Location"


def _id_in(reply: Reply) -> str:
    found = _ID.search(reply.headers.get("Location", ""))
    return found[0] if found else ""
