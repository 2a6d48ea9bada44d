"""The memory of visits without a database: what is noted, taken back, moved to a larger table."""

from random import Random

from edge.drain.uniques import FIRST_SLOTS, Generation


def test_a_generation_remembers_the_latest_time_of_each_key() -> None:
    """`see` answers with the time before; an earlier time does not replace a later one."""
    generation = Generation(FIRST_SLOTS, 0)
    undo: list[int] = []
    assert [generation.see(-7, ms, undo) for ms in (50, 70, 60)] == [0, 50, 70]
    assert (generation.last_seen(-7), generation.last_seen(7), generation.used) == (70, 0, 1)


def test_what_is_taken_back_was_never_there_whatever_it_collided_with() -> None:
    """Against a dict, with keys that collide: after each rollback everything is as at the last commit."""
    random = Random(4)
    generation = Generation(64, 0)
    known: dict[int, int] = {}
    undo: list[int] = []
    for _ in range(300):
        attempted = dict(known)
        for _ in range(random.randrange(5)):
            key, ms = random.randrange(1, 2000) * 64, random.randrange(1, 1000)
            if len(attempted) < generation.limit or key in attempted:
                assert generation.see(key, ms, undo) == attempted.get(key, 0)
                attempted[key] = max(ms, attempted.get(key, 0))
        if random.random() < 0.1:
            known = attempted
            undo.clear()
        else:
            generation.take_back(undo)
        assert generation.used == len(known)
        assert {key: generation.last_seen(key) for key in range(0, 128_000, 64) if generation.last_seen(key)} == known
    assert len(known) > 10


def test_a_larger_table_holds_the_same() -> None:
    """Growth moves every key, and the number of them stays."""
    random = Random(5)
    keys = [random.getrandbits(64) - 2**63 for _ in range(2000)]
    generation = Generation(FIRST_SLOTS, 9)
    for ms, key in enumerate(keys, 1):
        generation.see(key, ms, [])
    grown = generation.grown(4 * FIRST_SLOTS)
    assert [grown.last_seen(key) for key in keys] == list(range(1, 2001))
    assert (grown.used, grown.started_ms, grown.limit) == (2000, 9, int(4 * FIRST_SLOTS * 0.6))
