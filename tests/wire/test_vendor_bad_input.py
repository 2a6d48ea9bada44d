"""Nonsense in every parameter of every vendor's requests: answered in the vendor's words, harmless, never an error of ours."""

import json
import re
from urllib.parse import quote_plus

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.tracking.dialects import TABLE, Entry, dispatch
from edge.tracking.payouts import parse_amount
from edge.tracking.vendors.row import Row
from storage.journal.events import Conversion, decode
from tests.wire.dialect_examples import MOVED
from tests.wire.edge_state import NOW_MS, build_state, request_of
from tests.wire.test_bad_input import HEAD, assert_harmless, fuzzed

MAX_BODY_BYTES = 2000
AMOUNTS = ["1e999", "-5", "NaN", "1,50", "9" * 40, "0x10", "∞", "1_000", " 1", "1.", "Infinity", "0." + "1" * 40]
NASTY = [
    *AMOUNTS, "17", "2", "0", "99999999999", "x" * 3000, "\0\r\nLocation: https://evil.example/", "https://evil.example/",
    "//evil.example", "<script>", '"}', "{transaction_id}", "%", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "\u2028", "SL2", "k9ab", "NOW", "sale", "lead,sale", "../..", "__class__",
]  # fmt: skip


def names_of(row: Row) -> list[str]:
    """Every parameter that the row says anything about, and ours that money and status depend on."""
    said = row.statuses
    listed = (said.name, *said.lists, *said.ignored_by) if said else ()
    items = [f"{one}1" for one in (row.items.price, row.items.quantity, *row.items.subtotals)] if row.items else []
    spoken = row.reply.said_by if row.reply else ""
    return [
        *dict.fromkeys(
            [*row.names, *row.aliases, *row.goals[:2], *listed, *items, *(tell.partition("=")[0] for tell in row.tells)]
        ),
        *([row.items.discount] if row.items else []),
        *([spoken] if spoken else []),
        *(
            "transaction_id",
            "amount",
            "currency",
            "payout",
            "status",
            "goal_id",
            "url",
            "datetime",
            "format",
            "offer_id",
        ),
    ]


def path_of(row: Row, segment: str = "x1") -> str:
    return re.sub(r"\{[a-z]+\}", segment, row.path)


def tells_of(row: Row) -> dict[str, str]:
    return {name: value or "1" for name, _, value in (tell.partition("=") for tell in row.tells)}


def encode(params: dict[str, str]) -> str:
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in params.items())


def test_every_parameter_of_every_row_takes_any_value() -> None:
    """One by one, beside a genuine click: no exception, an answer, an event that decodes or none."""
    state = build_state(MOVED)
    click_id = state.ids.mint(NOW_MS).hex()
    for entry in TABLE:
        row = entry.row
        genuine = {name: click_id for name, ours in row.names.items() if ours == "transaction_id"}
        for name in names_of(row):
            for value in NASTY:
                params = {**tells_of(row), "transaction_id": click_id, **genuine, name: value}
                for method in ("GET", "POST"):
                    handled = dispatch(state, request_of(encode(params), path=path_of(row), method=method))
                    assert handled.answer.status in (200, 202, 302, 400, 404, 405)
                    assert "evil" not in handled.answer.location.partition("?")[0]
                    if handled.event:
                        decode(handled.event)


def test_a_bad_amount_is_kept_as_it_was_sent_and_answered_with_success() -> None:
    """`success` says recorded; that it is no amount is the verdict's to say. Nothing is made up in its place.

    Forty digits of cents are as many as dollars with a point in them.
    """
    state = build_state(MOVED)
    click_id = state.ids.mint(NOW_MS).hex()
    for entry, name in MONEY:
        for amount in AMOUNTS:
            request = request_of(encode(conversion(entry.row, click_id, {name: amount})), path=path_of(entry.row))
            method = "POST" if entry.row.methods == {"POST"} else "GET"
            handled = dispatch(state, request_of(encode(request.params), path=request.path, method=method))
            assert handled.outcome == "recorded", (entry.vendor, name, amount)
            event = decode(handled.event)
            assert isinstance(event, Conversion)
            assert parse_amount(event.params["amount"]) is None
            assert entry.row.is_minor or event.params["amount"] == request.params[name]


def conversion(row: Row, click_id: str, params: dict[str, str]) -> dict[str, str]:
    """A good conversion of that click in the row's words."""
    named = {name: click_id for name, ours in row.names.items() if ours == "transaction_id"}
    goal = {row.goals[0]: "1"} if row.goals else {"goal_id": "1"} if row.kind == "goal_postback" else {}
    return {**tells_of(row), "transaction_id": click_id, **named, **goal, **params}


def money_of(row: Row) -> list[str]:
    """The parameters in which the row's senders say an amount."""
    return [name for name, ours in row.names.items() if "amount" in ours.split()] or ["amount"]


CONVERSIONS = ("postback", "goal_postback", "pixel", "goal_pixel")
MONEY: list[tuple[Entry, str]] = [
    (entry, name) for entry in TABLE if entry.row.kind in CONVERSIONS for name in money_of(entry.row)
]

_VALUES = st.one_of(
    st.sampled_from([value for value in NASTY if len(value) < 100]),
    st.binary(max_size=12).map(lambda raw: raw.decode("latin-1")),
    st.text(max_size=20),
    st.decimals().map(str),
)
_ROWS = st.sampled_from(TABLE)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request of any row, by any way that a body or a query may come."""
    row = draw(_ROWS).row
    names = names_of(row)
    params = tells_of(row) | draw(st.dictionaries(st.sampled_from(names), _VALUES, max_size=6))
    path = path_of(row, draw(st.sampled_from(["x1", "17", "2", "SL2", "k9ab", "%2e", "a.b", "é", ""])))
    target = quote_plus(path, safe="/%{}.")
    sent = {name: value.encode("utf-8", "replace").decode() for name, value in params.items()}
    how = draw(st.sampled_from(["GET", "GET", "HEAD", "OPTIONS", "form", "json", "numbers"]))
    if how in ("GET", "HEAD", "OPTIONS"):
        line = f"{how} {target}?{encode(sent)} HTTP/1.1\r\n"
        return line.encode() + HEAD + b"Connection: close\r\n\r\n"
    body = encode(sent) if how == "form" else json.dumps(sent)
    if how == "numbers":
        body = re.sub(r'"(-?[0-9]{1,30})"', r"\1", body)
    kind = "application/x-www-form-urlencoded" if how == "form" else "application/json"
    authorization = draw(st.sampled_from(["Bearer x", "Basic !", "Basic eDp5", "", "Bearer"]))
    head = f"POST {target} HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body.encode())}\r\n"
    return head.encode() + f"Authorization: {authorization}\r\n".encode() + HEAD + b"\r\n" + body.encode()


def test_no_vendors_request_does_harm() -> None:
    """Never 5xx, never a Location beyond the catalog's hosts, never a header or control byte too many, never a log line."""
    with fuzzed(MOVED) as (port, exchange):

        @settings(max_examples=700, deadline=None)
        @given(requests())
        def check(request: bytes) -> None:
            reply = exchange(request)
            if reply.status == 204:
                assert reply.body == b""
                return
            assert_harmless(reply, max_body_bytes=MAX_BODY_BYTES)
            assert reply.status in (200, 302, 400, 404, 405)

        check()
        assert len(port.events()) > 50
