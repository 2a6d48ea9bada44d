"""Whether bytes that nobody can take apart, a damaged record or a kept answer, name somebody who is erased."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from urllib.parse import parse_qsl, quote
from uuid import UUID

import msgspec

from edge.tracking.tombstones import Target

_ADDRESS = re.compile(rb"(?<![0-9A-Za-z.:])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,44})")
_HEX_ID = re.compile(rb"[0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}")
_PACKED_ID = re.compile(rb"\xc4\x10(.{16})", re.DOTALL)
_WORD = b"[0-9A-Za-z_]"


class Naming:
    """Contacts as whole words, addresses within the networks, and the ids of clicks, as text or packed."""

    def __init__(self, targets: Iterable[Target], is_erased: Callable[[bytes], bool]) -> None:
        """`is_erased`: whether the click of that id is."""
        targets = list(targets)
        self._contacts = [target.value for target in targets if isinstance(target.value, str)]
        forms = sorted({form for one in self._contacts for form in _forms(one)})
        self._contact = re.compile(b"|".join(forms)) if forms else None
        self._networks = [one.value for one in targets if not isinstance(one.value, str | bytes)]
        self._is_erased = is_erased

    def names(self, data: bytes) -> bool:
        """Whether `data` holds one of them."""
        if self._contact is not None and self._contact.search(data):
            return True
        return self._holds_address(data) or any(map(self._is_erased, _ids_in(data)))

    def is_asked_for(self, query: str) -> bool:
        """Whether a report's query, or its name, asks for one of them."""
        said = {query, *(value for _, value in parse_qsl(query))}
        return not said.isdisjoint(self._contacts) or any(self.names(one.encode()) for one in said)

    def _holds_address(self, data: bytes) -> bool:
        if not self._networks:
            return False
        for found in _ADDRESS.finditer(data):
            try:
                address = ip_address(found[0].decode())
            except ValueError:
                continue
            if any(address in network for network in self._networks):
                return True
        return False


def _forms(contact_id: str) -> Iterator[bytes]:
    """As the journal packs it, with its length; as a word of a text, of JSON and of an address."""
    yield re.escape(msgspec.msgpack.encode(contact_id))
    for text in {contact_id, json.dumps(contact_id)[1:-1], quote(contact_id, safe="")}:
        yield b"(?<!" + _WORD + b")" + re.escape(text.encode("utf-8", "surrogatepass")) + b"(?!" + _WORD + b")"


def _ids_in(data: bytes) -> Iterator[bytes]:
    for found in _HEX_ID.finditer(data):
        yield UUID(found[0].decode()).bytes
    for packed in _PACKED_ID.finditer(data):
        yield packed[1]
