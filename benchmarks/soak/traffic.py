"""The mixed traffic of the benchmarks, each request with a mark of its own; and requests that no client should send."""

import random
import re
from itertools import count
from pathlib import Path
from typing import NamedTuple

from benchmarks import ledger as kinds
from benchmarks.mixed_traffic import MixedTraffic, Plan, Reply
from benchmarks.soak.ledger import OK, REFUSED, WRONG

BAD_SHARE = 0.02
NOWHERE = "/aff_c?offer_id=4040&aff_id=1"
"""A click on an offer that the catalog does not have: 404, and a row that says why."""
_ID = re.compile(r"\b[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}\b")
_TOUCHES = (kinds.CLICKS, kinds.BOTS, kinds.PREVIEWS, kinds.IMPRESSIONS)
LOST_KIND, BAD_KIND = "click on no offer", "bad request"


class Marked(NamedTuple):
    """A request ready to be sent. `plan` is None for a bad one; `raw`: its bytes where it is no HTTP; `status`: its answer."""

    mark: str
    kind: str
    family: str
    plan: Plan | None
    method: str = "GET"
    target: str = ""
    body: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    raw: bytes = b""
    status: int = 0


class SoakTraffic:
    """Endless: `next_request` is told the time, `settle` what was answered."""

    def __init__(self, catalog: Path, prefix: str, seed: int) -> None:
        self._traffic = MixedTraffic(catalog, prefix)
        self._chance = random.Random(seed)
        self._marks = (f"{prefix}-{number}" for number in count())

    def next_request(self, now_s: float) -> Marked:
        """What is due now, marked."""
        mark = next(self._marks)
        if self._chance.random() < BAD_SHARE:
            return self._bad(mark)
        plan = self._traffic.next_plan(now_s)
        target, body = plan.target, plan.body
        if body:
            body += f"&adv_sub4={mark}"
        else:
            target += f"&{'aff_sub4' if plan.row in _TOUCHES else 'adv_sub4'}={mark}"
        return Marked(mark, plan.row, _family(plan), plan, plan.method, target, body, plan.headers)

    def settle(self, request: Marked, reply: Reply, now_s: float) -> tuple[str, str, str]:
        """(outcome, the click's id or "", what is wrong or "")."""
        if reply.status == 503 and "Retry-After" in reply.headers and request.family:
            return REFUSED, "", ""
        if request.plan is None:
            is_right = reply.status == request.status
            return (OK, "", "") if is_right else (WRONG, "", f"{reply.status} for {request.target or request.raw[:60]!r}")
        fault = self._traffic.settle(request.plan, reply, now_s)
        if fault:
            return WRONG, "", f"{request.kind}: {fault}"
        found = _ID.search(reply.headers.get("Location", ""))
        return OK, found[0] if found else "", ""

    def _bad(self, mark: str) -> Marked:
        """Each kind in its turn of chance."""
        kind = BAD_KIND
        match self._chance.randrange(6):
            case 0:
                return Marked(mark, LOST_KIND, "", None, target=f"{NOWHERE}&aff_sub4={mark}", status=404)
            case 1:
                return Marked(mark, kind, "", None, target=f"/no/such/path?aff_sub4={mark}", status=404)
            case 2:
                return Marked(mark, kind, "", None, "DELETE", f"/aff_c?offer_id=1&aff_id=1&aff_sub4={mark}", status=405)
            case 3:
                target = f"/aff_c?offer_id=1&aff_id=1&aff_sub4={mark}&aff_sub={'x' * 9000}"
                return Marked(mark, kind, "", None, target=target, status=431)
            case 4:
                raw = f"GET /aff_c?offer_id=1&aff_id=1&aff_sub4={mark} HTTP/1.1\nHost: edge.test\n\n".encode()
                return Marked(mark, kind, "", None, raw=raw, status=400)
            case _:
                raw = f"GET /aff_c?offer_id=1&aff_id=1&aff_sub4={mark} HTTP/3.0\r\nHost: edge.test\r\n\r\n".encode()
                return Marked(mark, kind, "", None, raw=raw, status=400)


def _family(plan: Plan) -> str:
    """The click and goal that a conversion is of: one of a family earns. "forged" for those of no click; else ""."""
    if plan.row in _TOUCHES:
        return ""
    if plan.row == kinds.FORGED:
        return "forged"
    found = _ID.search(plan.target) or _ID.search(plan.body) or _ID.search(plan.headers.get("Cookie", ""))
    if found is None:
        raise ValueError(f"a conversion without a click: {plan}")
    return f"{found[0]}/{'goal' if plan.target.startswith('/aff_goal') else ''}"
