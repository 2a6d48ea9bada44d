"""Who clicks: known by the cookie's first click id, else by address and user agent, keyed so that nobody can work it back.

For uniqueness and for choices that stay the same at the next click; never for attribution.
"""

from hashlib import blake2b

VISITOR_BYTES = 16
SEED_BYTES = 4


class Visitors:
    """Names the visitors of one installation: all its processes have the same secret, and so the same names."""

    __slots__ = ("_hasher",)

    def __init__(self, secret: str) -> None:
        """`secret`: the one that signs."""
        key = blake2b(secret.encode(), digest_size=32, person=b"clickedge visit").digest()
        self._hasher = blake2b(digest_size=VISITOR_BYTES, key=key)

    def name(self, ip: str, user_agent: str) -> bytes:
        """Who has no cookie; 16 bytes."""
        hasher = self._hasher.copy()
        hasher.update(f"{ip}\0{user_agent}".encode())
        return hasher.digest()


def seed_of(visitor: bytes) -> bytes:
    """A visitor in 4 bytes, which decide what it is shown and say nothing about it."""
    return blake2b(visitor, digest_size=SEED_BYTES, person=b"clickedge seed").digest()


def place_in(whole: int, seed: bytes, purpose: str) -> int:
    """Where in 0 .. `whole` - 1 this seed falls: evenly over seeds, always the same, unrelated between purposes."""
    digest = blake2b(seed, digest_size=8, person=b"clickedge place", key=purpose.encode()[:64]).digest()
    return int.from_bytes(digest, "big") * whole >> 64
