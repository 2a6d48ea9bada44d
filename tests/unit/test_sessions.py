"""The session memory: bounded, least recently used first out, invisible to the garbage collector."""

import gc
import time
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.tracking.sessions import SHARD_ENTRIES, Sessions


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@settings(max_examples=60)
@given(st.integers(1, 12), st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=200))
def test_a_small_memory_is_an_exact_lru(capacity: int, steps: list[tuple[bool, int]]) -> None:
    """Any sequence of puts and gets answers as an ordered dict of the same size does."""
    sessions, model = Sessions[bytes](capacity), OrderedDict[bytes, bytes]()
    for step, (is_put, number) in enumerate(steps):
        if is_put:
            value = b"%d" % step
            sessions.put(key(number), value)
            model[key(number)] = value
            model.move_to_end(key(number))
            if len(model) > capacity:
                model.popitem(last=False)
        else:
            assert sessions.get(key(number)) == model.get(key(number))
            if key(number) in model:
                model.move_to_end(key(number))
        assert len(sessions) == len(model)


@pytest.mark.parametrize("capacity", [SHARD_ENTRIES, SHARD_ENTRIES + 1, 1000, 4321])
@pytest.mark.reliability(number=18)
def test_there_are_never_more_entries_than_the_capacity(capacity: int) -> None:
    """Five times as many puts as places; what is left is nearly all of the capacity."""
    sessions = Sessions[bytes](capacity)
    for number in range(5 * capacity):
        sessions.put(key(number), b"session")
        if number % 97 == 0:
            assert len(sessions) <= capacity
    assert 0.95 * capacity <= len(sessions) <= capacity


def test_a_large_memory_keeps_the_recently_used() -> None:
    """Among many shards the newest half of the capacity is held whole, and what is used again stays."""
    sessions = Sessions[bytes](20_000)
    sessions.put(key(10**9), b"popular")
    for number in range(60_000):
        sessions.put(key(number), b"session")
        if number % 1000 == 0:
            assert sessions.get(key(10**9)) == b"popular"
    assert all(sessions.get(key(number)) for number in range(50_000, 60_000))
    assert sessions.get(key(0)) is None


def test_the_garbage_collector_sees_no_entry() -> None:
    """Shards of bytes are not tracked, so a million sessions lengthen no collection."""
    sessions = Sessions[bytes](2000)
    for number in range(5000):
        sessions.put(key(number), b"session")
    assert not any(gc.is_tracked(shard) for shard in sessions._shards)


def test_a_capacity_below_one_is_refused() -> None:
    """A memory of nothing is a fault of settings."""
    with pytest.raises(ValueError, match="capacity"):
        Sessions(0)


@pytest.mark.reliability(number=18)
def test_a_million_sessions_never_hold_an_access_up() -> None:
    """A million distinct ids through the default capacity: never more entries than that, and none is ever looked through as a whole.

    At most three accesses above 1 ms of CPU, none above 5 ms: a busy machine's page faults; a scan of all would take longer.
    """
    sessions, capacity = Sessions[bytes](200_000), 200_000
    slow_ns = []
    gc.collect()
    for number in range(1_000_000):
        session_id = key(number)
        began_ns = time.thread_time_ns()
        sessions.put(session_id, b"session")
        if (took_ns := time.thread_time_ns() - began_ns) > 1_000_000:
            slow_ns.append(took_ns)
        if number % 10_000 == 0:
            assert len(sessions) <= capacity
    assert len(sessions) <= capacity
    assert len(slow_ns) <= 3
    assert max(slow_ns, default=0) <= 5_000_000
