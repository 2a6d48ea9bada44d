"""Click ids: unique, ordered, covered by the lease, refused when forged."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.click_id import ClickIds, is_well_formed, ms_of, node_of, worker_of

NOW_MS = 1_790_000_000_000


class RecordingLease:
    """A lease in memory that notes what it was asked to cover; `limit_ms`: beyond it, it cannot be extended."""

    def __init__(self, start_ms: int = 0, through_ms: int = 2**48, limit_ms: int = 2**48) -> None:
        self.start_ms = start_ms
        self.through_ms = through_ms
        self.limit_ms = limit_ms
        self.covered: list[int] = []

    def cover(self, ms: int) -> None:
        if ms > self.limit_ms:
            raise OSError("no space")
        self.covered.append(ms)
        self.through_ms = ms


def make_ids(
    secret: str = "first secret", lease: RecordingLease | None = None, node: int = 1023, worker: int = 63
) -> ClickIds:
    return ClickIds(secret.split(","), node, worker, lease or RecordingLease())


def test_an_id_is_a_uuid_version_7_of_its_millisecond_node_and_worker() -> None:
    """The standard library reads version and variant; our fields come back out."""
    click_id = make_ids(node=709, worker=37).mint(NOW_MS)
    as_uuid = uuid.UUID(bytes=click_id)
    assert (as_uuid.version, as_uuid.variant) == (7, uuid.RFC_4122)
    assert (ms_of(click_id), node_of(click_id), worker_of(click_id)) == (NOW_MS, 709, 37)


def test_any_standard_writing_of_an_id_is_read() -> None:
    """Upper case and dashes are accepted; the bytes are the same."""
    ids = make_ids()
    click_id = ids.mint(NOW_MS)
    dashed = str(uuid.UUID(bytes=click_id))
    for text in (click_id.hex(), click_id.hex().upper(), dashed, dashed.upper()):
        assert ids.parse(text) == click_id
        assert is_well_formed(text)


def test_every_flipped_bit_makes_an_id_forged() -> None:
    """Each of the 128 bits is either covered by the tag or is the tag."""
    ids = make_ids()
    value = int.from_bytes(ids.mint(NOW_MS), "big")
    assert all(ids.parse(f"{value ^ 1 << bit:032x}") is None for bit in range(128))


def test_a_flipped_tag_stays_well_formed() -> None:
    """`is_well_formed` looks at the shape only."""
    ids = make_ids()
    forged = f"{int.from_bytes(ids.mint(NOW_MS), 'big') ^ 1:032x}"
    assert is_well_formed(forged)
    assert ids.parse(forged) is None


@pytest.mark.parametrize("place", [0, 7, 8, 20, 35])
def test_dashes_in_other_places_are_refused(place: int) -> None:
    """Only the 36-character form of a UUID may hold dashes."""
    ids = make_ids()
    text = ids.mint(NOW_MS).hex()
    assert ids.parse(f"{text[:place]}----{text[place:]}") is None


def test_white_space_and_foreign_digits_are_refused() -> None:
    """bytes.fromhex skips white space; an id does not."""
    ids = make_ids()
    text = ids.mint(NOW_MS).hex()
    for other in (text[:30] + "  ", " " + text[:30] + " ", text[:31] + "٣", text + "\n", text[:31], "", text + "0"):
        assert ids.parse(other) is None
        assert not is_well_formed(other)


@given(st.one_of(st.text(max_size=40), st.text(alphabet="0123456789abcdefABCDEF- \n7", min_size=30, max_size=37)))
def test_parsing_never_raises_and_believes_nothing(text: str) -> None:
    """Whatever the text, lone surrogates too, the answer is None."""
    assert make_ids().parse(text) is None


def test_the_first_secret_signs_and_all_verify() -> None:
    """A secret is rotated by adding the new one last everywhere, then moving it first."""
    old, both, new = make_ids("old"), make_ids("old,new"), make_ids("new")
    by_both, by_new = both.mint(NOW_MS).hex(), new.mint(NOW_MS).hex()
    assert old.parse(by_both)
    assert both.parse(by_new)
    assert new.parse(by_both) is None


@given(st.lists(st.integers(NOW_MS - 5000, NOW_MS + 5000), min_size=2, max_size=60), st.data())
def test_ids_grow_whatever_the_clock_does(clock: list[int], data: st.DataObject) -> None:
    """No clock, and no heartbeat between, makes an id repeat or sort before an earlier one."""
    ids = make_ids()
    minted: list[bytes] = []
    for now_ms in clock:
        if data.draw(st.booleans()):
            floor_ms = ids.floor(now_ms)
            assert all(ms_of(one) <= floor_ms for one in minted)
            assert ms_of(ids.mint(data.draw(st.sampled_from(clock)))) >= floor_ms
        minted.append(ids.mint(now_ms))
    assert minted == sorted(set(minted))


def test_the_millisecond_runs_ahead_when_4096_ids_are_used() -> None:
    """The 4,097th id of one millisecond belongs to the next one, and the clock catching up repeats nothing."""
    ids = make_ids()
    minted = [ids.mint(NOW_MS) for _ in range(4097)] + [ids.mint(NOW_MS + 1) for _ in range(4096)]
    assert [ms_of(minted[i]) - NOW_MS for i in (0, 4095, 4096, 8191, 8192)] == [0, 0, 1, 1, 2]
    assert len(set(minted)) == len(minted)


def test_the_first_id_is_above_what_an_earlier_process_may_have_used() -> None:
    """A lease that ends after the clock's now (a quick restart, a clock set back) is respected."""
    ids = make_ids(lease=RecordingLease(start_ms=NOW_MS + 700))
    assert ms_of(ids.mint(NOW_MS)) == NOW_MS + 701


def test_no_id_is_minted_beyond_the_lease() -> None:
    """The lease is extended before the first id of a millisecond that it does not cover, and only then."""
    lease = RecordingLease(through_ms=NOW_MS)
    ids = make_ids(lease=lease)
    ids.mint(NOW_MS)
    assert lease.covered == []
    ids.mint(NOW_MS + 1)
    assert lease.covered == [NOW_MS + 1]


def test_a_lease_that_cannot_be_extended_lets_no_id_out() -> None:
    """The failure reaches the caller each time; once the lease works again, ids are still unique."""
    lease = RecordingLease(through_ms=NOW_MS, limit_ms=NOW_MS)
    ids = make_ids(lease=lease)
    minted = [ids.mint(NOW_MS)]
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            ids.mint(NOW_MS + 1)
    lease.limit_ms = NOW_MS + 9
    minted += [ids.mint(NOW_MS + 1), ids.mint(NOW_MS)]
    assert len(set(minted)) == 3


def test_workers_and_nodes_never_share_an_id() -> None:
    """The same millisecond and sequence on other workers and nodes gives other ids."""
    places = [(node, worker) for node in (0, 1, 1023) for worker in (0, 1, 63)]
    assert len({make_ids(node=node, worker=worker).mint(NOW_MS) for node, worker in places}) == len(places)


@pytest.mark.parametrize(("secrets", "node", "worker"), [([], 0, 0), (["s"], 1024, 0), (["s"], 0, 64), (["s"], -1, 0)])
def test_settings_that_do_not_fit_an_id_are_refused(secrets: list[str], node: int, worker: int) -> None:
    """Too wide a node or worker would run into its neighbour's bits."""
    with pytest.raises(ValueError, match="node"):
        ClickIds(secrets, node, worker, RecordingLease())
