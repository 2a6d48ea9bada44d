"""PROXY protocol, version 2: whose connection a balancer passes on (haproxy's proxy-protocol.txt, 2.2).

12 bytes signature | version 2 and command | family and protocol | u16 length | addresses, then what else there is
"""

import socket

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER_BYTES = 16
MAX_BYTES = HEADER_BYTES + 2048
_LOCAL, _PROXY = 0x20, 0x21
_TLS, _IS_TLS = 0x20, 0x01  # what the balancer says of its client's TLS, and the bit for that there was any
_ADDRESS_BYTES = {1: (socket.AF_INET, 4, 12), 2: (socket.AF_INET6, 16, 36)}


def read_proxy_header(data: bytes) -> tuple[str, int] | None:
    """The client's address ("" for the balancer's own connection) and the header's length; None: more is to come.

    ValueError: this is no such header.
    """
    if not SIGNATURE.startswith(data[:12]):
        raise ValueError("no PROXY protocol signature")
    if len(data) < HEADER_BYTES:
        return None
    end = HEADER_BYTES + int.from_bytes(data[14:16], "big")
    command, family = data[12], data[13] >> 4
    if command not in (_LOCAL, _PROXY) or end > MAX_BYTES:
        raise ValueError("no PROXY protocol version 2 header of a bearable size")
    if len(data) < end:
        return None
    if command == _LOCAL or family not in _ADDRESS_BYTES:
        return "", end
    kind, address_bytes, block_bytes = _ADDRESS_BYTES[family]
    if end - HEADER_BYTES < block_bytes:
        raise ValueError("a PROXY protocol header without room for its addresses")
    return socket.inet_ntop(kind, data[HEADER_BYTES : HEADER_BYTES + address_bytes]), end


def came_over_tls(header: bytes) -> bool:
    """Whether that header, which `read_proxy_header` took, says that the client spoke TLS to the balancer."""
    place = HEADER_BYTES + _ADDRESS_BYTES.get(header[13] >> 4, (0, 0, len(header)))[2]
    while place + 3 < len(header):
        if header[place] == _TLS:
            return bool(header[place + 3] & _IS_TLS)
        place += 3 + int.from_bytes(header[place + 1 : place + 3], "big")
    return False
