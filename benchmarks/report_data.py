"""Clicks and conversions of thirty days, made inside the server: what a report meets in a network of some size.

Few offers and partners have most of the traffic, a partner works with a dozen offers, an offer is sold in a handful of
countries. Everything follows from a click's number and a seeded chance, so two runs of one size have the same figures.
"""

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta

from edge.admin.catalog_apply import apply_text
from storage.postgres.connection import Connection, connect
from storage.postgres.partitions import Partitions

DAYS = 30
OFFERS, PARTNERS, ADVERTISERS, OFFERS_OF_A_PARTNER = 300, 1000, 40, 12
_SLOTS = 1 << 17
_AT_ONCE = 2
_COUNTRIES = (
    "US,DE,GB,FR,BR,IN,CA,IT,ES,MX,AU,NL,PL,JP,TR,ID,PH,TH,VN,ZA,AR,CO,CL,PE,SE,NO,DK,FI,BE,AT,CH,PT,GR,CZ,RO,HU,IE,NZ,SG,MY,"
    "KR,TW,HK,IL,AE,SA,EG,NG,KE,MA,UA,RS,BG,HR,SK,SI,LT,LV,EE,KZ"
)
# Which offer and partner a click is of: as many slots as the pair has weight.
_SLOT_TABLE = f"""
    CREATE TABLE made_slots AS
    WITH pairs AS (
        SELECT offer_id, aff_id, 1 / power(aff_id, 0.9) / power(1 + (offer_id * 37 + 11) % {OFFERS}, 0.9) AS weight
        FROM generate_series(1, {PARTNERS}) AS aff_id CROSS JOIN LATERAL (
            SELECT DISTINCT 1 + abs(hashint8(aff_id * 100 + k)) % {OFFERS} AS offer_id
            FROM generate_series(1, {OFFERS_OF_A_PARTNER}) AS k
        ) AS chosen
    ), spread AS (
        SELECT *, sum(weight) OVER (ORDER BY aff_id, offer_id) - weight AS begins, sum(weight) OVER () AS whole FROM pairs
    )
    SELECT slot::int, offer_id, aff_id FROM spread CROSS JOIN LATERAL generate_series(
        ceil(begins / whole * {_SLOTS})::int, ceil((begins + weight) / whole * {_SLOTS})::int - 1
    ) AS slot
"""
# The id of a click by its number: more of them by day than at night. $1, $2: first and last ms, $3: how many in all.
_ID = """(lpad(to_hex(made_ms({number}, $1, $2, $3)), 12, '0') || '7' || substr(md5(({number})::text), 1, 3)
          || '8' || substr(md5(({number})::text), 4, 15))::uuid"""
_WARP_MS = 8.25e6
_MS_FUNCTION = f"""
    CREATE OR REPLACE FUNCTION made_ms(number bigint, first bigint, last bigint, count bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE AS $$
        SELECT first + (number::float8 * (last - first) / count)::bigint
             + ({_WARP_MS} * sin(number::float8 * (last - first) / count / 86.4e6 * 2 * pi()))::bigint
    $$
"""
_CLICKS = f"""
    INSERT INTO clicks (click_id, clicked_at, node_id, offer_id, aff_id, landing_page_id, creative_id, source, aff_sub1,
        aff_sub2, aff_sub3, aff_sub4, aff_click_id, utm_source, utm_medium, utm_campaign, utm_content, utm_term, contact_id,
        ip, country, region, city, user_agent, device_type, os, browser, language, referrer, visitor, currency, outcome,
        reason, flags, catalog_revision, first_click_id)
    SELECT {_ID.format(number="number")}, to_timestamp(made_ms(number, $1, $2, $3) / 1000.0), 0, offer_id, aff_id,
        CASE WHEN a < 0.6 THEN 1 WHEN a < 0.85 THEN 2 ELSE 3 END + offer_id * 10,
        CASE WHEN b < 0.5 THEN 0 ELSE offer_id * 10 + (b * 8)::int END,
        'site' || (aff_id * 7 + (c * c * 20)::int) % 3000,
        CASE WHEN d < 0.7 THEN 'p' || aff_id || '-' || (e * e * 400)::int ELSE '' END,
        CASE WHEN e < 0.4 THEN 'banner' || (d * d * 2000)::int ELSE '' END,
        CASE WHEN f < 0.3 THEN 'kw' || (power(c, 1.5) * 100000)::int ELSE '' END,
        CASE WHEN f > 0.95 THEN 'x' || (a * 50)::int ELSE '' END,
        substr(hash, 1, 24),
        CASE WHEN g < 0.6 THEN (ARRAY['google','facebook','newsletter','bing','tiktok','taboola','outbrain','x','reddit','sms'])
                               [1 + (power(g / 0.6, 2) * 9.99)::int % 10] ELSE '' END,
        CASE WHEN g < 0.6 THEN (ARRAY['cpc','email','social','native','sms'])[1 + (h * h * 4.99)::int % 5] ELSE '' END,
        CASE WHEN g < 0.6 THEN 'campaign-' || (power(h, 3) * 3000)::int ELSE '' END,
        CASE WHEN g < 0.4 THEN 'ad-' || (power(a, 2) * 20000)::int ELSE '' END,
        CASE WHEN g < 0.2 THEN 'term ' || (power(b, 1.5) * 100000)::int ELSE '' END,
        CASE WHEN h > 0.9 THEN 'c' || (power(g, 1.5) * 300000)::int ELSE '' END,
        '10.0.0.0'::inet + (a * 4e6)::int, places.country, 'R' || (b * 20)::int, 'City ' || (c * c * 400)::int,
        'Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/' || (d * 2000)::int
            || '.0.0.0 Mobile Safari/537.36',
        CASE WHEN e < 0.62 THEN 'mobile' WHEN e < 0.93 THEN 'desktop' WHEN e < 0.98 THEN 'tablet' ELSE '' END,
        CASE WHEN e < 0.4 THEN 'Android' WHEN e < 0.62 THEN 'iOS' WHEN e < 0.85 THEN 'Windows' ELSE 'Mac OS X' END,
        CASE WHEN f < 0.6 THEN 'Chrome' WHEN f < 0.85 THEN 'Safari' WHEN f < 0.95 THEN 'Firefox' ELSE 'Edge' END,
        'en-US', 'https://blog' || (g * g * 400)::int || '.example.com/', hash::uuid,
        CASE WHEN offer_id % 6 = 0 THEN 'EUR' ELSE 'USD' END,
        CASE WHEN i < 0.96 THEN 'redirected' WHEN i < 0.98 THEN 'fallback' ELSE 'rejected' END,
        CASE WHEN i < 0.96 THEN '' ELSE 'targeting' END,
        CASE WHEN j < 0.06 THEN '{{bot}}' WHEN j < 0.07 THEN '{{datacentre}}' WHEN j < 0.09 THEN '{{prefetch}}'
             WHEN j < 0.21 THEN '{{duplicate}}' ELSE '{{}}' END::text[], 1,
        CASE WHEN number % 20 = 0 THEN {_ID.format(number="number")}
             WHEN number % 20 = 1 THEN {_ID.format(number="(greatest(number - power(a, 4) * 2e6, 0)::bigint / 20) * 20")}
        END
    FROM (
        SELECT number, md5((number + 7e9::bigint)::text) AS hash, (random() * {_SLOTS - 1})::int AS slot, random() AS a,
               random() AS b, random() AS c, random() AS d, random() AS e, random() AS f, random() AS g, random() AS h,
               random() AS i, random() AS j, random() AS k, random() AS l
        FROM generate_series($4::bigint, $5::bigint - 1) AS number
    ) AS chance JOIN made_slots USING (slot) CROSS JOIN LATERAL (
        SELECT ('{{{_COUNTRIES}}}'::text[])[1 + CASE WHEN k < 0.75 THEN (offer_id * 7 + (l * l * 4.99)::int)
                ELSE (power(l, 3) * {len(_COUNTRIES.split(","))})::int END % {len(_COUNTRIES.split(","))}] AS country
    ) AS places
"""
# Two in a hundred of the clicks that an offer took; hours or days later, a few changed afterwards.
_CONVERSIONS = """
    INSERT INTO conversions (conversion_id, click_id, transaction_id, node_id, advertiser_id, offer_id, aff_id, goal_id,
        landing_page_id, creative_id, touched_at, converted_at, received_at, amount, currency, revenue, payout, status,
        reason, status_code, promo_code, via, country, device_type, contact_id, catalog_revision)
    SELECT (lpad(to_hex((extract(epoch FROM happened) * 1000)::bigint), 12, '0') || '7' || substr(md5(click_id::text), 1, 3)
            || '8' || substr(md5(click_id::text), 4, 15))::uuid,
        click_id, replace(click_id::text, '-', ''), 0, 1 + offer_id % {advertisers}, offer_id, aff_id,
        CASE WHEN a < 0.25 THEN 1 ELSE 0 END, landing_page_id, creative_id, clicked_at, happened, happened,
        round((20 + 80 * b * b)::numeric, 2), currency, round((2 + 8 * b * b)::numeric, 2), round((1.5 + 6 * b * b)::numeric, 2),
        CASE WHEN c < 0.89 THEN 'approved' WHEN c < 0.92 THEN 'pending' WHEN c < 0.98 THEN 'rejected' ELSE 'reversed' END,
        CASE WHEN c >= 0.98 THEN 'returned' WHEN c >= 0.92 THEN 'duplicate' ELSE '' END, 0,
        CASE WHEN a > 0.9 THEN 'XMAS' || offer_id ELSE '' END, 'postback', country, device_type, contact_id, 1
    FROM (
        SELECT *, clicked_at - ln(1 - random()) * interval '9 hours' AS happened, random() AS a, random() AS b, random() AS c
        FROM clicks WHERE clicked_at >= $1 AND clicked_at < $2 AND outcome = 'redirected'
          AND NOT flags && '{{bot,prefetch,datacentre}}' AND hashtext(click_id::text) % 44 = 0
    ) AS bought WHERE happened < $3
"""
_CHANGES = """
    INSERT INTO conversion_changes (conversion_id, changed_at, booked_hour, actor, kind, status_before, status_after,
        amount_delta, payout_delta, revenue_delta, conversions_delta, pending_delta, rejected_delta, amount_after,
        payout_after, revenue_after)
    SELECT conversion_id, received_at + later, date_trunc('hour', received_at), 'made', kind, before, after,
        amount * sign, payout * sign, revenue * sign, sign, (after = 'pending')::int, (after = 'rejected')::int,
        amount, payout, revenue
    FROM conversions CROSS JOIN LATERAL (
        VALUES (interval '0', 'decided', '', CASE status WHEN 'reversed' THEN 'approved' ELSE status END,
                (status IN ('approved', 'reversed'))::int),
               (interval '20 hours', 'reversed', 'approved', 'reversed', CASE status WHEN 'reversed' THEN -1 END)
    ) AS change (later, kind, before, after, sign) WHERE sign IS NOT NULL
"""
_HOURLY = """
    INSERT INTO stats_hourly (hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id,
        country, device_type, currency, gross_clicks, unique_clicks, invalid_clicks, refused_clicks, conversions, pending,
        rejected, reversed, amount, payout, revenue)
    SELECT hour, 0, 1 + offer_id % {advertisers}, offer_id, aff_id, goal_id, landing_page_id, creative_id, country,
        device_type, currency, sum(gross), sum(uniques), sum(invalid), sum(refused), sum(conversions), sum(pending),
        sum(rejected), sum(reversed), sum(amount), sum(payout), sum(revenue)
    FROM (
        SELECT date_trunc('hour', clicked_at) AS hour, offer_id, aff_id, 0 AS goal_id, landing_page_id, creative_id,
            country, device_type, currency, 1 AS gross,
            (NOT flags && '{{bot,prefetch,datacentre,duplicate}}')::int AS uniques,
            (flags && '{{bot,prefetch,datacentre}}')::int AS invalid,
            (NOT flags && '{{bot,prefetch,datacentre}}' AND outcome <> 'redirected')::int AS refused,
            0 AS conversions, 0 AS pending, 0 AS rejected, 0 AS reversed,
            0::numeric AS amount, 0::numeric AS payout, 0::numeric AS revenue
        FROM clicks WHERE clicked_at >= $1 AND clicked_at < $2
        UNION ALL
        SELECT booked_hour, offer_id, aff_id, goal_id, landing_page_id, creative_id, country, device_type, currency,
            0, 0, 0, 0, conversions_delta, pending_delta, rejected_delta,
            (status_after = 'reversed')::int - (status_before = 'reversed')::int, amount_delta, payout_delta, revenue_delta
        FROM conversion_changes JOIN conversions USING (conversion_id) WHERE booked_hour >= $1 AND booked_hour < $2
    ) AS counted GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
"""


def catalog_text() -> str:
    """The offers, partners and advertisers of these clicks."""
    parts = [f'[[advertisers]]\nid = {one}\nname = "Advertiser {one}"\n' for one in range(1, ADVERTISERS + 1)]
    parts += [f'[[partners]]\nid = {one}\nname = "Partner {one}"\n' for one in range(1, PARTNERS + 1)]
    parts += [
        f'[[offers]]\nid = {one}\nadvertiser_id = {1 + one % ADVERTISERS}\nname = "Offer {one}"\n'
        f'currency = "{"USD" if one % 6 else "EUR"}"\nurl = "https://shop{one}.example.com/?clickid={{transaction_id}}"\n'
        'payout = "5.00"\nrevenue = "7.50"\n[[offers.goals]]\nid = 1\nname = "lead"\npayout = "1.00"\n'
        for one in range(1, OFFERS + 1)
    ]
    return "\n".join(parts)


async def make_clicks(url: str, conn: Connection, count: int) -> None:
    """Fill a database that has its tables and nothing in them; some minutes for 20 million."""
    now = datetime.now(UTC).replace(microsecond=0)
    midnight = now.replace(hour=0, minute=0, second=0)
    first = midnight - timedelta(days=DAYS - 1)
    days = [first + timedelta(days=number) for number in range(DAYS)]
    await apply_text(conn, catalog_text(), "the benchmark's catalog")
    await Partitions().ensure(conn, [day.date() for day in days])
    await conn.execute(_SLOT_TABLE)
    await conn.execute(_MS_FUNCTION)
    ends = [*days[1:], now]
    span_ms = _unwarped(_ms(now) - _ms(first))
    whole = (_ms(first), _ms(first) + span_ms, count)
    numbers = [*(count * (_ms(day) - _ms(first)) // span_ms for day in days), count]
    began_s = time.monotonic()
    await _each_day(url, _CLICKS, [(*whole, *numbers[place : place + 2]) for place in range(DAYS)])
    print(f"{count:,} clicks made within {time.monotonic() - began_s:.0f} s", flush=True)
    money = {"advertisers": ADVERTISERS}
    await conn.execute("DROP TABLE made_slots")
    await _each_day(url, _CONVERSIONS.format(**money), [(day, end, now) for day, end in zip(days, ends, strict=True)])
    await conn.execute(_CHANGES)
    await conn.execute("VACUUM (ANALYZE) clicks, conversions, conversion_changes")
    await _each_day(url, _HOURLY.format(**money), list(zip(days, ends, strict=True)))
    await conn.execute("VACUUM (ANALYZE) stats_hourly")
    await conn.execute("CHECKPOINT")
    print(f"all made within {time.monotonic() - began_s:.0f} s", flush=True)


def _unwarped(ms: int) -> int:
    """What `made_ms` makes this much of."""
    found = float(ms)
    for _ in range(60):
        found = ms - _WARP_MS * math.sin(found / 86.4e6 * 2 * math.pi)
    return int(found)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


async def _each_day(url: str, sql: str, days: list[tuple[object, ...]]) -> None:
    """A statement for each day, two at once, each with a chance of its own."""
    numbered = iter(enumerate(days))

    async def work() -> None:
        conn = await connect(url, command_timeout_s=7200)
        try:
            await conn.execute("SET work_mem = '256MB'")
            for number, arguments in numbered:
                await conn.execute(f"SELECT setseed({number / DAYS})")
                await conn.execute(sql, *arguments)
        finally:
            await conn.close()

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
