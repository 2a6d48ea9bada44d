"""Partners' postbacks from the verdict to the partner's ear: the drain queues, the real sender tells real servers."""

import hmac
from base64 import b64decode, b64encode
from collections import Counter
from decimal import Decimal
from uuid import UUID

import pytest

from edge.announcing import Announcement, outbox_rows
from edge.replaying import replay
from edge.tracking.catalog import Catalog
from storage.postgres.catalog import load_current
from storage.postgres.copy import Uuid
from storage.postgres.outbox import queue
from tests.partners import Heard, PartnerServer, in_turn, say
from tests.postgres.drains import Bench, until
from tests.postgres.senders import log_of, partners_toml, sending, states

SIGNING_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def tell(bench: Bench, partner: PartnerServer, text: str = "", *, conversions: int = 1) -> list[bytes]:
    """Queue conversions for partner 2, whose `postback_url` is at `partner`; their ids."""
    await bench.apply(partners_toml(f'postback_url = "{partner.origin}/pb?id={{conversion_id}}"\n{text}'))
    scribe = bench.scribe(revision=2)
    ids = [scribe.convert(scribe.click()) for _ in range(conversions)]
    await bench.drain()
    return ids


async def has(bench: Bench, **wanted: int) -> bool:
    """Whether the outbox has exactly these states."""
    return await states(bench) == wanted


def heard_ids(partner: PartnerServer) -> Counter[str]:
    """How often each conversion was heard of."""
    return Counter(one.query["id"] for one in partner.heard)


async def test_a_partner_hears_of_an_approved_conversion(bench: Bench) -> None:
    """With the click's and the conversion's values in the places that the address gives them."""
    async with PartnerServer().listening() as partner:
        url = f"{partner.origin}/pb?cid={{aff_click_id}}&s={{aff_sub}}&p={{payout}}&id={{conversion_id}}&st={{status}}"
        await bench.apply(partners_toml(f'postback_url = "{url}"'))
        scribe = bench.scribe(revision=2)
        click_id = scribe.click(params={"aff_click_id": "a&b=ü", "aff_sub1": "x y"})
        conversion_id = scribe.convert(click_id)
        await bench.drain()
        async with sending(bench):
            await until(lambda: has(bench, delivered=1))
    [heard] = partner.heard
    assert heard.target == f"/pb?cid=a%26b%3D%C3%BC&s=x%20y&p=5.00&id={conversion_id.hex()}&st=approved"
    assert "webhook-signature" not in heard.headers
    [attempt] = await log_of(bench)
    assert (attempt["status_code"], attempt["answer"], attempt["error"]) == (200, "ok", "")
    assert attempt["url"] == f"{partner.origin}{heard.target}"


async def test_goals_offers_and_statuses_choose_the_address(bench: Bench) -> None:
    """A base conversion, a goal's, a duplicate, one that waits for approval: each where the partner asked for it."""
    manual = '[[offers]]\nid = 18\nadvertiser_id = 1\nname = "o"\nurl = "https://x.example/"\napproval = "manual"\n'
    async with PartnerServer().listening() as partner:
        entries = {
            "goals": "goal_ids = [1]",
            "base": "goal_ids = [0]\noffer_ids = [17]",
            "refused": 'statuses = ["rejected"]',
            "later": 'statuses = ["pending", "reversed"]',
        }
        text = f'postback_url = "{partner.origin}/all"\n' + "".join(
            f'[[partners.postbacks]]\nurl = "{partner.origin}/{name}"\n{fields}\n' for name, fields in entries.items()
        )
        await bench.apply(partners_toml(text) + manual)
        scribe = bench.scribe(revision=2)
        click_id = scribe.click()
        scribe.convert(click_id)
        scribe.convert(click_id)
        scribe.convert(click_id, goal_id=1)
        scribe.convert(scribe.click(offer_id=18))
        scribe.convert(scribe.click(aff_id=3))
        scribe.convert(scribe.ids.mint(0))
        await bench.drain(conversion_wait_s=0)
        async with sending(bench):
            await until(lambda: has(bench, delivered=6))
    assert Counter(one.target for one in partner.heard) == {"/all": 2, "/base": 1, "/goals": 1, "/refused": 1, "/later": 1}


async def test_a_blocked_partner_hears_nothing(bench: Bench) -> None:
    """Of its rejected conversions neither."""
    entry = 'status = "blocked"\n[[partners.postbacks]]\nurl = "https://p.example/"\nstatuses = ["approved", "rejected"]'
    await bench.apply(partners_toml(entry))
    scribe = bench.scribe(revision=2)
    conversion_id = scribe.convert(scribe.click())
    await bench.drain()
    assert await bench.verdict(conversion_id) == ("rejected", "partner_blocked")
    assert await states(bench) == {}


async def test_a_conversion_decided_anew_is_told_once(bench: Bench) -> None:
    """Called unknown_click at first: nobody's; when its click comes it is the partner's."""
    await bench.apply(partners_toml('postback_url = "https://p.example/"'))
    late, scribe = bench.scribe(worker=1, revision=2), bench.scribe(revision=2)
    session = late.session()
    conversion_id = scribe.convert(session.click_id)
    await bench.drain(conversion_wait_s=0)
    assert await states(bench) == {}
    late.click(session)
    await bench.drain(conversion_wait_s=0)
    assert await bench.verdict(conversion_id) == ("approved", "")
    assert await states(bench) == {"pending": 1}


async def test_the_row_is_rolled_back_with_its_conversion(bench: Bench) -> None:
    """A batch that fails leaves neither; the batch that then succeeds leaves both, once."""
    await bench.apply(partners_toml('postback_url = "https://p.example/"'))
    scribe = bench.scribe(revision=2)
    ids = [scribe.convert(scribe.click()) for _ in range(3)]
    await bench.conn.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE deadlock_detected; END $$;"
        "CREATE TRIGGER fail BEFORE INSERT ON stats_hourly FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    with pytest.raises(Exception, match="deadlock"):
        await bench.drain()
    assert (await states(bench), await bench.ids("conversions")) == ({}, [])
    await bench.conn.execute("DROP TRIGGER fail ON stats_hourly")
    await bench.drain()
    assert (await states(bench), await bench.ids("conversions")) == ({"pending": 3}, sorted(ids))


async def test_a_failure_is_tried_again_until_the_partner_says_yes(bench: Bench) -> None:
    """500, no answer at all, a redirect (not followed), then 204: four attempts with one id, each in the log."""
    async with PartnerServer().listening() as partner, PartnerServer("127.0.0.2").listening() as elsewhere:
        partner.reply = in_turn(
            say(500, "out of\norder"),
            partner.reset,
            partner.reset,  # a GET that meets a cut connection is asked once more by the client itself
            say(302, Location=f"{elsewhere.origin}/?token=x"),
            say(204, ""),
        )
        [conversion_id] = await tell(bench, partner)
        async with sending(bench, retries_at_once=True):
            await until(lambda: has(bench, delivered=1))
    assert elsewhere.heard == []
    log = await log_of(bench)
    assert [(one["attempt"], one["status_code"], one["answer"]) for one in log] == [
        (1, 500, "out oforder"), (2, 0, ""), (3, 302, "ok"), (4, 204, ""),
    ]  # fmt: skip
    assert [one["error"] for one in log[::2]] == [
        "answered 500",
        f"a redirect, which is not followed: {elsewhere.origin}/?token=…",
    ]
    assert log[1]["error"]
    assert {one.headers["webhook-id"] for one in partner.heard} == {f"{conversion_id.hex()}-{log[0]['outbox_id']}"}


async def test_what_is_called_a_secret_in_the_address_is_sent_but_not_logged(bench: Bench) -> None:
    """The partner gets it, the log does not."""
    async with PartnerServer().listening() as partner:
        await bench.apply(partners_toml(f'postback_url = "{partner.origin}/pb?token=hunter22&a=1"'))
        scribe = bench.scribe(revision=2)
        scribe.convert(scribe.click())
        await bench.drain()
        async with sending(bench):
            await until(lambda: has(bench, delivered=1))
    assert partner.heard[0].target == "/pb?token=hunter22&a=1"
    assert [one["url"] for one in await log_of(bench)] == [f"{partner.origin}/pb?token=…&a=1"]


@pytest.mark.parametrize(("status", "asked"), [(503, "3600"), (429, "7200")])
async def test_retry_after_is_kept_to(bench: Bench, status: int, asked: str) -> None:
    """The next attempt is not due before."""
    async with PartnerServer().listening() as partner:
        partner.reply = say(status, Retry_After=asked)
        await tell(bench, partner)
        async with sending(bench):
            await until(lambda: log_of(bench))
            await until(lambda: bench.value("SELECT leased_by IS NULL FROM postback_outbox"))
    wait_s = await bench.value("SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM postback_outbox")
    assert int(asked) - 60 < wait_s <= int(asked)
    assert len(partner.heard) == 1


async def test_the_twelfth_failure_is_the_last_and_a_replay_begins_anew(bench: Bench) -> None:
    """Given up and kept; `replay` queues the present state by the catalog in force, and logs who asked."""
    async with PartnerServer().listening() as partner:
        partner.reply = say(500)
        ids = await tell(bench, partner, conversions=2)
        async with sending(bench, retries_at_once=True):
            await until(lambda: has(bench, dead=2))
            assert heard_ids(partner) == {one.hex(): 12 for one in ids}
            partner.reply = say(200)
            done = await replay(bench.conn, are_dead=True, actor="replay by a test")
            assert done == (2, 2)
            await until(lambda: has(bench, replayed=2, delivered=2))
    assert heard_ids(partner) == {one.hex(): 13 for one in ids}
    rows = await bench.rows("SELECT state, event, actor FROM postback_outbox ORDER BY outbox_id")
    assert rows[:2] == [("replayed", "decided", "")] * 2
    assert {(row[0], row[1][:7], row[2]) for row in rows[2:]} == {("delivered", "replay ", "replay by a test")}


async def test_gone_is_given_up_at_once(bench: Bench) -> None:
    """410: the partner says that the address will not come back."""
    async with PartnerServer().listening() as partner:
        partner.reply = say(410)
        await tell(bench, partner)
        async with sending(bench):
            await until(lambda: has(bench, dead=1))
    assert len(partner.heard) == 1


async def test_a_replay_of_the_dead_leaves_alone_who_has_heard_it(bench: Bench) -> None:
    """Of two addresses one failed: only that one is told again, and at the address that the catalog has now."""
    async with PartnerServer().listening() as partner, PartnerServer("127.0.0.2").listening() as second:
        second.reply = say(410)
        text = f'[[partners.postbacks]]\nurl = "{second.origin}/old"\n'
        [conversion_id] = await tell(bench, partner, text)
        async with sending(bench):
            await until(lambda: has(bench, delivered=1, dead=1))
            second.reply = say(200)
            await bench.apply(
                partners_toml(
                    f'postback_url = "{partner.origin}/pb?id={{conversion_id}}"\n{text.replace("/old", "/new")}'
                )
            )
            assert await replay(bench.conn, are_dead=True, actor="t") == (1, 1)
            await until(lambda: has(bench, delivered=2, replayed=1))
            assert await replay(bench.conn, ids=[UUID(bytes=conversion_id)], actor="t") == (1, 2)
            await until(lambda: has(bench, delivered=4, replayed=1))
    assert [one.target for one in second.heard] == ["/old", "/new", "/new"]
    assert len(partner.heard) == 2


async def test_a_later_change_is_told_once_with_what_it_changed(bench: Bench) -> None:
    """Whoever changes a conversion announces it in his transaction: each event once, rolled back with the change."""
    async with PartnerServer().listening() as partner:
        text = f'[[partners.postbacks]]\nurl = "{partner.origin}/back?p={{payout}}&s={{status}}"\nstatuses = ["reversed"]\n'
        [conversion_id] = await tell(bench, partner, text)
        catalog = Catalog.empty().changed(*await load_current(bench.conn))
        told = Announcement(
            Uuid(conversion_id), "change 7", "reversed", 2, 17, 0, Decimal(0), Decimal(-5), Decimal("-7.5"), "USD"
        )
        change = bench.conn.transaction()
        await change.start()
        rows = list(outbox_rows(catalog, told))
        assert await queue(bench.conn, rows) == 1
        await change.rollback()
        assert await states(bench) == {"pending": 1}
        assert await queue(bench.conn, [*rows, *rows]) == 1
        assert await queue(bench.conn, rows) == 0
        async with sending(bench):
            await until(lambda: has(bench, delivered=2))
    assert {one.target for one in partner.heard if "/back" in one.target} == {"/back?p=-5.00&s=reversed"}


async def queue_reversal(bench: Bench, conversion_id: bytes) -> None:
    """As whoever reverses that conversion does."""
    catalog = Catalog.empty().changed(*await load_current(bench.conn))
    told = Announcement(
        Uuid(conversion_id), "change 7", "reversed", 2, 17, 0, Decimal(0), Decimal(0), Decimal(0), "USD"
    )
    await queue(bench.conn, list(outbox_rows(catalog, told)))


async def test_a_partners_last_word_is_the_last_that_happened(bench: Bench) -> None:
    """A reversal waits for an approval that is still being tried, at its host; another host hears of it meanwhile."""
    async with PartnerServer().listening() as partner, PartnerServer("127.0.0.2").listening() as other:
        text = "".join(
            f'[[partners.postbacks]]\nurl = "{origin}/back?s={{status}}"\nstatuses = ["reversed"]\n'
            for origin in (partner.origin, other.origin)
        )
        partner.reply = in_turn(say(500), say(500), say(200))
        [conversion_id] = await tell(bench, partner, text)
        await queue_reversal(bench, conversion_id)
        async with sending(bench, retries_at_once=True):
            await until(lambda: has(bench, delivered=3))
    assert [one.target.partition("?")[0] for one in partner.heard] == ["/pb", "/pb", "/pb", "/back"]
    assert [one.target for one in other.heard] == ["/back?s=reversed"]
    assert [one["attempt"] for one in await log_of(bench) if "/back" in one["url"]] == [1, 1]


async def test_a_host_hears_of_a_conversion_in_the_order_of_its_events(bench: Bench) -> None:
    """A sale and its refund were stored at once, and the sale could not be told at first: the refund is told last."""
    async with PartnerServer().listening() as partner:
        partner.reply = in_turn(say(500), say(500), say(200))
        text = f'[[partners.postbacks]]\nurl = "{partner.origin}/pb?s={{status}}"\nstatuses = ["approved", "reversed"]\n'
        scribe = bench.scribe(revision=await bench.apply(partners_toml(text)))
        click = scribe.click()
        for status in ("approved", "reversed", "approved", "reversed"):
            scribe.convert(click, status=status)
        await bench.drain()
        async with sending(bench, retries_at_once=True):
            await until(lambda: has(bench, delivered=4))
    told = [one.query["s"] for one in partner.heard]
    assert told == ["approved"] * 3 + ["reversed", "approved", "reversed"]


async def test_a_host_that_hangs_delays_nobody_else(bench: Bench) -> None:
    """Fifty rows for one that never answers, and first in the queue: fifty for another are delivered meanwhile."""
    async with PartnerServer().listening() as hanging, PartnerServer("127.0.0.2").listening() as quick:
        hanging.reply = hanging.hang
        scribe = bench.scribe(revision=2)
        await bench.apply(
            partners_toml(f'postback_url = "{hanging.origin}"').replace(
                'name = "Coupon Corner"', f'name = "Coupon Corner"\npostback_url = "{quick.origin}"'
            )
        )
        for aff_id in (2, 3):
            for _ in range(50):
                scribe.convert(scribe.click(aff_id=aff_id))
            await bench.drain()
        async with sending(bench, postback_timeout_s=30) as sender:
            await until(lambda: has(bench, delivered=50, pending=50))
            assert len(hanging.heard) <= 8
            assert len(quick.heard) == 50
            await hanging.close()
            sender._stop.set()


async def test_a_partner_that_hangs_is_waited_for_only_so_long(bench: Bench) -> None:
    """Then the attempt has failed, and says why."""
    async with PartnerServer().listening() as partner:
        partner.reply = partner.hang
        await tell(bench, partner)
        async with sending(bench, postback_timeout_s=1):
            await until(lambda: log_of(bench))
    [attempt] = await log_of(bench)
    assert (attempt["status_code"], attempt["error"]) == (0, "no answer in time")
    assert attempt["duration_ms"] >= 900


async def test_an_answer_is_read_only_so_far(bench: Bench) -> None:
    """Ten megabytes, and one that says 200 and never ends: delivered both, four kilobytes kept, no NUL among them."""
    async with PartnerServer().listening() as partner:
        partner.reply = in_turn(say(200, "\0é" + "x" * 10_000_000), partner.trickle)
        await tell(bench, partner, conversions=2)
        async with sending(bench, postback_timeout_s=1):
            await until(lambda: has(bench, delivered=2))
    answers = sorted(one["answer"] for one in await log_of(bench))
    assert answers == ["some", "é" + "x" * 4093]


async def test_what_may_not_be_reached_is_logged_as_such(bench: Bench) -> None:
    """Nothing is sent, the attempt says why, and is tried again like any other."""
    async with PartnerServer().listening() as partner:
        await tell(bench, partner)
        async with sending(bench, postback_allow=()):
            await until(lambda: log_of(bench))
    [attempt] = await log_of(bench)
    assert attempt["error"] == "cannot connect: refused: 127.0.0.1 is no public address (EDGE_POSTBACK_ALLOW)"
    assert partner.heard == []
    assert await states(bench) == {"pending": 1}


def is_signed(heard: Heard, payload: bytes) -> bool:
    """Whether the headers are Standard Webhooks' over `payload`."""
    key = b64decode(SIGNING_SECRET.removeprefix("whsec_"))
    signed = f"{heard.headers['webhook-id']}.{heard.headers['webhook-timestamp']}.".encode() + payload
    return heard.headers["webhook-signature"] == "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode()


async def test_a_partner_with_a_secret_can_verify_what_it_hears(bench: Bench) -> None:
    """Of a GET the query as it was sent is signed, of a POST the body."""
    async with PartnerServer().listening() as partner:
        text = (
            f'postback_secret = "{SIGNING_SECRET}"\n[[partners.postbacks]]\nurl = "{partner.origin}/hook?x=1"\nmethod = "POST"'
        )
        await tell(bench, partner, text)
        async with sending(bench):
            await until(lambda: has(bench, delivered=2))
    by_method = {one.method: one for one in partner.heard}
    assert is_signed(by_method["GET"], by_method["GET"].target.partition("?")[2].encode())
    assert is_signed(by_method["POST"], by_method["POST"].body)
    assert not is_signed(by_method["POST"], by_method["POST"].body.replace(b"5.00", b"6.00"))
    assert by_method["POST"].headers["Content-Type"] == "application/json"


async def test_a_partner_that_left_the_catalog_is_not_told(bench: Bench) -> None:
    """Given up with the reason: there is nobody to sign for."""
    async with PartnerServer().listening() as partner:
        await tell(bench, partner)
        await bench.apply('[[advertisers]]\nid = 1\nname = "Plain"\n', prune=True)
        async with sending(bench):
            await until(lambda: has(bench, dead=1))
    assert [one["error"] for one in await log_of(bench)] == ["partner 2 is not in the catalog any more"]
    assert partner.heard == []


async def test_a_partner_that_was_blocked_meanwhile_is_not_told(bench: Bench) -> None:
    """What was queued before is given up with the reason, whatever its next attempt would have said."""
    async with PartnerServer().listening() as partner:
        await tell(bench, partner)
        await bench.apply(partners_toml('status = "blocked"'))
        async with sending(bench):
            await until(lambda: has(bench, dead=1))
    assert [one["error"] for one in await log_of(bench)] == ["partner 2 is blocked"]
    assert partner.heard == []
