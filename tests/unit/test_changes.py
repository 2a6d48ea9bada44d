"""Changes of stored conversions, purely: transitions, new money, deltas; what the advertiser's word leads to."""

from datetime import UTC, date
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge.tracking.catalog import Terms, compile_offer
from edge.tracking.catalog_document import Goal, Offer, Override, Tier
from edge.tracking.changes import (
    ADVERTISER,
    CHANGE_REASONS,
    TRANSITIONS,
    ChangeRefused,
    State,
    Wanted,
    answer,
    change,
    gain_of,
    kind_of,
)
from edge.tracking.months import month_of, parse_month, span_of
from edge.tracking.verdict import Ask, Pricing

ZERO = Decimal(0)
TIERS = (
    Tier(from_conversions=3, payout=Decimal(6)),
    Tier(from_conversions=5, payout=Decimal(8), payout_percent=Decimal(50)),
)
PLAIN = Terms("cpa_both", Decimal(1), Decimal(10), "cpa_percentage", ZERO, Decimal(20), "increment")
TIERED = PLAIN._replace(tiers=TIERS)


def state(status: str, reason: str = "", amount: str = "10", payout: str = "2", revenue: str = "2") -> State:
    """A stored conversion; the amounts are those of PLAIN."""
    return State(status, reason, 0, Decimal(amount), Decimal(payout), Decimal(revenue))


def ask(said: Any = "", mode: str = "", *, is_manual: bool = False) -> Ask:
    """What a later conversion asks."""
    return Ask(said=said, mode=mode, click_id=bytes(16), goal_id=0, is_manual=is_manual)


@pytest.mark.parametrize("before", TRANSITIONS)
@pytest.mark.parametrize("wanted", ["approved", "pending", "rejected", "reversed"])
def test_a_person_may_do_what_the_table_of_transitions_says(before: str, wanted: Any) -> None:
    """Nothing else, and the refusal names what is allowed."""
    if wanted in TRANSITIONS[before]:
        after = change(state(before), Wanted(wanted, "fraud"), Pricing(PLAIN), 1)
        assert (after.status, after.reason) == (wanted, "" if wanted == "approved" else "fraud")
        return
    with pytest.raises(ChangeRefused) as refused:
        change(state(before), Wanted(wanted, "fraud"), Pricing(PLAIN), 1)
    assert str(refused.value).startswith(f"it is {before}")


@pytest.mark.parametrize(
    ("before", "wanted", "terms", "rank", "money"),
    [
        (state("pending"), {}, PLAIN, 1, ("10", "2", "2", 0)),
        (state("pending"), {}, TIERED, 2, ("10", "2", "2", 0)),
        (state("pending"), {}, TIERED, 3, ("10", "7", "2", 3)),
        (state("pending"), {}, TIERED, 9, ("10", "13", "2", 5)),
        (state("pending", payout="4"), {}, TIERED, 9, ("10", "4", "2", 0)),
        (state("pending"), {"payout": "0"}, TIERED, 9, ("10", "0", "2", 0)),
        (state("rejected", "duplicate", payout="0", revenue="0"), {}, PLAIN, 1, ("10", "2", "2", 0)),
        (state("rejected", "duplicate", payout="0", revenue="0"), {"amount": "20"}, PLAIN, 1, ("20", "3", "4", 0)),
        (state("rejected", "duplicate", payout="0", revenue="0"), {"payout": "9"}, PLAIN, 1, ("10", "9", "2", 0)),
        (state("rejected", "fraud", payout="1.5"), {}, TIERED, 9, ("10", "1.5", "2", 0)),
        (state("reversed", "fraud"), {}, TIERED, 9, ("10", "2", "2", 0)),
        (state("rejected", payout="0", revenue="0"), {"payout": "1", "revenue": "3"}, None, 1, ("10", "1", "3", 0)),
        (state("rejected", "fraud"), {}, None, 1, ("10", "2", "2", 0)),
    ],
)
def test_what_is_approved_earns_its_terms_or_what_is_said(
    before: State, wanted: dict[str, str], terms: Terms | None, rank: int, money: tuple[Any, ...]
) -> None:
    """What had money keeps it; pending ones get their tier then; amounts that are said win."""
    amounts = {name: Decimal(text) for name, text in wanted.items()}
    after = change(before, Wanted("approved", "", **amounts), Pricing(terms) if terms else None, rank)
    assert (after.amount, after.payout, after.revenue) == tuple(map(Decimal, money[:3]))
    assert after.tier == money[3]


def test_what_nobody_can_price_must_be_said() -> None:
    """Without terms and without amounts of its own an approval is refused."""
    with pytest.raises(ChangeRefused, match="no terms"):
        change(state("rejected", payout="0", revenue="0"), Wanted("approved"), None, 1)


def test_an_adjustment_changes_what_is_named() -> None:
    """The others stay, also those that a percentage once made; nothing to change is refused, and so is too much."""
    after = change(state("approved"), Wanted("", "returned", amount=Decimal(4)), Pricing(PLAIN), 1)
    assert (after.status, after.amount, after.payout, after.revenue) == ("approved", 4, 2, 2)
    with pytest.raises(ChangeRefused, match="already"):
        change(state("approved"), Wanted("", "other", payout=Decimal(2)), Pricing(PLAIN), 1)
    with pytest.raises(ChangeRefused, match="10\\^12"):
        change(state("approved"), Wanted("", "other", payout=Decimal(10) ** 12), Pricing(PLAIN), 1)


SAID = [
    ("approved", "", "reversed", False, "reversed"),
    ("approved", "", "rejected", False, "rejected"),
    ("approved", "", "approved", False, None),
    ("approved", "", "pending", False, None),
    ("pending", "", "reversed", False, "rejected"),
    ("pending", "", "rejected", True, "rejected"),
    ("pending", "", "approved", False, "approved"),
    ("pending", "", "approved", True, None),
    ("rejected", ADVERTISER, "approved", False, "approved"),
    ("rejected", ADVERTISER, "approved", True, None),
    ("rejected", "fraud", "approved", False, None),
    ("rejected", ADVERTISER, "reversed", False, None),
    ("reversed", ADVERTISER, "approved", False, "approved"),
    ("reversed", ADVERTISER, "approved", True, "approved"),
    ("reversed", "fraud", "approved", False, None),
    ("reversed", "fraud", "rejected", False, None),
]


@pytest.mark.parametrize(("status", "reason", "said", "is_manual", "becomes"), SAID)
def test_an_advertiser_undoes_only_what_it_did(
    status: str, reason: str, said: Any, is_manual: bool, becomes: str | None
) -> None:
    """A person's decision stands; what a person has to decide is not approved by a postback."""
    after = answer(state(status, reason), ask(said, is_manual=is_manual), Pricing(PLAIN), 1)
    assert (after.status if after else None) == becomes


@pytest.mark.parametrize(
    ("mode", "sent", "money"),
    [
        ("update", {"amount": "30"}, ("30", "4", "6")),
        ("update", {"payout": "9"}, ("10", "9", "2")),
        ("update", {"amount": "30", "payout": "9"}, ("30", "9", "6")),
        ("update", {}, ("10", "2", "2")),
        ("increment", {"amount": "30"}, ("40", "5", "8")),
        ("increment", {"payout": "9"}, ("10", "11", "2")),
        ("increment", {"amount": "30", "revenue": "1"}, ("40", "5", "3")),
        ("increment", {}, ("10", "2", "2")),
    ],
)
def test_a_second_conversion_updates_or_increments(mode: str, sent: dict[str, str], money: tuple[str, ...]) -> None:
    """What is not sent stays; what is not accepted any more is not changed."""
    pricing = Pricing(PLAIN, **{name: Decimal(text) for name, text in sent.items()})
    for status in ("approved", "pending"):
        after = answer(state(status), ask("", mode), pricing, 1)
        assert after == state(status, "", *money)
    assert answer(state("reversed"), ask("", mode), pricing, 1) is None
    assert answer(state("rejected"), ask("", mode), pricing, 1) is None


def test_an_increment_stays_in_its_tier() -> None:
    """The conversion was the fifth when it came, and still is."""
    after = answer(state("approved")._replace(tier=5), ask("", "increment"), Pricing(TIERED, Decimal(10)), 1)
    assert after is not None
    assert (after.payout, after.tier) == (Decimal(18), 5)


def test_sums_that_do_not_fit_are_refused() -> None:
    """Before the database refuses them, and the whole batch with them."""
    with pytest.raises(ChangeRefused):
        answer(state("approved", amount="999999999999"), ask("", "increment"), Pricing(PLAIN, Decimal(1)), 1)


MONEY = st.decimals(0, 10**6, places=2)
STATES = st.builds(
    State,
    st.sampled_from(list(TRANSITIONS)),
    st.sampled_from(("", *CHANGE_REASONS)),
    st.just(0),
    MONEY,
    MONEY,
    MONEY,
)
WANTED = st.builds(
    Wanted,
    st.sampled_from(["", "approved", "rejected", "reversed"]),
    st.sampled_from(CHANGE_REASONS),
    st.none() | MONEY,
    st.none() | MONEY,
    st.none() | MONEY,
)


@given(STATES, st.lists(WANTED, max_size=6), st.integers(1, 9))
def test_deltas_add_up_to_the_last_state(first: State, steps: list[Any], rank: int) -> None:
    """Whatever happens in between: the sum of all deltas is what the last state earns less what the first did."""
    states = [first]
    for wanted in steps:
        try:
            states.append(change(states[-1], wanted, Pricing(TIERED), rank))
        except ChangeRefused:
            continue
    assume(len(states) > 1)
    gains = [gain_of(before, after) for before, after in pairwise(states)]
    summed = tuple(map(sum, zip(*gains, strict=True)))
    assert summed == tuple(gain_of(first, states[-1]))
    earned = [getattr(states[-1], name) if states[-1].status == "approved" else 0 for name in ("amount", "payout")]
    had = [getattr(first, name) if first.status == "approved" else 0 for name in ("amount", "payout")]
    assert list(summed[:2]) == [new - old for new, old in zip(earned, had, strict=True)]
    assert all(
        kind_of(before, after) == ("adjusted" if before.status == after.status else after.status)
        for before, after in pairwise(states)
    )


def test_tiers_belong_to_the_offers_own_payout() -> None:
    """A goal's or a partner's payout has none; a goal without one has the offer's."""
    offer = compile_offer(
        Offer(
            id=1,
            advertiser_id=1,
            name="o",
            url="https://x.example/",
            payout=Decimal(5),
            tiers=TIERS,
            goals=(Goal(id=1, name="a", payout=Decimal(1)), Goal(id=2, name="b", revenue=Decimal(1))),
            overrides=(Override(aff_id=3, payout=Decimal(7)), Override(aff_id=4, revenue=Decimal(7))),
        )
    )
    tiers = {(goal, aff): offer.terms(goal, aff).tier(5) for goal in (0, 1, 2) for aff in (2, 3, 4)}
    assert {key for key, tier in tiers.items() if tier} == {(0, 2), (0, 4), (2, 2), (2, 4)}
    assert [offer.terms(0, 2).tier(rank) for rank in (1, 2, 3, 4, 5, 100)] == [0, 0, 3, 3, 5, 5]
    third = offer.terms(0, 2).at_tier(3)
    assert (third.payout, third.payout_percent) == (6, 0)
    assert offer.terms(0, 2).at_tier(4) == offer.terms(0, 2)


@pytest.mark.parametrize(
    ("zone", "month", "starts", "ends"),
    [
        ("UTC", date(2026, 10, 1), "2026-10-01T00:00", "2026-11-01T00:00"),
        ("UTC", date(2026, 12, 1), "2026-12-01T00:00", "2027-01-01T00:00"),
        ("Europe/Berlin", date(2026, 10, 1), "2026-09-30T22:00", "2026-10-31T23:00"),
        ("Asia/Kolkata", date(2026, 2, 1), "2026-01-31T18:30", "2026-02-28T18:30"),
    ],
)
def test_a_month_begins_and_ends_at_midnight_of_its_zone(zone: str, month: date, starts: str, ends: str) -> None:
    """Summer time and half hours included; its first instant is in it, its end in the next."""
    span = span_of(month, ZoneInfo(zone))
    assert [f"{moment:%Y-%m-%dT%H:%M}" for moment in span[1:]] == [starts, ends]
    assert span.starts_at.tzinfo == UTC
    assert month_of(span.starts_at, ZoneInfo(zone)) == month
    assert month_of(span.ends_at, ZoneInfo(zone)) != month


def test_a_month_is_written_with_its_year() -> None:
    """Anything else is none."""
    assert parse_month("2026-10") == date(2026, 10, 1)
    for text in ("2026-13", "2026-1", "10-2026", "2026", "", "1999-12", "9999-12", "२०२६-१०"):
        assert parse_month(text) is None
