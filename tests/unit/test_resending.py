"""Requests to send again: heard for what they are worth, and not without end."""

from uuid import UUID

import msgspec
import pytest

from storage.stream.resending import AT_ONCE, EVERY_S, Allowance
from storage.stream.shipments import Place, Resend, decode_resend, encode

ONE, OTHER = UUID(int=1), UUID(int=2)


def test_a_journal_is_sent_again_some_times_at_once_and_then_once_a_minute() -> None:
    """Whoever asks without end keeps no shipper from what is new; another journal has an allowance of its own."""
    allowance = Allowance()
    assert [allowance.take(ONE, 100.0) for _ in range(AT_ONCE + 5)] == [True] * AT_ONCE + [False] * 5
    assert allowance.take(OTHER, 100.0)
    assert [allowance.take(ONE, 100.0 + EVERY_S) for _ in range(2)] == [True, False]


def test_an_allowance_becomes_whole_again() -> None:
    """After some minutes without a request."""
    allowance = Allowance()
    for now_s in (100.0, 100.0 + AT_ONCE * EVERY_S):
        assert [allowance.take(ONE, now_s) for _ in range(AT_ONCE + 1)] == [True] * AT_ONCE + [False]


@pytest.mark.parametrize("place", [(0, 0), (-1, 0), (1, -1), (1, 1 << 63), (1 << 40, 0)])
def test_a_place_that_no_journal_has_is_no_request(place: Place) -> None:
    """Files cannot be read there."""
    with pytest.raises(msgspec.ValidationError):
        decode_resend(encode(Resend(bytes(16), 0, place)))
    assert decode_resend(encode(Resend(bytes(16), 0, (1, 0)))).place == (1, 0)
