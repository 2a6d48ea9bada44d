"""edge/tracking/allowances.py: so much a second, of everybody or of each sender."""

from edge.tracking.allowances import MAX_SENDERS, Allowance, SenderAllowances


def test_a_burst_is_taken_and_then_so_many_a_second() -> None:
    """What is not used adds up to the burst and no further; a clock that goes back costs nothing."""
    allowance = Allowance(10, 100)
    assert sum(allowance.take(1000) for _ in range(200)) == 100
    assert sum(allowance.take(1500) for _ in range(200)) == 5
    assert not allowance.take(500)
    assert sum(allowance.take(10**9) for _ in range(200)) == 100


def test_each_senders_network_has_its_own() -> None:
    """An address next door is the same sender, one further off is another, in both versions."""
    senders = SenderAllowances(1, 2)
    for same, other in (("203.0.113.9", "203.0.114.9"), ("2a00:1:2::1", "2a00:1:3::1"), ("", "10.0.0.1")):
        assert [senders.take(same, 1000) for _ in range(3)] == [True, True, False]
        assert senders.take(other, 1000)
    assert not senders.take("203.0.113.250", 1000)
    assert not senders.take("2a00:1:2:ffff::", 1000)


def test_no_number_of_senders_fills_the_memory() -> None:
    """The ones that came first are forgotten."""
    senders = SenderAllowances(1, 1)
    for number in range(MAX_SENDERS + 100):
        assert senders.take(f"10.{number >> 8}.{number & 255}.1", 1000)
    assert len(senders._by_network) == MAX_SENDERS
