"""What vendors send, from their own words to the row in Postgres: the money, the goal, and the reject of what is none."""

from decimal import Decimal
from pathlib import Path
from uuid import UUID

from edge.tracking.dialects import dispatch
from edge.tracking.request import Kind
from storage.journal.events import Conversion, Session, decode
from tests.postgres.drains import SECRET, Bench, Scribe, now_ms, open_bench
from tests.recount import differences
from tests.wire.dialect_examples import EXAMPLES, MOVED
from tests.wire.edge_state import SECRET as PORT_SECRET
from tests.wire.edge_state import build_state, request_of
from tests.wire.test_vendor_bad_input import AMOUNTS, MONEY, conversion, encode, path_of

assert SECRET == PORT_SECRET


def post(scribe: Scribe, path: str, query: str, method: str) -> bytes:
    """A request as a worker handles it, journalled; the conversion's id."""
    state = build_state(MOVED)
    state.catalog.revision = 1
    state.ids = scribe.ids
    handled = dispatch(state, request_of(query, path=path, method=method, now_ms=now_ms()))
    event = decode(handled.event)
    assert isinstance(event, Conversion)
    assert handled.kind in (Kind.POSTBACK, Kind.PIXEL)
    scribe.raw(handled.event, "conversion", event.conversion_id)
    return event.conversion_id


def seen(scribe: Scribe) -> str:
    """A click of offer 17, stored; its id as senders have it."""
    session: Session = scribe.session()
    return scribe.click(session).hex()


async def test_no_vendors_bad_amount_is_ever_paid(data_dir: Path, database: str) -> None:
    """Stored as a reject with its reason, in whatever parameter it came; the books stay right."""
    async with open_bench(data_dir, database, MOVED) as bench:
        scribe = bench.scribe()
        sent = {}
        for entry, name in MONEY:
            for amount in AMOUNTS:
                query = encode(conversion(entry.row, seen(scribe), {name: amount}))
                method = "POST" if entry.row.methods == {"POST"} else "GET"
                conversion_id = post(scribe, path_of(entry.row), query, method)
                sent[conversion_id] = (entry.vendor, name, amount)
        await bench.drain()
        for conversion_id, what in sent.items():
            assert await bench.verdict(conversion_id) == ("rejected", "invalid_amount"), what
        assert await bench.value("SELECT sum(payout) + sum(revenue) + sum(amount) FROM conversions") == 0
        assert await bench.value("SELECT count(*) FROM quarantine") == 0
        assert await differences(bench.conn) == []


async def test_a_vendors_good_conversion_is_stored_with_its_amount_and_dialect(data_dir: Path, database: str) -> None:
    """The first postback or pixel of each vendor's examples that can be sent by GET."""
    async with open_bench(data_dir, database, MOVED) as bench:
        scribe = bench.scribe()
        sent = {}
        for example in EXAMPLES:
            if example.name in ("postback", "pixel") and example.method == "GET" and not example.by_contact:
                path, _, query = example.target.replace("{click}", seen(scribe)).partition("?")
                sent[post(scribe, path, query, "GET")] = example
        await bench.drain()
        assert {example.vendor for example in sent.values()} >= {"tune", "everflow", "voluum", "keitaro", "cake"}
        for conversion_id, example in sent.items():
            await assert_stored(
                bench, conversion_id, example.params, "" if example.vendor == "tune" else example.vendor
            )


async def assert_stored(bench: Bench, conversion_id: bytes, params: dict[str, str], dialect: str) -> None:
    """The row says what was sent; a foreign currency's amount stands beside it."""
    [(amount, stored, extras)] = await bench.rows(
        "SELECT amount, extras ->> 'dialect', extras ->> 'amount_sent' FROM conversions WHERE conversion_id = $1",
        UUID(bytes=conversion_id),
    )
    assert (stored or "") == dialect
    is_foreign = params.get("currency", "USD") != "USD"
    assert amount == (0 if is_foreign else Decimal(params.get("amount", "0")))
    assert bool(extras) == is_foreign
