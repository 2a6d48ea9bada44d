"""Click ids: UUIDv7 values that sort by time, never repeat and cannot be forged.

    48 bits milliseconds | version 7 | 12 sequence | variant 10 | 6 worker | 10 node | 46 tag

The tag is a keyed BLAKE2b over the 82 bits before it. Written as 32 lower-case hex digits (`bytes.hex`).
"""

from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from typing import Protocol

TAG_BITS = 46
TAG_MASK = (1 << TAG_BITS) - 1
PREFIX_BYTES = 11
LAST_SEQUENCE = 4095
VERSION_AND_VARIANT = 7 << 76 | 2 << 62
VERSION_AND_VARIANT_MASK = 15 << 76 | 3 << 62


class Lease(Protocol):
    """The durable promise that no other process mints ids of these milliseconds."""

    @property
    def start_ms(self) -> int:
        """The last millisecond that an earlier process may have used."""

    @property
    def through_ms(self) -> int:
        """The last millisecond that this process may use."""

    def cover(self, ms: int) -> None:
        """Make `through_ms` at least `ms`, durably, before returning; raises if it cannot."""


class ClickIds:
    """Mints the ids of one worker and verifies those of all. Not thread-safe: one event loop owns it."""

    __slots__ = ("_hashers", "_lease", "_low_bits", "_ms", "_sequence", "_signer")

    def __init__(self, secrets: Sequence[str], node_id: int, worker_id: int, lease: Lease) -> None:
        """The first of `secrets` signs, all verify. ValueError: no secret, node beyond 1023, worker beyond 63."""
        if not (secrets and 0 <= node_id < 1024 and 0 <= worker_id < 64):
            raise ValueError(f"{len(secrets)} secrets, node {node_id}, worker {worker_id}")
        self._hashers = tuple(_keyed_hasher(secret) for secret in secrets)
        self._signer = self._hashers[0]
        self._low_bits = 7 << 30 | 2 << 16 | worker_id << 10 | node_id
        self._lease = lease
        self._ms = lease.start_ms
        self._sequence = LAST_SEQUENCE

    def mint(self, now_ms: int) -> bytes:
        """A new id, above all earlier ones whatever the clock does; 16 bytes. Raises what the lease raises."""
        if now_ms > self._ms:
            self._ms = now_ms
            self._sequence = 0
        elif self._sequence < LAST_SEQUENCE:
            self._sequence += 1
        else:
            self._ms += 1
            self._sequence = 0
        if self._ms > self._lease.through_ms:
            self._lease.cover(self._ms)
        return _sign(self._signer, self._ms << 34 | self._sequence << 18 | self._low_bits)

    def floor(self, now_ms: int) -> int:
        """A millisecond that no minted id is above and no later id is below."""
        if now_ms > self._ms:
            self._ms = now_ms
            self._sequence = -1
        return self._ms

    def parse(self, text: str) -> bytes | None:
        """The 16 bytes of an id that one of the secrets signed; None for any other text."""
        value = _well_formed_value(text)
        if value is None:
            return None
        click_id = value.to_bytes(16, "big")
        prefix = value >> TAG_BITS
        for hasher in self._hashers:
            if compare_digest(_sign(hasher, prefix), click_id):
                return click_id
        return None


def is_well_formed(text: str) -> bool:
    """Whether `text` is a UUIDv7 in a form that `parse` reads; its tag is not looked at."""
    return _well_formed_value(text) is not None


def read_well_formed(text: str) -> bytes | None:
    """The 16 bytes of a UUIDv7; None for any other text. Its tag is not looked at."""
    value = _well_formed_value(text)
    return None if value is None else value.to_bytes(16, "big")


def ms_of(click_id: bytes) -> int:
    """Unix milliseconds."""
    return int.from_bytes(click_id[:6], "big")


def worker_of(click_id: bytes) -> int:
    """The worker that minted it, 0-63."""
    return click_id[8] & 0x3F


def node_of(click_id: bytes) -> int:
    """The node that minted it, 0-1023."""
    return click_id[9] << 2 | click_id[10] >> 6


def _keyed_hasher(secret: str) -> blake2b:
    key = blake2b(secret.encode("utf-8", "surrogateescape"), digest_size=32, person=b"clickedge id").digest()
    return blake2b(key=key, digest_size=6)


def _sign(hasher: blake2b, prefix: int) -> bytes:
    """The id with this prefix (82 bits). Copying a keyed hasher saves hashing the key block: 0.5 against 0.65 us."""
    tag = hasher.copy()
    tag.update(prefix.to_bytes(PREFIX_BYTES, "big"))
    return (prefix << TAG_BITS | int.from_bytes(tag.digest(), "big") & TAG_MASK).to_bytes(16, "big")


def _well_formed_value(text: str) -> int | None:
    if len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-":
        text = text.replace("-", "")
    if len(text) != 32:
        return None
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return None
    # fromhex skips white space, so 32 characters may be fewer than 16 bytes; the version check refuses these too.
    value = int.from_bytes(raw, "big")
    return value if value & VERSION_AND_VARIANT_MASK == VERSION_AND_VARIANT else None
