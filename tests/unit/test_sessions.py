"""The session memory: bounded, least recently used first out, invisible to the garbage collector."""

import gc
import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

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


class OneAtATime(list[dict[bytes, bytes]]):
    """Shards that count how often one is taken, and cannot be gone through."""

    taken = 0

    def __getitem__(self, index: Any) -> Any:
        self.taken += 1
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[dict[bytes, bytes]]:
        raise AssertionError("all shards were looked through")


@pytest.mark.reliability(number=18)
def test_a_million_sessions_never_hold_an_access_up() -> None:
    """A million distinct ids through the default capacity: an access takes one shard, and none grows past 512 slots, so there is no scan and no long rebuild.

    What that comes to in microseconds is `benchmarks latency`'s to say, with evictions under way.
    """
    sessions, capacity = Sessions[bytes](200_000), 200_000
    shards = sessions._shards = OneAtATime(sessions._shards)
    for number in range(1_000_000):
        sessions.put(key(number), b"session")
        sessions.get(key(number // 2))
    assert shards.taken == 2_000_000
    plain = list.copy(shards)
    assert 0.95 * capacity <= sum(map(len, plain)) <= capacity
    full_table = dict.fromkeys(range(512 * 2 // 3))
    assert max(map(sys.getsizeof, plain)) <= sys.getsizeof(full_table)
