"""What drain and sender count beside what they store: damage, refusals by reason, lost databases, partners' answers."""

from edge.counters import Counters, cell
from edge.metric_families import POSTBACK_BUCKETS_US
from edge.tracking.status_codes import REJECTIONS
from storage.journal.segments import name_segment
from tests.partners import PartnerServer, say
from tests.postgres.drains import Bench, until
from tests.postgres.senders import partners_toml, sending, states

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
ERRORS = cell("edge_database_errors_total")
CORRUPT = cell("edge_journal_corrupt_records_total")
SECONDS = cell("edge_postback_seconds")
IN_FLIGHT = cell("edge_postbacks_in_flight")


def rejected(counters: Counters) -> dict[str, int]:
    """How many conversions were rejected for each reason."""
    counted = {reason: counters.cells[cell("edge_conversions_rejected_total", reason)] for reason in REJECTIONS}
    return {reason: count for reason, count in counted.items() if count}


def asked(counters: Counters) -> int:
    """How many attempts are in the histogram."""
    return sum(counters.cells[SECONDS : SECONDS + len(POSTBACK_BUCKETS_US) + 1])


async def test_each_damaged_place_in_a_journal_is_counted_once(bench: Bench) -> None:
    """When it is in quarantine: not again when the journal is read again, nor what is merely of another form."""
    scribe, station = bench.scribe(), bench.station()
    for _ in range(2):
        start = scribe.writer.appended.byte_offset
        scribe.click()
        scribe.raw(b"\xc1")
        with name_segment(scribe.writer.directory, 1).open("r+b") as file:
            file.seek(start + 40)
            file.write(b"\xff" * 8)
    await bench.drain(station)
    await bench.drain(station)
    assert await bench.value("SELECT count(*) FROM quarantine") == 4
    assert station.counters.cells[CORRUPT] == 2


async def test_rejections_are_counted_by_reason_when_they_are_stored(bench: Bench) -> None:
    """Approved ones have none; a reason is counted once for each verdict."""
    scribe, station = bench.scribe(), bench.station()
    click_id = scribe.click()
    for _ in range(3):
        scribe.convert(click_id)
    scribe.convert(scribe.click(), amount="much")
    await bench.drain(station)
    reasons = await bench.rows("SELECT reason, count(*) FROM conversions WHERE status = 'rejected' GROUP BY 1")
    assert rejected(station.counters) == dict(reasons) == {"duplicate": 2, "invalid_amount": 1}


async def test_a_database_that_drain_and_sender_cannot_reach_is_counted(bench: Bench) -> None:
    """Each try of each of them."""
    station = bench.station(url=NOWHERE)

    async def has_counted_twice() -> bool:
        return min(station.counters.cells[ERRORS], sender._cells[ERRORS]) >= 2

    async with station.running(), sending(bench, url=NOWHERE) as sender:
        await until(has_counted_twice)


async def test_partners_answers_are_timed_whatever_they_are(bench: Bench) -> None:
    """A refusal too; what was never asked is not among them, and nothing is in flight in the end."""
    async with PartnerServer().listening() as partner:
        await bench.apply(partners_toml(f'postback_url = "{partner.origin}/pb"'))
        scribe = bench.scribe(revision=2)
        for _ in range(2):
            scribe.convert(scribe.click())
        await bench.drain()
        await bench.conn.execute(
            "DELETE FROM conversions WHERE conversion_id = (SELECT min(conversion_id::text)::uuid FROM conversions)"
        )
        partner.reply = say(404)
        async with sending(bench) as sender:
            await until(lambda: _are_over(bench))

            async def is_still() -> bool:
                return not sender._cells[IN_FLIGHT]

            await until(is_still)
    assert len(partner.heard) == 1
    assert asked(sender._counters) == 1


async def _are_over(bench: Bench) -> bool:
    return set(await states(bench)) <= {"dead", "failed"} or await bench.value("SELECT count(*) FROM postback_log") >= 2
