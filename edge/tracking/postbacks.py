"""Partners' postbacks, decided: which addresses a conversion is told to, when an attempt is repeated, what it is signed with."""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

from edge.tracking.catalog_document import Partner
from edge.tracking.catalog_fields import SIGNING_PREFIX

MAX_ATTEMPTS = 12
GROWTH = 3
LONGEST_PAUSE_S = 6 * 3600.0
GONE = 410

# Each name is looked through once: what a partner answers may be nothing but names, thousands of them.
_SECRET_PARAMETER = re.compile(
    r"(?<=[?&])(?=[^?=&#]*(?:secret|token|passw|api_?key|signature))([^?=&#]*=)[^&#]+", re.IGNORECASE
)


class Target(NamedTuple):
    """An address of a partner's. `number` 0: its `postback_url`; n: the n-th of its `postbacks`."""

    number: int
    method: Literal["GET", "POST"]
    url: str


def targets_of(partner: Partner, offer_id: int, goal_id: int, status: str) -> Iterator[Target]:
    """Where a conversion that now has this status is told. A blocked partner is told nothing."""
    if partner.status == "blocked":
        return
    if partner.postback_url and status == "approved":
        yield Target(0, "GET", partner.postback_url)
    for number, one in enumerate(partner.postbacks, 1):
        is_offer = not one.offer_ids or offer_id in one.offer_ids
        is_goal = not one.goal_ids or goal_id in one.goal_ids
        if is_offer and is_goal and status in one.statuses:
            yield Target(number, one.method, one.url)


def is_given_up(attempts: int, status_code: int) -> bool:
    """Whether a failed attempt was the last: the twelfth, or the partner says that the address is gone for good."""
    return attempts >= MAX_ATTEMPTS or status_code == GONE


def pause_s(attempts: int, first_pause_s: float, chance: float, asked_s: float = 0.0) -> float:
    """How long after the failed attempt of that number the next is due. `chance`: 0 to 1; `asked_s`: by Retry-After.

    With a first pause of 5 s the pauses are 5 s, 15 s, 45 s … 3 h, then 6 h, each a fifth shorter to a fifth longer, so
    that rows which failed together do not come back together: twelve attempts in 18 to 27 hours.
    """
    pause: float = min(LONGEST_PAUSE_S, first_pause_s * GROWTH ** (min(attempts, MAX_ATTEMPTS) - 1))
    return max(pause * (0.8 + 0.4 * chance), min(asked_s, LONGEST_PAUSE_S))


def asked_pause_s(retry_after: str, now: datetime) -> float:
    """The seconds that a Retry-After header asks for, as a number or as a date; 0 for none or nonsense."""
    text = retry_after.strip()
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds())


def sign(secret: str, message_id: str, unix_s: int, payload: bytes) -> dict[str, str]:
    """The Standard Webhooks headers over `payload`; `secret` as `whsec_…`, without one no signature."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(unix_s)}
    if secret:
        key = b64decode(secret.removeprefix(SIGNING_PREFIX))
        digest = hmac.digest(key, f"{message_id}.{unix_s}.".encode() + payload, hashlib.sha256)
        headers["webhook-signature"] = f"v1,{b64encode(digest).decode()}"
    return headers


def without_secrets(url: str) -> str:
    """`url` as it may be shown: the values of parameters that are called secret, token, password or the like are left out."""
    return _SECRET_PARAMETER.sub(r"\1…", url)
