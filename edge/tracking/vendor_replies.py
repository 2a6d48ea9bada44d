"""The answer in the vendor's words, of what our own handler made of the request."""

from collections.abc import Mapping

import orjson

from edge.tracking.catalog import Catalog
from edge.tracking.replies import Refusal
from edge.tracking.request import Answer, Handled
from edge.tracking.translation import Translated
from edge.tracking.vendors.row import JSON, TEXT, Reply, Sent

MAX_SAID_CHARS = 256
MAX_ECHO_CHARS = 100
MAX_NUMBER_DIGITS = 15
NOSNIFF = (("X-Content-Type-Options", "nosniff"),)


def reply_to(translated: Translated, handled: Handled, reply: Reply, catalog: Catalog) -> Answer:
    """What `reply` says of `handled`. What is echoed is clean already, is cut, and is no HTML to any browser."""
    is_good = handled.outcome == "recorded" or translated.is_ignored
    facts = _facts(translated, handled, catalog)
    status = reply.success_status if is_good else reply.failure_status
    body = reply.success if is_good else reply.failure
    said = translated.sent.get(reply.said_by, "") if is_good and reply.said_by else ""
    extra = (*handled.answer.extra, *NOSNIFF)
    if said:
        return Answer(status, said[:MAX_SAID_CHARS].encode(), TEXT, extra=extra)
    if isinstance(body, str):
        return Answer(status, body.replace("{problem}", facts["problem"]).encode(), TEXT, extra=extra)
    return Answer(status, orjson.dumps(_fill(body, facts)), JSON, extra=extra)


def _facts(translated: Translated, handled: Handled, catalog: Catalog) -> dict[str, str]:
    answer, session = handled.answer, handled.session
    offer = catalog.offer(session.offer_id) if session else None
    return {
        **translated.sent,
        "click_id": session.click_id.hex() if session else "",
        "window_hours": str(offer.click_window_s // 3600) if offer else "",
        "problem": answer.problem if isinstance(answer, Refusal) else "unknown offer or link",
    }


def _fill(body: object, facts: Mapping[str, str]) -> object:
    if isinstance(body, Sent):
        value = facts.get(body.name, "")[:MAX_ECHO_CHARS]
        is_number = body.is_number and value.isascii() and value.isdigit() and len(value) <= MAX_NUMBER_DIGITS
        return int(value) if is_number else value or None
    if isinstance(body, Mapping):
        return {name: _fill(one, facts) for name, one in body.items()}
    return body
