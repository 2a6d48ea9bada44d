"""edge/tracking/conversion.py: what the edge knows alone about a conversion, and what it leaves to the drain."""

import random
from uuid import UUID

import pytest
from msgspec.structs import replace

from edge.counters import cell
from edge.tracking.click import handle_click
from edge.tracking.click_id import ClickIds
from edge.tracking.conversion import handle_goal_postback, handle_pixel, handle_postback
from edge.tracking.dialects import dispatch
from edge.tracking.request import GIF, UNAVAILABLE, Handled, Kind
from edge.tracking.state import ALL_REFUSALS_BURST, REFUSALS_BURST, UNVERIFIED_BURST, UNVERIFIED_PER_S, EdgeState
from storage.journal.events import Conversion, decode, decode_session
from tests.wire.edge_state import NOW_MS, Unbounded, build_catalog, build_state, request_of

CATALOG = build_catalog()
SUCCESS = b"success=true;"


def converted(handled: Handled) -> Conversion:
    event = decode(handled.event)
    assert isinstance(event, Conversion)
    return event


def clicked(
    state: EdgeState, query: str = "offer_id=17&aff_id=2", headers: dict[str, str] | None = None
) -> tuple[str, str]:
    """A click's id and its cookie, once it is journalled."""
    handled = handle_click(state, request_of(query, headers), "")
    assert handled.session is not None
    state.sessions.put(handled.session.click_id, handled.session)
    answer = handled.answer
    name_and_value = answer.cookie.partition(";")[0]
    return name_and_value.rpartition(".")[2], name_and_value


def counted(state: EdgeState) -> tuple[int, int, int, int]:
    """Hits, misses, forged, not stored."""
    names = (
        ("edge_session_lookups_total", "hit"),
        ("edge_session_lookups_total", "miss"),
        ("edge_forged_ids_total",),
        ("edge_unstored_refusals_total",),
    )
    hits, misses, forged, unstored = (state.counters.cells[cell(*name)] for name in names)
    return hits, misses, forged, unstored


def test_a_postback_carries_the_session_that_this_worker_holds() -> None:
    """The drain then needs no look-up; the event says all that was sent and by whom."""
    state = build_state(CATALOG)
    sent, _ = clicked(state)
    headers = {"User-Agent": "shop/1", "Referer": "https://shop.example.com/thanks"}
    query = f"transaction_id={sent}&amount=49.90&adv_sub=A-1&offer_id=17&extra=x"
    handled = handle_postback(state, request_of(query, headers), "")
    event = converted(handled)
    assert (handled.kind, handled.outcome, handled.is_droppable) == (Kind.POSTBACK, "recorded", False)
    assert handled.answer.body == SUCCESS
    assert decode_session(event.session) == state.sessions.get(bytes.fromhex(sent))
    assert (event.transaction_id, event.click_id.hex(), event.via, event.revision) == (sent, sent, "postback", 7)
    assert (event.offer_id, event.goal_id, event.received_ms, event.ip) == (17, 0, NOW_MS, "203.0.113.9")
    assert (event.user_agent, event.referrer) == ("shop/1", "https://shop.example.com/thanks")
    assert event.params["amount"] == "49.90"
    assert event.params["adv_sub1"] == "A-1"
    assert event.params["extra"] == "x"
    assert state.ids.parse(event.conversion_id.hex()) == event.conversion_id
    assert counted(state) == (1, 0, 0, 0)


def test_another_workers_click_is_accepted_without_its_session() -> None:
    """An id that verifies needs no memory of ours: the drain finds the click."""
    state = build_state(CATALOG)
    sent = state.ids.mint(NOW_MS - 1).hex()
    event = converted(handle_postback(state, request_of(f"transaction_id={sent}"), ""))
    assert (event.click_id.hex(), event.session, event.offer_id) == (sent, b"", 0)
    assert counted(state) == (0, 1, 0, 0)


@pytest.mark.parametrize("form", [str.upper, lambda sent: str(UUID(sent)), lambda sent: str(UUID(sent)).upper()])
def test_an_id_may_be_in_upper_case_and_with_dashes(form: type[str]) -> None:
    """It is one and the same id; the event keeps it as it was sent."""
    state = build_state(CATALOG)
    sent, _ = clicked(state)
    event = converted(handle_postback(state, request_of(f"transaction_id={form(sent)}"), ""))
    assert (event.click_id.hex(), event.transaction_id) == (sent, form(sent))
    assert event.session


def test_a_missing_id_is_refused_and_not_stored() -> None:
    """There is nothing to store; an empty one is a missing one."""
    state = build_state(CATALOG)
    for query in ("", "transaction_id=", "offer_id=17&amount=1"):
        handled = handle_postback(state, request_of(query), "")
        assert handled.answer.body == b"success=false; err_msg=Invalid Trans. ID #.;"
        assert (handled.outcome, handled.event) == ("refused", b"")
    assert counted(state) == (0, 0, 0, 0)


@pytest.mark.parametrize("sent", ["1027c8", "0" * 32, "x" * 200, "<b>", "019ac"])
def test_a_malformed_or_forged_id_is_refused_and_stored(sent: str) -> None:
    """Without a click, cut to 64 characters, so that reports can show who sends what."""
    state = build_state(CATALOG)
    handled = handle_postback(state, request_of(f"transaction_id={sent}&offer_id=17"), "")
    event = converted(handled)
    assert handled.outcome == "refused"
    assert handled.answer.body.startswith(b"success=false; err_msg=Invalid Trans. ID #")
    assert (event.transaction_id, event.click_id, event.session) == (sent[:64], b"", b"")
    assert counted(state) == (0, 0, 1, 0)


def test_every_digit_of_an_id_is_verified() -> None:
    """One changed digit anywhere makes it somebody else's."""
    state = build_state(CATALOG)
    sent, _ = clicked(state)
    for position in range(32):
        changed = sent[:position] + ("0" if sent[position] != "0" else "1") + sent[position + 1 :]
        handled = handle_postback(state, request_of(f"transaction_id={changed}"), "")
        assert handled.outcome == "refused", changed


def test_forged_ids_are_stored_at_a_bounded_rate_and_counted_beyond() -> None:
    """A burst of 100, then 10 a second; a clock that goes back grants nothing."""
    state = build_state(CATALOG)

    def stored(count: int, now_ms: int) -> int:
        request = request_of("transaction_id=forged", now_ms=now_ms)
        return sum(bool(handle_postback(state, request, "").event) for _ in range(count))

    assert stored(250, NOW_MS) == REFUSALS_BURST
    assert stored(50, NOW_MS + 1000) == 10
    assert stored(50, NOW_MS - 5000) == 0
    assert stored(50, NOW_MS - 4000) == 10
    assert stored(500, NOW_MS + 3_600_000) == REFUSALS_BURST
    assert counted(state) == (0, 0, 900, 900 - 100 - 10 - 10 - 100)


def test_who_floods_with_forged_ids_does_not_hide_what_others_send() -> None:
    """Each sender's network has its own rate, all together twice that; beyond it nothing is made of the request."""
    state = build_state(CATALOG)

    def stored(ip: str, count: int) -> int:
        request = replace(request_of("transaction_id=forged"), client_ip=ip)
        return sum(bool(handle_postback(state, request, "").event) for _ in range(count))

    assert stored("198.51.100.1", 10_000) == REFUSALS_BURST
    assert stored("198.51.100.77", 10) == 0
    assert stored("203.0.113.9", 60) == 60
    assert sum(stored(f"10.{number}.0.1", 5) for number in range(100)) == ALL_REFUSALS_BURST - REFUSALS_BURST - 60
    assert counted(state)[2:] == (10_570, 10_570 - ALL_REFUSALS_BURST)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("offer_id=99", "Invalid Offer ID #99."),
        ("offer_id=9999999999", "Invalid Offer ID #9999999999."),
        ("offer_id=%3Cb%3E", "Invalid Offer ID #."),
        ("goal_id=9", "Invalid Goal ID #9."),
        ("goal_id=x", "Invalid Goal ID #x."),
        ("goal_name=nothing", "Invalid Goal ID #nothing."),
        ("goal_name=%3Cb%3E", "Invalid Goal ID #."),
    ],
)
def test_an_unknown_offer_or_goal_is_refused(query: str, problem: str) -> None:
    """The edge knows the catalog: nothing is stored, and the words say what is wrong."""
    state = build_state(CATALOG)
    sent, _ = clicked(state)
    handled = handle_postback(state, request_of(f"transaction_id={sent}&{query}"), "")
    assert handled.answer.body.decode() == f"success=false; err_msg={problem};"
    assert (handled.outcome, handled.event) == ("refused", b"")


@pytest.mark.parametrize(
    ("query", "goal_id"),
    [("goal_id=1", 1), ("goal_id=2", 2), ("goal_name=lead", 1), ("goal_name=sale%2C+first", 2), ("goal_id=0", 0)],
)
def test_a_goal_is_found_by_id_or_name(query: str, goal_id: int) -> None:
    """`goal_id` counts when both are sent."""
    state = build_state(CATALOG)
    sent, _ = clicked(state)
    for suffix in ("", "&goal_name=nothing" if goal_id and "goal_id" in query else ""):
        handled = handle_postback(state, request_of(f"transaction_id={sent}&{query}{suffix}"), "")
        assert handled.answer.body == SUCCESS
        assert converted(handled).goal_id == goal_id


def test_the_clicks_own_offer_beats_the_postbacks() -> None:
    """Offer 18 has no goals, but the click was on 17; another worker's click is judged by the drain."""
    state = build_state(CATALOG)
    sent, _ = clicked(state)
    event = converted(handle_postback(state, request_of(f"transaction_id={sent}&offer_id=18&goal_id=1"), ""))
    assert (event.offer_id, event.goal_id) == (17, 1)
    elsewhere = state.ids.mint(NOW_MS).hex()
    event = converted(handle_postback(state, request_of(f"transaction_id={elsewhere}&goal_id=77"), ""))
    assert (event.offer_id, event.goal_id) == (0, 77)


def test_a_goal_postback_must_name_its_goal() -> None:
    """`/aff_goal?a=lsr` without one is refused."""
    state = build_state(CATALOG)
    sent, _ = clicked(state)
    refused = handle_goal_postback(state, request_of(f"a=lsr&transaction_id={sent}"), "")
    assert refused.answer.body == b"success=false; err_msg=Invalid Goal ID #.;"
    event = converted(handle_goal_postback(state, request_of(f"a=lsr&goal_name=lead&transaction_id={sent}"), ""))
    assert event.goal_id == 1


def test_replies_may_be_json() -> None:
    """`format=json`, for success and failure."""
    state = build_state(CATALOG)
    sent, _ = clicked(state)
    good = handle_postback(state, request_of(f"format=json&transaction_id={sent}"), "").answer
    bad = handle_postback(state, request_of("format=json&transaction_id=forged"), "").answer
    assert (good.body, good.content_type) == (b'{"success":true}', "application/json")
    assert bad.body == b'{"success":false,"err_msg":"Invalid Trans. ID #forged."}'


@pytest.mark.parametrize(("offer_id", "touch"), [(17, "last"), (18, "first")])
def test_a_pixel_finds_its_click_by_the_offers_attribution(offer_id: int, touch: str) -> None:
    """Offer 17 pays the last click, offer 18 the first."""
    state = build_state(CATALOG)
    first, cookie = clicked(state, f"offer_id={offer_id}&aff_id=2")
    last, cookie = clicked(state, f"offer_id={offer_id}", {"Cookie": cookie})
    handled = handle_pixel(state, request_of(f"offer_id={offer_id}&amount=5", {"Cookie": cookie}, path="/aff_l"), "")
    event = converted(handled)
    assert (handled.kind, handled.outcome, handled.answer, handled.is_droppable) == (Kind.PIXEL, "recorded", GIF, False)
    assert event.click_id.hex() == {"first": first, "last": last}[touch]
    assert (event.via, event.transaction_id, event.offer_id) == ("pixel", "", offer_id)
    assert event.session


def test_a_pixels_transaction_id_beats_its_cookie() -> None:
    """Also when it is forged: a cookie does not heal it."""
    state = build_state(CATALOG)
    named, _ = clicked(state)
    _, cookie = clicked(state)
    event = converted(handle_pixel(state, request_of(f"offer_id=17&transaction_id={named}", {"Cookie": cookie}), ""))
    assert (event.click_id.hex(), event.transaction_id) == (named, named)
    event = converted(handle_pixel(state, request_of("offer_id=17&transaction_id=forged", {"Cookie": cookie}), ""))
    assert (event.click_id, event.transaction_id) == (b"", "forged")
    assert counted(state) == (1, 0, 1, 0)


@pytest.mark.parametrize("query", ["offer_id=17", "offer_id=99", "", "offer_id=17&goal_id=1"])
def test_a_pixel_without_a_click_gets_its_gif_and_is_stored_at_a_bounded_rate(query: str) -> None:
    """A browser is never told; beyond the rate it is only counted, and no id was forged."""
    state = build_state(CATALOG)
    events = [handle_pixel(state, request_of(query), "") for _ in range(REFUSALS_BURST + 20)]
    assert {handled.answer for handled in events} == {GIF}
    assert sum(bool(handled.event) for handled in events) == REFUSALS_BURST
    assert converted(events[0]).click_id == b""
    assert counted(state) == (0, 0, 0, 20)


def test_a_pixel_answers_a_script_where_that_is_asked_for() -> None:
    """`format=js`; its goal is left to the drain where the offer has none such."""
    state = build_state(CATALOG)
    sent, _ = clicked(state)
    handled = handle_pixel(state, request_of(f"offer_id=17&goal_id=9&format=js&transaction_id={sent}"), "")
    assert handled.answer.content_type == "text/javascript; charset=utf-8"
    assert handled.answer.body == b"/* success=true; */\n"
    assert converted(handled).goal_id == 9


def test_an_id_that_is_not_ours_is_accepted_where_the_network_has_such() -> None:
    """Whether it is known is the drain's to say; until any click carried one, it is forged."""
    state = build_state(CATALOG)
    request = request_of("transaction_id=TUNE-1.x&offer_id=17&goal_id=1")
    assert handle_postback(state, request, "").outcome == "refused"
    state.has_external_ids = True
    handled = handle_postback(state, request, "")
    event = converted(handled)
    assert (handled.outcome, handled.answer.body) == ("recorded", SUCCESS)
    assert (event.transaction_id, event.click_id, event.is_external) == ("TUNE-1.x", b"", True)
    assert (event.offer_id, event.goal_id) == (17, 1)
    for sent in ("a%20b", "x" * 65):
        assert not converted(handle_postback(state, request_of(f"transaction_id={sent}"), "")).is_external
    ours, _ = clicked(state)
    assert not converted(handle_postback(state, request_of(f"transaction_id={ours}"), "")).is_external


NAMELESS = build_catalog(
    """
[[advertisers]]
id = 1
name = "A"
[[partners]]
id = 2
name = "P"
[[offers]]
id = 17
advertiser_id = 1
name = "Codes"
url = "https://shop.example.com/"
promo_codes = [{ code = "XMAS", aff_id = 2 }]
goals = [{ id = 1, name = "lead" }]
[[offers]]
id = 18
advertiser_id = 1
name = "Rebills"
url = "https://shop.example.com/"
tracking = "partner_id"
"""
)


@pytest.mark.parametrize(
    "query",
    [
        "offer_id=18&aff_id=2",
        "offer_id=17&promo_code=xmas&goal_name=lead",
        "contact_id=c-1",
        "offer_id=17&contact_id=c-1&promo_code=unknown",
    ],
)
def test_a_postback_may_name_a_partner_a_code_or_a_contact_instead_of_a_click(query: str) -> None:
    """It is recorded without an id, and nothing was forged."""
    state = build_state(NAMELESS)
    handled = handle_postback(state, request_of(query), "")
    event = converted(handled)
    assert (handled.outcome, handled.answer.body) == ("recorded", SUCCESS)
    assert (event.transaction_id, event.click_id, event.is_external) == ("", b"", False)
    assert counted(state) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("offer_id=17&aff_id=2", "Invalid Trans. ID #."),
        ("offer_id=18", "Invalid Trans. ID #."),
        ("offer_id=18&aff_id=x", "Invalid Trans. ID #."),
        ("offer_id=17&promo_code=EASTER", "Invalid Trans. ID #."),
        ("promo_code=XMAS", "Invalid Trans. ID #."),
        ("offer_id=99&aff_id=2", "Invalid Trans. ID #."),
        ("offer_id=99&contact_id=c-1", "Invalid Offer ID #99."),
        ("offer_id=17&contact_id=c-1&goal_id=9", "Invalid Goal ID #9."),
        ("offer_id=18&aff_id=2&transaction_id=forged", "Invalid Trans. ID #forged."),
    ],
)
def test_a_postback_that_names_nobody_is_refused(query: str, problem: str) -> None:
    """A partner counts only where the offer says so, a code only if the offer has it; a forged id is not made good."""
    handled = handle_postback(build_state(NAMELESS), request_of(query), "")
    assert handled.answer.body.decode() == f"success=false; err_msg={problem};"
    assert handled.outcome == "refused"


def test_of_one_sender_only_so_many_postbacks_without_a_click_of_ours_are_taken() -> None:
    """The others are to be sent again, in every dialect; other senders and our own ids are not held up."""
    state = build_state(CATALOG)
    ours, _ = clicked(state)
    state.has_external_ids = True
    for _ in range(UNVERIFIED_BURST):
        state.unverified.take("203.0.113.200", NOW_MS)
    for query in ("transaction_id=other", "contact_id=c-1"):
        handled = handle_postback(state, request_of(query), "")
        assert (handled.outcome, handled.answer, handled.event) == ("unavailable", UNAVAILABLE, b"")
    keitaro = dispatch(state, request_of("subid=other", path="/key/postback"))
    assert (keitaro.outcome, keitaro.answer) == ("unavailable", UNAVAILABLE)
    assert handle_postback(state, request_of(f"transaction_id={ours}"), "").outcome == "recorded"
    other = replace(request_of("transaction_id=other"), client_ip="198.51.100.9")
    assert handle_postback(state, other, "").outcome == "recorded"
    later = request_of("transaction_id=other", now_ms=NOW_MS + 1000)
    outcomes = [handle_postback(state, later, "").outcome for _ in range(UNVERIFIED_PER_S + 1)]
    assert outcomes == ["recorded"] * UNVERIFIED_PER_S + ["unavailable"]


def test_guesses_at_our_ids_are_counted_where_other_ids_are_taken_too() -> None:
    """They may be another tracker's, so they are taken; but whoever watches the counter sees them."""
    state = build_state(CATALOG)
    ours, _ = clicked(state)
    state.has_external_ids = True
    guess = ours[:-1] + ("0" if ours[-1] != "0" else "1")
    assert handle_postback(state, request_of(f"transaction_id={guess}"), "").outcome == "recorded"
    assert handle_postback(state, request_of("transaction_id=TUNE-1"), "").outcome == "recorded"
    assert counted(state)[2] == 1


@pytest.mark.reliability(number=26)
def test_of_ten_thousand_forged_ids_none_is_accepted() -> None:
    """Made up, signed by another secret, or a true one with one bit changed: none becomes a click's."""
    state, chance = build_state(CATALOG), random.Random(26)
    true_id, other = state.ids.mint(NOW_MS), ClickIds(("another secret",), 3, 1, Unbounded())
    accepted = []
    for number in range(10_000):
        if number % 3 == 0:
            sent = chance.randbytes(16)
        elif number % 3 == 1:
            sent = other.mint(NOW_MS)
        else:
            sent = (int.from_bytes(true_id) ^ 1 << chance.randrange(128)).to_bytes(16)
        handled = handle_postback(state, request_of(f"transaction_id={sent.hex()}"), "")
        if handled.outcome != "refused" or (handled.event and converted(handled).click_id):
            accepted.append(sent.hex())
    assert accepted == []
    assert counted(state)[2] == 10_000
