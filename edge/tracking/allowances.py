"""How much is stored of what nobody vouches for: so much a second, more in a burst; of everybody, or of each sender."""

from ipaddress import IPv4Address, ip_address

MAX_SENDERS = 4096


class Allowance:
    """`per_s` a second, at most `burst` at once. The clock is passed in."""

    __slots__ = ("_burst", "_counted_ms", "_left", "_per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left: float = burst
        self._counted_ms = 0

    def take(self, now_ms: int) -> bool:
        """Whether one more fits; if so it is counted."""
        elapsed_s = max(0, now_ms - self._counted_ms) / 1000
        self._left = min(self._burst, self._left + elapsed_s * self._per_s)
        self._counted_ms = now_ms
        if self._left < 1:
            return False
        self._left -= 1
        return True


class SenderAllowances:
    """The same for each sender's network (/24, /48). Of too many the one that came first is forgotten."""

    __slots__ = ("_burst", "_by_network", "_per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._by_network: dict[bytes, Allowance] = {}

    def take(self, ip: str, now_ms: int) -> bool:
        """Whether one more of that sender's fits; if so it is counted."""
        network = _network_of(ip)
        allowance = self._by_network.get(network)
        if allowance is None:
            if len(self._by_network) >= MAX_SENDERS:
                del self._by_network[next(iter(self._by_network))]
            allowance = self._by_network[network] = Allowance(self._per_s, self._burst)
        return allowance.take(now_ms)


def _network_of(ip: str) -> bytes:
    """What is no address is one sender."""
    try:
        address = ip_address(ip)
    except ValueError:
        return b""
    return address.packed[:3] if isinstance(address, IPv4Address) else address.packed[:6]
