"""One attempt to tell a partner: the request, bounded in time and size, and what became of it."""

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver
from yarl import URL

from edge.enrich import Enricher
from edge.sender.guard import Network, guarded_socket
from edge.tracking.macros import compile_template
from edge.tracking.parameters import clean
from edge.tracking.postback_values import Facts, body_of, value_of
from edge.tracking.postbacks import asked_pause_s, is_given_up, pause_s, sign, without_secrets
from edge.tracking.surroundings import Device
from storage.postgres.outbox import Attempt, Due

MAX_ANSWER_BYTES = 4096
MAX_ERROR_CHARS = 500
CONNECT_TIMEOUT_S = 5.0
_OF_DEVICE: dict[str, Callable[[Device], str]] = {
    "device_model": lambda device: device.device_model,
    "device_os_version": lambda device: device.os_version,
}
_HEADERS = {"User-Agent": "ClickEdge-postback/1", "Accept": "*/*", "Accept-Encoding": "identity"}


class Message(NamedTuple):
    """A request, ready to be sent."""

    method: str
    url: str
    body: bytes
    message_id: str
    secret: str


class Answer(NamedTuple):
    """What came back. `status_code` 0: nothing, and `error` says why."""

    status_code: int
    error: str
    text: str = ""
    retry_after: str = ""


def open_client(
    allowed: Sequence[Network], timeout_s: float, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """A client that follows nothing, keeps no cookie, asks no proxy, and connects to public or `allowed` addresses only."""
    return aiohttp.ClientSession(
        # Without a resolver given, aiodns: in the loop's few threads, some names that nobody answers for would keep all
        # the others waiting. The connector closes that one itself.
        connector=aiohttp.TCPConnector(limit=0, resolver=resolver, socket_factory=guarded_socket(allowed)),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s)),
        headers=_HEADERS,
        auto_decompress=False,
        trust_env=False,
    )


@cache
def _enricher() -> Enricher:
    """Reads user agents; a third of a second and its memory only where a partner asks for what no column holds."""
    return Enricher(None, time.monotonic)


def _value_of(facts: Facts, name: str) -> str:
    fact = _OF_DEVICE.get(name)
    if fact is None:
        return value_of(facts, name)
    user_agent = facts.click.get("user_agent")
    return fact(_enricher().device(user_agent)) if user_agent else ""


def compose(due: Due, facts: Facts) -> Message:
    """The request that `due` stands for. Its id is the same for every attempt."""
    url = compile_template(due.url).expand(lambda name: _value_of(facts, name))
    body = orjson.dumps(body_of(facts, due.created_at)) if due.method == "POST" else b""
    secret = facts.partner.postback_secret if facts.partner else ""
    return Message(due.method, url, body, f"{due.conversion_id.hex}-{due.outbox_id}", secret)


async def deliver(client: aiohttp.ClientSession, due: Due, facts: Facts, first_pause_s: float) -> Attempt:
    """Send, and judge the answer: 2xx is delivered, everything else is tried again or given up. Never raises.

    A GET whose connection breaks before an answer is asked once more by the client at once, as RFC 9112 (9.3.1) has it.
    """
    attempted_at, started_s = datetime.now(UTC), time.perf_counter()
    url = ""
    try:
        message = compose(due, facts)
        url = message.url
        answer = await _ask(client, message)
    except TimeoutError:
        answer = Answer(0, "no answer in time")
    except Exception as error:  # whatever it is, it is about this partner: the others hear all the same
        answer = Answer(0, _words(error))
    duration_ms = round((time.perf_counter() - started_s) * 1000)
    return judge(due, url, attempted_at, duration_ms, answer, first_pause_s)


def judge(
    due: Due, url: str, attempted_at: datetime, duration_ms: int, answer: Answer, first_pause_s: float
) -> Attempt:
    """The attempt as it is logged, and what is to become of its row."""
    is_delivered = 200 <= answer.status_code < 300
    is_dead = not is_delivered and is_given_up(due.attempts, answer.status_code)
    asked_s = asked_pause_s(answer.retry_after, attempted_at)
    return Attempt(
        due.outbox_id,
        due.conversion_id,
        due.attempts,
        attempted_at,
        due.method,
        without_secrets(url),
        answer.status_code,
        duration_ms,
        "" if is_delivered else without_secrets(answer.error)[:MAX_ERROR_CHARS],
        without_secrets(answer.text),
        "delivered" if is_delivered else "dead" if is_dead else "failed",
        pause_s(due.attempts, first_pause_s, random.random(), asked_s),
    )


async def _ask(client: aiohttp.ClientSession, message: Message) -> Answer:
    signed = message.body or URL(message.url, encoded=True).raw_query_string.encode()
    headers = sign(message.secret, message.message_id, int(time.time()), signed)
    if message.body:
        headers["Content-Type"] = "application/json"
    async with client.request(
        message.method,
        URL(message.url, encoded=True),
        data=message.body or None,
        headers=headers,
        allow_redirects=False,
    ) as response:
        text = await _read(response)
        return Answer(response.status, _fault_in(response), text, response.headers.get("Retry-After", ""))


def _fault_in(response: aiohttp.ClientResponse) -> str:
    if 300 <= response.status < 400:
        place = clean(response.headers.get("Location", ""))
        return f"a redirect, which is not followed: {place}"
    return f"answered {response.status}"


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return clean(f"cannot connect: {error.os_error.strerror or error.os_error}")
    return clean(str(error)) or type(error).__name__


async def _read(response: aiohttp.ClientResponse) -> str:
    """The beginning of the answer's text. The status is what counts: a body that breaks off takes nothing from it."""
    data = bytearray()
    try:
        while len(data) < MAX_ANSWER_BYTES and (part := await response.content.read(MAX_ANSWER_BYTES - len(data))):
            data += part
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass
    if not response.content.at_eof():
        response.close()  # what is left of it is not waited for
    return clean(data.decode("utf-8", "replace"))
