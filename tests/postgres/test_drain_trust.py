"""Signed postbacks and traffic from data centres and bots, through the real drain."""

from typing import Any

from edge.tracking.signatures import sign
from tests.postgres.drains import CATALOG, CHROME, GOOGLEBOT, Bench, now_ms
from tests.recount import differences

SECRET = "shared with the advertiser"
SIGNING = CATALOG.replace('name = "Plain"', f'name = "Plain"\nsigning_secret = "{SECRET}"').replace(
    'payout = "5.00"', 'payout = "5.00"\nduplicates = "new"'
)
EC2 = "52.94.76.10"


def signed(**params: str) -> dict[str, Any]:
    """Parameters of a postback, signed now."""
    sent = {"timestamp": str(now_ms() // 1000), **params}
    return sent | {"signature": sign(sent, SECRET)}


async def test_a_signature_counts_once_across_batches_and_within_one(bench: Bench) -> None:
    """Even where the offer takes every repetition, a replayed request is refused; a new signature is not."""
    await bench.apply(SIGNING)
    scribe = bench.scribe(revision=2)
    click_id = scribe.click()
    first = signed(amount="5")
    again = [scribe.convert(click_id, **first), scribe.convert(click_id, **first)]
    await bench.drain()
    again.append(scribe.convert(click_id, **first))
    later = scribe.convert(click_id, **signed(amount="6"))
    await bench.drain()
    verdicts = [await bench.verdict(one) for one in again]
    assert verdicts == [("approved", ""), ("rejected", "replayed"), ("rejected", "replayed")]
    assert await bench.verdict(later) == ("approved", "")
    assert await bench.value("SELECT count(*) FROM conversion_keys WHERE key LIKE 's:1:%'") == 2
    assert await differences(bench.conn) == []


async def test_a_refused_postback_does_not_use_up_its_signature(bench: Bench) -> None:
    """Refused for its address, allowed an hour later: the same request is not a replay."""
    await bench.apply(SIGNING.replace("signing_secret", 'allowed_ips = ["192.0.2.1"]\nsigning_secret', 1))
    scribe = bench.scribe(revision=2)
    click_id, params = scribe.click(), signed()
    refused = scribe.convert(click_id, ip="198.51.100.9", **params)
    accepted = scribe.convert(click_id, ip="192.0.2.1", **params)
    await bench.drain()
    assert await bench.verdict(refused) == ("rejected", "ip_not_allowed")
    assert await bench.verdict(accepted) == ("approved", "")


async def test_neither_signature_nor_timestamp_is_kept(bench: Bench) -> None:
    """They say who sent it, not what was sold; nobody who reads the table can send it again."""
    await bench.apply(SIGNING)
    scribe = bench.scribe(revision=2)
    scribe.convert(scribe.click(), **signed(color="red"))
    wrong = scribe.convert(scribe.click(), **(signed(color="red") | {"color": "blue"}))
    await bench.drain()
    assert await bench.verdict(wrong) == ("rejected", "bad_signature")
    assert await bench.rows("SELECT status, extras FROM conversions ORDER BY status") == [
        ("approved", {"color": "red"}),
        ("rejected", {"color": "blue"}),
    ]


async def test_clicks_from_data_centres_and_bots_are_flagged_counted_and_paid(bench: Bench) -> None:
    """Stored, invalid in the roll-ups, never dropped: a buyer behind a company's proxy still earns the partner money."""
    scribe = bench.scribe()
    plain = scribe.click(user_agent=CHROME)
    hosted = scribe.click(ip=EC2)
    crawler = scribe.click(user_agent=GOOGLEBOT, ip=EC2)
    seen = scribe.impression(ip=EC2)
    paid = scribe.convert(hosted)
    await bench.drain()
    flags = {row[0].bytes: row[1] for row in await bench.rows("SELECT click_id, flags FROM clicks")}
    assert flags == {plain: [], hosted: ["datacentre"], crawler: ["bot", "datacentre"]}
    assert await bench.rows("SELECT click_id, flags FROM impressions") != []
    assert (await bench.rows("SELECT flags FROM impressions"))[0][0] == ["datacentre"]
    assert seen
    assert await bench.verdict(paid) == ("approved", "")
    counts = "SELECT sum(gross_clicks)::int, sum(unique_clicks)::int, sum(invalid_clicks)::int FROM stats_hourly"
    assert await bench.rows(counts) == [(3, 1, 2)]
    assert await differences(bench.conn) == []
