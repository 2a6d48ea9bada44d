"""What is left of an erased value: a hash that tells it when it comes again, and until when it is not to be stored.

Contacts and addresses could be guessed, so their hashes are keyed with a secret of the installation. A click's id need not
be: 46 of its bits are a keyed tag themselves. An address is hashed as its network: IPv4 as `::ffff:0:0/96`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal, NamedTuple

from edge.errors import UserError
from edge.tracking.click_id import ms_of
from edge.tracking.parameters import clean
from storage.journal.events import Conversion, Session

Kind = Literal["contact", "click", "ip"]
HASH_BYTES = 16
MAX_VALUE_CHARS = 2048
_ALL_BITS = 128
_MAPPED = 0xFFFF << 32
_PERSON = {"contact": b"erased contact", "ip": b"erased address", "key": b"erased key"}


class Tombstone(NamedTuple):
    """`until_ms`: what happened by then, in Unix milliseconds, is erased. `prefix`: bits of an address's network."""

    kind: Kind
    value_hash: bytes
    prefix: int
    until_ms: int


class Target(NamedTuple):
    """Whom to erase: a contact's id, a click's 16 bytes, or a network of addresses."""

    kind: Kind
    value: str | bytes | IPv4Network | IPv6Network


def contact_target(text: str) -> Target:
    """A contact; UserError if no request can have named it."""
    if not text or len(text) > MAX_VALUE_CHARS or clean(text) != text:
        raise UserError(f"{text[:64]!a} is no contact id: 1 to {MAX_VALUE_CHARS} characters without control characters")
    return Target("contact", text)


def address_target(text: str) -> Target:
    """An address or network; UserError if it is none."""
    try:
        return Target("ip", ip_network(text.strip()))
    except ValueError as error:
        raise UserError(f"{text[:64]!a} is no address and no network: {str(error)[:120]}") from None


def hash_target(target: Target, secret: str) -> tuple[bytes, int]:
    """The hash and prefix by which a target is remembered."""
    value = target.value
    if isinstance(value, bytes):
        return click_hash(value), 0
    if isinstance(value, str):
        return _keyed(secret, "contact", value.encode("utf-8", "surrogatepass")), 0
    prefix = value.prefixlen + (96 if value.version == 4 else 0)
    return _network_hash(secret, _number(int(value.network_address), value.version), prefix), prefix


def click_hash(click_id: bytes) -> bytes:
    """The hash of a click's id."""
    return blake2b(click_id, digest_size=HASH_BYTES, person=b"erased click").digest()


def masked_key(secret: str, key: str) -> str:
    """What stands for a uniqueness key that holds an order's id, once that is erased."""
    return f"x:{_keyed(secret, 'key', key.encode('utf-8', 'surrogatepass')).hex()}"


def is_telling(key: str) -> bool:
    """Whether a uniqueness key holds what the advertiser sent: an order's or an event's id."""
    return key.startswith(("u:", "e:", "p:"))


class Tombstones:
    """Erased contacts and addresses."""

    def __init__(self, secrets: Sequence[str] = (), rows: Iterable[Tombstone] = ()) -> None:
        """`secrets`: any of them may have been the key."""
        self._secrets = secrets
        self._contacts: dict[bytes, int] = {}
        self._networks: dict[int, dict[bytes, int]] = {}
        for row in rows:
            known = self._contacts if row.kind == "contact" else self._networks.setdefault(row.prefix, {})
            known[row.value_hash] = max(row.until_ms, known.get(row.value_hash, 0))

    def contact_until_ms(self, contact_id: str) -> int:
        """Until when this contact is erased; 0: it is not."""
        if not contact_id or not self._contacts:
            return 0
        value = contact_id.encode("utf-8", "surrogatepass")
        return max(self._contacts.get(_keyed(secret, "contact", value), 0) for secret in self._secrets)

    def address_until_ms(self, text: str) -> int:
        """Until when this address is erased; 0: it is not, or is no address."""
        if not text or not self._networks:
            return 0
        try:
            address = ip_address(text)
        except ValueError:
            return 0
        number = _number(int(address), address.version)
        return max(
            known.get(_network_hash(secret, number, prefix), 0)
            for prefix, known in self._networks.items()
            for secret in self._secrets
        )

    def touch_until_ms(self, session: Session) -> int:
        """Until when whoever made this click or impression is erased, if that is after it; else 0."""
        until_ms = max(self.contact_until_ms(session.contact_id), self.address_until_ms(session.ip))
        return until_ms if ms_of(session.click_id) <= until_ms else 0

    def conversion_until_ms(self, event: Conversion) -> int:
        """The same of what a conversion says itself, its click aside."""
        addresses = (event.ip, event.params.get("ip", ""))
        until_ms = max(self.contact_until_ms(event.params.get("contact_id", "")), *map(self.address_until_ms, addresses))
        return until_ms if event.received_ms <= until_ms else 0


_VALUED = ("offer_id", "aff_id", "goal_id", "goal_name", "amount", "currency", "payout", "revenue", "status", "datetime")
_KEPT_PARAMS = frozenset((*_VALUED, "format", "a", "security_token", "signature", "timestamp"))


def nameless_event(event: Conversion, *, keeps_sender: bool) -> Conversion:
    """The conversion without what can name a person: what is left still decides what it is worth, and whose it is.

    `keeps_sender`: the address of a server, which an advertiser may have allowed, stays.
    """
    params: Mapping[str, str] = event.params
    sender = event.ip if event.via == "postback" and keeps_sender else ""
    return Conversion(
        event.conversion_id,
        event.revision,
        event.received_ms,
        event.via,
        "" if event.is_external or not event.click_id else event.transaction_id,
        event.click_id,
        b"",
        event.offer_id,
        event.goal_id,
        {name: value for name, value in params.items() if name in _KEPT_PARAMS},
        sender,
        "",
        "",
    )


@lru_cache(64)
def _key(secret: str) -> bytes:
    return blake2b(secret.encode(), digest_size=32, person=b"clickedge erase").digest()


def _keyed(secret: str, what: str, value: bytes) -> bytes:
    return blake2b(value, key=_key(secret), digest_size=HASH_BYTES, person=_PERSON[what]).digest()


def _number(address: int, version: int) -> int:
    return address | _MAPPED if version == 4 else address


def _network_hash(secret: str, number: int, prefix: int) -> bytes:
    free = _ALL_BITS - prefix
    return _keyed(secret, "ip", bytes([prefix]) + (number >> free << free).to_bytes(16, "big"))
