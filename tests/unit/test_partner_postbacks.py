"""What a partner is told of, when an attempt is repeated, how it is signed: the pure decisions."""

from datetime import UTC, datetime, timedelta

import pytest

from edge.tracking.catalog_document import Partner, Postback
from edge.tracking.postbacks import (
    LONGEST_PAUSE_S,
    MAX_ATTEMPTS,
    asked_pause_s,
    is_given_up,
    pause_s,
    sign,
    targets_of,
    without_secrets,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PARTNER = Partner(
    id=2,
    name="p",
    postback_url="https://p.example/0",
    postbacks=(
        Postback(url="https://p.example/1", offer_ids=(17, 18)),
        Postback(url="https://p.example/2", goal_ids=(0,), statuses=("approved", "reversed"), method="POST"),
        Postback(url="https://p.example/3", offer_ids=(17,), goal_ids=(3,), statuses=("pending", "rejected")),
    ),
)


@pytest.mark.parametrize(
    ("offer_id", "goal_id", "status", "numbers"),
    [
        (17, 0, "approved", [0, 1, 2]),
        (17, 1, "approved", [0, 1]),
        (19, 0, "approved", [0, 2]),
        (19, 7, "approved", [0]),
        (17, 0, "reversed", [2]),
        (17, 1, "reversed", []),
        (17, 3, "pending", [3]),
        (17, 3, "rejected", [3]),
        (18, 3, "pending", []),
        (17, 0, "pending", []),
    ],
)
def test_a_conversion_is_told_where_all_lists_let_it_through(
    offer_id: int, goal_id: int, status: str, numbers: list[int]
) -> None:
    """`postback_url` hears of approved ones alone; goal 0 is the base conversion; an empty list lets all through."""
    targets = list(targets_of(PARTNER, offer_id, goal_id, status))
    assert [target.number for target in targets] == numbers
    assert [target.url for target in targets] == [f"https://p.example/{number}" for number in numbers]
    assert {target.method for target in targets if target.number != 2} <= {"GET"}


def test_a_blocked_partner_is_told_nothing() -> None:
    """Whatever it asked for."""
    blocked = Partner(id=2, name="p", status="blocked", postback_url="https://p.example/", postbacks=PARTNER.postbacks)
    assert list(targets_of(blocked, 17, 0, "approved")) == []


def test_attempts_spread_over_a_day_and_end() -> None:
    """Twelve attempts: the pauses triple from the first to six hours, and together are about a day."""
    pauses = [pause_s(attempt, 5, 0.5) for attempt in range(1, MAX_ATTEMPTS)]
    assert pauses[:4] == [5, 15, 45, 135]
    assert max(pauses) == LONGEST_PAUSE_S
    assert 20 * 3600 < sum(pauses) < 26 * 3600
    assert [is_given_up(attempt, 500) for attempt in range(1, 14)] == [False] * 11 + [True] * 2
    assert is_given_up(1, 410)


def test_chance_spreads_the_next_attempts_by_a_fifth() -> None:
    """Rows that failed together do not come back together."""
    assert [round(pause_s(3, 5, chance), 9) for chance in (0.0, 0.5, 1.0)] == [36, 45, 54]


@pytest.mark.parametrize(
    ("retry_after", "asked_s"),
    [
        ("", 0), ("120", 120), (" 7 ", 7), ("-5", 0), ("1e3", 0), ("soon", 0), ("9" * 40, 0), ("١٢", 0),
        ("Sun, 22 Nov 2026 12:01:00 GMT", 60), ("Sun, 22 Nov 2026 11:00:00 GMT", 0), ("Sun, 22 Nov 99999 11:00:00 GMT", 0),
        ("\x00", 0), ("Sun, 31 Feb 2026 12:01:00 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_as_a_date(retry_after: str, asked_s: float) -> None:
    """Nonsense asks for nothing."""
    assert asked_pause_s(retry_after, NOW) == asked_s


def test_retry_after_lengthens_a_pause_within_bounds() -> None:
    """Never shorter than ours, never longer than the longest."""
    assert pause_s(1, 5, 0.5, asked_s=60) == 60
    assert pause_s(4, 5, 0.5, asked_s=60) == 135
    assert pause_s(1, 5, 0.5, asked_s=timedelta(days=30).total_seconds()) == LONGEST_PAUSE_S


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example that the specification's libraries test themselves with."""
    headers = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_without_a_secret_there_is_an_id_but_no_signature() -> None:
    """The id is what a partner drops repeats by."""
    assert sign("", "a-1", 5, b"x") == {"webhook-id": "a-1", "webhook-timestamp": "5"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://p.example/?a=1&token=abc&b=2", "https://p.example/?a=1&token=…&b=2"),
        ("https://p.example/?API_KEY=abc", "https://p.example/?API_KEY=…"),
        ("https://p.example/?x=1&my_password=a%26b#f", "https://p.example/?x=1&my_password=…#f"),
        ("https://p.example/token=5?secret=&a=token", "https://p.example/token=5?secret=&a=token"),
        ("https://p.example/?cid=1", "https://p.example/?cid=1"),
        ("https://p.example/?to=https://q.example/?token=abc", "https://p.example/?to=https://q.example/?token=…"),
    ],
)
def test_what_is_called_a_secret_is_not_shown(url: str, shown: str) -> None:
    """The log says what was sent, without the values of such parameters."""
    assert without_secrets(url) == shown


@pytest.mark.parametrize("name", ["?token", "&secret_", "?", "token"])
def test_no_answer_of_a_partners_takes_the_senders_time(name: str) -> None:
    """Names without values, each of which might be a secret's: the others' postbacks would wait meanwhile, for hours."""
    answer = "?" + name * 20_000
    assert without_secrets(answer) == answer
