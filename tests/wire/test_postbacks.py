"""Server postbacks through the public port: the words that senders parse, and what is journalled before them."""

import errno
import gzip
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from storage.journal.events import Click, Conversion, encode
from tests.journal_disk import FaultyDisk
from tests.wire.port import Port, serving

pytestmark = pytest.mark.both_loops

SUCCESS = (200, b"success=true;")
FORM = "application/x-www-form-urlencoded"


MULTIPART = "multipart/form-data; boundary=x"


def part(name: str, value: bytes) -> bytes:
    """A field of a form in parts."""
    return b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)


def failure(message: str) -> tuple[int, bytes]:
    return 200, f"success=false; err_msg={message};".encode()


async def ask(port: Port, target: str) -> tuple[int, bytes]:
    reply = await port.get(target)
    return reply.status, reply.body


async def test_a_postback_is_success_and_its_event_has_all_that_was_sent(tmp_path: Path) -> None:
    """Byte for byte, and with the session that this worker holds."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        query = f"transaction_id={click_id}&amount=49.90&adv_sub=A%2F1&conversion_unique_id=o-1&coupon=x"
        reply = await port.get(f"/aff_lsr?{query}", "User-Agent: shop/1")
        assert (reply.status, reply.body) == SUCCESS
        assert reply.get("content-type") == "text/plain; charset=utf-8"
        assert reply.get("cache-control") == "no-store"
        event = port.last(Conversion)
        assert event.session == encode(port.last(Click).session)
        assert (event.via, event.transaction_id, event.click_id.hex()) == ("postback", click_id, click_id)
        assert (event.ip, event.user_agent, event.offer_id, event.goal_id) == ("127.0.0.1", "shop/1", 17, 0)
        assert event.params == {
            "transaction_id": click_id, "amount": "49.90", "adv_sub1": "A/1", "conversion_unique_id": "o-1", "coupon": "x",
        }  # fmt: skip
        assert port.count("edge_requests_total", "postback", "recorded") == 1


async def test_every_form_of_an_id_is_the_same_id(tmp_path: Path) -> None:
    """Upper case and dashes; blanks around it are none of them."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        for sent in (click_id, click_id.upper(), str(UUID(click_id)), str(UUID(click_id)).upper()):
            assert await ask(port, f"/aff_lsr?transaction_id={sent}") == SUCCESS
            assert (port.last(Conversion).click_id.hex(), port.last(Conversion).transaction_id) == (click_id, sent)
        assert await ask(port, f"/aff_lsr?transaction_id=+{click_id}") == failure("Invalid Trans. ID #.")


@pytest.mark.parametrize(
    ("query", "message", "is_stored"),
    [
        ("", "Invalid Trans. ID #.", False),
        ("transaction_id=", "Invalid Trans. ID #.", False),
        ("transaction_id=1027c8", "Invalid Trans. ID #1027c8.", True),
        (
            "transaction_id=0190a3b4c5d67e8f9012345678901234",
            "Invalid Trans. ID #0190a3b4c5d67e8f9012345678901234.",
            True,
        ),
        ("transaction_id=%3Cscript%3E", "Invalid Trans. ID #.", True),
        ("transaction_id=a%0D%0AX: y", "", True),
        ("transaction_id=" + "a" * 65, "Invalid Trans. ID #.", True),
        ("transaction_id=" + "a" * 64, "Invalid Trans. ID #" + "a" * 64 + ".", True),
        ("transaction_id=%C3%BC", "Invalid Trans. ID #.", True),
    ],
)
async def test_an_id_that_is_not_ours_fails_in_tunes_words(
    tmp_path: Path, query: str, message: str, is_stored: bool
) -> None:
    """Echoed only if it cannot be anything else; stored, so that somebody can find out who sends it."""
    async with serving(tmp_path) as port:
        if not message:
            query, message = query.replace(": ", "%3A%20"), "Invalid Trans. ID #."
        assert await ask(port, f"/aff_lsr?{query}") == failure(message)
        assert len(port.events()) == is_stored
        if is_stored:
            assert (port.last(Conversion).click_id, port.last(Conversion).session) == (b"", b"")
        assert port.count("edge_requests_total", "postback", "refused") == 1
        assert port.count("edge_forged_ids_total") == is_stored


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/aff_lsr?offer_id=99", "Invalid Offer ID #99."),
        ("/aff_lsr?offer_id=4294967313", "Invalid Offer ID #4294967313."),
        ("/aff_lsr?goal_id=9", "Invalid Goal ID #9."),
        ("/aff_goal?a=lsr&goal_id=9", "Invalid Goal ID #9."),
        ("/aff_goal?a=lsr&goal_name=nothing", "Invalid Goal ID #nothing."),
        ("/aff_goal?a=lsr", "Invalid Goal ID #."),
    ],
)
async def test_an_unknown_offer_or_goal_fails(tmp_path: Path, target: str, message: str) -> None:
    """Nothing is journalled: there is nothing to decide."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        joint = "&" if "?" in target else "?"
        assert await ask(port, f"{target}{joint}transaction_id={click_id}") == failure(message)
        assert len(port.events()) == 1


@pytest.mark.parametrize(
    ("goal", "goal_id"), [("goal_id=2", 2), ("goal_name=lead", 1), ("goal_name=sale%2C%20first", 2)]
)
async def test_a_goal_is_named_by_id_or_name(tmp_path: Path, goal: str, goal_id: int) -> None:
    """`/aff_goal?a=lsr` and `/aff_lsr` both take it."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        for path in ("/aff_goal?a=lsr&", "/aff_lsr?"):
            assert await ask(port, f"{path}{goal}&transaction_id={click_id}") == SUCCESS
            assert port.last(Conversion).goal_id == goal_id


async def test_replies_are_json_where_that_is_asked_for(tmp_path: Path) -> None:
    """`format=json`; the status stays 200."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        good = await port.get(f"/aff_lsr?format=json&transaction_id={click_id}")
        bad = await port.get("/aff_lsr?format=json&transaction_id=%22%7D")
        assert (good.status, good.body, good.get("content-type")) == (200, b'{"success":true}', "application/json")
        assert (bad.status, json.loads(bad.body)) == (200, {"success": False, "err_msg": "Invalid Trans. ID #."})


@pytest.mark.parametrize("path", ["/aff_lsr", "/aff_goal?a=lsr&goal_id=1", "/SP1", "/GP1"])
async def test_a_postback_may_be_a_form_or_json(tmp_path: Path, path: str) -> None:
    """What is posted joins the query and beats it; numbers stay as they were written."""
    async with serving(tmp_path) as port, aiohttp.ClientSession() as session:
        click_id = await port.click()
        joint = "&" if "?" in path else "?"
        url = f"{port.origin}{path}{joint}amount=1&adv_sub=query"
        sent: dict[str, Any] = {"transaction_id": click_id, "amount": "49.90", "adv_sub2": "ü +&"}
        body = json.dumps(sent).replace('"49.90"', "49.90").encode()
        for arguments in (
            {"data": sent},
            {"data": body, "headers": {"Content-Type": "application/json"}},
            {"data": body, "headers": {"Content-Type": "application/json; charset=utf-8"}},
            {"data": body, "headers": {"Content-Type": "application/vnd.shop+json"}},
        ):
            async with session.post(url, **arguments) as answer:
                assert (answer.status, await answer.read()) == SUCCESS
            params = port.last(Conversion).params
            assert (params["amount"], params["adv_sub1"], params["adv_sub2"]) == ("49.90", "query", "ü +&")
        assert len(port.events()) == 5


async def test_a_form_may_come_in_parts(tmp_path: Path) -> None:
    """As PHP's curl posts an array and `curl -F` a field: no success for a sale whose amount was not read."""
    async with serving(tmp_path) as port, aiohttp.ClientSession() as session:
        click_id = await port.click()
        form = aiohttp.FormData({"amount": "49.90", "adv_sub": "ü +&=\r\n--", "adv_sub2": "", "filename": "x"})
        form.add_field("receipt", b"\xff" * 1000, filename="amount.txt")
        async with session.post(f"{port.origin}/aff_lsr?transaction_id={click_id}", data=form) as answer:
            assert (answer.status, await answer.read()) == SUCCESS
        sent = {"transaction_id": click_id, "amount": "49.90", "adv_sub1": "ü +&=--", "filename": "x"}
        assert port.last(Conversion).params == sent
        body = part("transaction_id", click_id.encode()) + part("amount", b"7") + b"--x--\r\n"
        for boundary in ("x", '"x"', '"x"; charset=utf-8'):
            reply = await port.post("/aff_lsr", body, f"multipart/form-data; boundary={boundary}")
            assert (reply.status, reply.body) == SUCCESS
            assert port.last(Conversion).params == {"transaction_id": click_id, "amount": "7"}


async def test_amounts_in_json_never_become_floats(tmp_path: Path) -> None:
    """Eighteen digits arrive as eighteen digits."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        for amount in ("999999999999.123456", "0.100000", "49.90", "5", "1e3", "123456789012345678901234567890"):
            body = f'{{"transaction_id":"{click_id}","amount":{amount}}}'.encode()
            assert (await port.post("/aff_lsr", body, "application/json")).body == SUCCESS[1]
            assert port.last(Conversion).params["amount"] == amount


async def test_a_body_that_waits_for_permission_gets_it(tmp_path: Path) -> None:
    """`Expect: 100-continue`: the sender is asked for its body; one that is too large is refused at once."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        body = f"transaction_id={click_id}".encode()
        async with port.wire() as wire:
            head = (f"Content-Type: {FORM}", "Expect: 100-continue")
            wire.get("/aff_lsr", *head, f"Content-Length: {len(body)}", method="POST")
            assert (await wire.reply()).status == 100
            wire.send(body)
            assert (await wire.reply()).body == SUCCESS[1]
        async with port.wire() as wire:
            wire.get("/aff_lsr", *head, "Content-Length: 70000", method="POST")
            assert (await wire.reply()).status == 413


async def test_a_client_of_http_1_0_is_asked_for_nothing(tmp_path: Path) -> None:
    """RFC 9110 10.1.1: it knows no `100 Continue`, and would take it for the answer."""
    async with serving(tmp_path) as port, port.wire() as wire:
        body = f"transaction_id={await port.click()}".encode()
        head = f"POST /aff_lsr HTTP/1.0\r\nContent-Type: {FORM}\r\nExpect: 100-continue\r\nContent-Length: {len(body)}"
        wire.send(head.encode() + b"\r\n\r\n" + body)
        reply = await wire.reply()
        assert (reply.status, reply.body) == SUCCESS


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'"transaction_id"', "application/json"),
        (b"[" * 60_000, "application/json"),
        (b'{"a":' * 10_000, "application/json"),
        (b'{"a":"\xff"}', "application/json"),
        (b'{"a":"\\ud800"}', "application/json"),
        (b'{"a":' + b"1" * 50_000 + b"}", "application/json"),
        (b'{"a":NaN}', "application/json"),
        ('{"a":1}'.encode("utf-16"), "application/json"),
        (b"a=b&" * 101, FORM),
        (part("a", b"b") * 101 + b"--x--", MULTIPART),
        (part("transaction_id", b"abc"), MULTIPART.replace("x", "y")),
        (part("transaction_id", b"abc"), "multipart/form-data"),
        (b"--" * 30_000, "multipart/form-data; boundary=-"),
    ],
)
async def test_a_body_that_is_no_form_and_no_flat_object_is_refused(
    tmp_path: Path, body: bytes, content_type: str
) -> None:
    """One plain sentence; nothing is recorded."""
    async with serving(tmp_path) as port:
        reply = await port.post("/aff_lsr", body, content_type)
        assert (reply.status, reply.body) == (400, b"the body is neither a form nor a flat JSON object\n")
        assert port.events() == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", FORM),
        (b'{"transaction_id":null}', "application/json"),
        (b'{"transaction_id":["x"]}', "application/json"),
        (b"\x00\xff\xfe", FORM),
        (b'--x\r\nContent-Disposition: form-data; filename="transaction_id"\r\n\r\nabc\r\n--x--', "multipart/form-data; boundary=x"),
        (b"<xml/>", "text/xml"),
        (b"\xff" * 100, ";;;=\xff/"),
    ],
)  # fmt: skip
async def test_a_body_without_an_id_fails_like_a_query_without_one(
    tmp_path: Path, body: bytes, content_type: str
) -> None:
    """Whatever it is called."""
    async with serving(tmp_path) as port:
        reply = await port.post("/aff_lsr", body, content_type)
        assert (reply.status, reply.body) == failure("Invalid Trans. ID #.")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "nonsense"])
async def test_a_compressed_body_is_refused(tmp_path: Path, encoding: str) -> None:
    """Neither 30 MB out of 30 kB nor garbage is unpacked."""
    async with serving(tmp_path) as port, port.wire() as wire:
        wire.post("/aff_lsr", gzip.compress(b"a" * 30_000_000, 1)[:60_000], FORM, f"Content-Encoding: {encoding}")
        assert (await wire.reply()).status == 415
        assert (await port.get("/livez")).status == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_told_so(tmp_path: Path, method: str) -> None:
    """405 with the allowed ones; a HEAD of somebody's link checker is no conversion."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        reply = await port.get(f"/aff_lsr?transaction_id={click_id}", method=method)
        assert (reply.status, reply.get("allow")) == (405, "GET, POST")
        assert len(port.events()) == 1


async def test_session_look_ups_are_counted_once_a_postback(tmp_path: Path) -> None:
    """A hit where this worker has the session, a miss where another has; none for a forged id."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        for number in range(3):
            await ask(port, f"/aff_lsr?transaction_id={click_id}&adv_sub={number}")
        elsewhere = port.state.ids.mint(0).hex()
        assert await ask(port, f"/aff_lsr?transaction_id={elsewhere}") == SUCCESS
        assert port.last(Conversion).session == b""
        await ask(port, "/aff_lsr?transaction_id=forged")
        name = "edge_session_lookups_total"
        assert (port.count(name, "hit"), port.count(name, "miss")) == (3, 1)


async def test_forged_ids_are_stored_at_a_bounded_rate(tmp_path: Path) -> None:
    """Every one is answered and counted; the journal grows by 100 and then 10 a second."""
    async with serving(tmp_path) as port, port.wire() as wire:
        for number in range(400):
            wire.get(f"/aff_lsr?transaction_id=forged{number}")
            assert (await wire.reply()).body == failure(f"Invalid Trans. ID #forged{number}.")[1]
        stored, unstored = len(port.events()), port.count("edge_unstored_refusals_total")
        assert port.count("edge_forged_ids_total") == stored + unstored == 400
        assert stored >= 100
        assert unstored > 0


async def test_what_cannot_be_recorded_is_never_a_success(tmp_path: Path) -> None:
    """A full disk: 503, when to try again, no event; with space again it works, without a restart."""
    disk = FaultyDisk()
    async with serving(tmp_path, disk=disk) as port:
        click_id = await port.click()
        for fault in ((0, errno.ENOSPC), (9, errno.ENOSPC), (9, 0)):
            disk.short_writes.append(fault)
            reply = await port.get(f"/aff_lsr?transaction_id={click_id}")
            assert (reply.status, reply.get("retry-after")) == (503, "5")
            assert b"success" not in reply.body
        assert len(port.events()) == 1
        assert await ask(port, f"/aff_lsr?transaction_id={click_id}") == SUCCESS
        assert len(port.events()) == 2
        assert port.count("edge_requests_total", "postback", "unavailable") == 3
        assert (port.count("edge_events_dropped_total"), port.broken) == (0, [])
