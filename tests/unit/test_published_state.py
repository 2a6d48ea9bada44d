"""The published state: the file and who follows it. P1 and P2 are `storage.state_file`'s."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.state_follower import StateFollower
from storage.state_file import PublishedState, StateDamaged, read_state, write_state

STATE = PublishedState([(17, 0, 1_800_000_000_000), (17, 2, 253_370_764_800_000)], True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state is."""
    return tmp_path / "published.state"


@contextmanager
def without_descriptors() -> Iterator[None]:
    """Nothing can be opened meanwhile."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class Followed:
    """A follower, and what it tells."""

    def __init__(self, path: Path) -> None:
        self.taken: list[PublishedState] = []
        self.refused: list[Exception] = []
        self.follower = StateFollower(path, self.taken.append, self.refused.append)

    def look(self, times: int = 1) -> tuple[int, int]:
        """How many states it has taken and refused so far."""
        for _ in range(times):
            self.follower.take_new()
        return len(self.taken), len(self.refused)


def test_what_is_written_is_read(path: Path) -> None:
    """P1: nothing else is left in the folder; the file is its owner's alone."""
    write_state(path, STATE)
    assert read_state(path) == STATE
    assert os.listdir(path.parent) == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"null",
        b'{"version": 1, "capped": [[17, 0',
        b'{"capped": [[17]]}',
        b'{"capped": [["a", 0, 1]]}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_state_is_refused_whole(path: Path, damaged: bytes) -> None:
    """P2: with a word about what to do."""
    path.write_bytes(damaged)
    with pytest.raises(StateDamaged, match="delete it"):
        read_state(path)


def test_a_state_of_another_version_is_refused(path: Path) -> None:
    """What a later release means by it is not guessed."""
    path.write_bytes(b'{"version": 2, "capped": []}')
    with pytest.raises(StateDamaged, match="version 2"):
        read_state(path)


def test_each_new_state_is_told_once(path: Path) -> None:
    """A first start has none; then every other file counts, whenever it comes."""
    followed = Followed(path)
    assert followed.look(3) == (0, 0)
    write_state(path, STATE)
    assert followed.look(3) == (1, 0)
    write_state(path, PublishedState())
    assert followed.look(3) == (2, 0)
    assert followed.taken == [STATE, PublishedState()]


def test_a_damaged_or_missing_file_changes_nothing_and_is_reported_once(path: Path) -> None:
    """What was taken before stays; a good file that comes afterwards is taken."""
    followed = Followed(path)
    write_state(path, STATE)
    assert followed.look() == (1, 0)
    path.write_bytes(b"{")
    assert followed.look(3) == (1, 1)
    path.unlink()
    assert followed.look(3) == (1, 2)
    write_state(path, STATE)
    assert followed.look(3) == (2, 2)
    assert [type(one) for one in followed.refused] == [StateDamaged, FileNotFoundError]


def test_a_state_that_could_not_be_read_for_a_moment_is_taken_later(path: Path) -> None:
    """Without a descriptor for it the former stays, which is told once; the file needs no change to be tried again."""
    followed = Followed(path)
    write_state(path, STATE)
    with without_descriptors():
        assert followed.look(3) == (0, 1)
    assert followed.look(3) == (1, 1)
