"""How many connections a worker's public port holds: so many in all, and so many of one client.

All, so that the process keeps descriptors for its journal. One client's, so that who holds connections without asking
for anything takes none from the others. A client is an IPv4 address or an IPv6 /64; proxies that are trusted, which
speak for many, have no limit of their own.
"""

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address


class Places:
    """What all connections of one worker share. Memory: an entry for each client that is connected."""

    def __init__(
        self, most: int, most_of_client: int = 0, trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    ) -> None:
        """`most_of_client` 0: three quarters of all, so that one client never has the port for itself."""
        self._most = most
        self._most_of_client = most_of_client or max(1, most * 3 // 4)
        self._trusted = trusted
        self._taken = 0
        self._by_client: dict[str | bytes, int] = {}

    def __len__(self) -> int:
        return self._taken

    def enter(self) -> bool:
        """One more connection; whether there was room for it."""
        self._taken += 1
        return self._taken <= self._most

    def give(self, client: str | bytes) -> bool:
        """One more connection of that client; whether it may have so many."""
        count = self._by_client[client] = self._by_client.get(client, 0) + 1
        return count <= self._most_of_client

    def leave(self, client: str | bytes) -> None:
        """A connection has ended; "": it never got so far as to have a client."""
        self._taken -= 1
        if client:
            count = self._by_client[client] = self._by_client[client] - 1
            if not count:
                del self._by_client[client]

    def client_of(self, address: str) -> str | bytes:
        """Whose connection it is; "" for a trusted proxy's, and for what is no address: these are not counted."""
        if not self._trusted and ":" not in address:
            return address
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return ""
        if isinstance(ip, IPv6Address):
            ip = ip.ipv4_mapped or ip
        if any(ip in network for network in self._trusted):
            return ""
        return ip.packed[:8] if isinstance(ip, IPv6Address) else str(ip)


class Place:
    """One connection's. To be left once, when the connection is lost."""

    __slots__ = ("_client", "_places", "is_granted")

    def __init__(self, places: Places) -> None:
        self._places = places
        self._client: str | bytes = ""
        self.is_granted = places.enter()
        """Whether the connection may stay."""

    def name(self, address: str) -> bool:
        """Say whose it is, once that is known; whether it may stay."""
        self._client = self._places.client_of(address)
        if self._client and not self._places.give(self._client):
            self.is_granted = False
        return self.is_granted

    def leave(self) -> None:
        """The connection is gone."""
        self._places.leave(self._client)
