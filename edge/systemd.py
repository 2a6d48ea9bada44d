"""The service manager's side: sockets that it hands over (sd_listen_fds), and what it wants to hear (sd_notify).

Both protocols are a few environment variables and a datagram; they are stable and open to other managers.
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import NamedTuple

from edge.errors import UserError

FIRST_FD = 3
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class HandedOver(NamedTuple):
    """Listening sockets that this process was started with."""

    public: list[socket.socket]
    admin: socket.socket | None


class Notifier:
    """Tells the service manager what state this process is in; nobody, where it does not listen."""

    def __init__(self, address: str) -> None:
        """`address`: NOTIFY_SOCKET's value, a path or an abstract name; empty: nobody listens."""
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def tell(self, *assignments: str) -> None:
        """Send lines such as READY=1. That it cannot be heard is no reason to stop serving."""
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock, suppress(OSError):
                sock.sendto("\n".join(assignments).encode(), self._address)


def take_notifier(environ: MutableMapping[str, str]) -> Notifier:
    """Who listens, by NOTIFY_SOCKET, which children do not inherit."""
    return Notifier(environ.pop("NOTIFY_SOCKET", ""))


def take_sockets(environ: MutableMapping[str, str]) -> HandedOver:
    """The sockets that LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES speak of. UserError: they cannot be used.

    A socket named `admin` is the admin port's, one named `public` or without a name the public port's.
    """
    count, pid, names = (environ.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"))
    if not count or pid != str(os.getpid()):  # another's, which we inherited
        return HandedOver([], None)
    if not count.isascii() or not count.isdigit():
        raise UserError(f"LISTEN_FDS: {count[:20]!r} is no number of sockets")
    fds = range(FIRST_FD, FIRST_FD + int(count))
    labels = names.split(":") if names else ["public"] * len(fds)
    if len(labels) != len(fds) or not set(labels) <= {"public", "admin"} or labels.count("admin") > 1:
        raise UserError(
            f"LISTEN_FDNAMES: {names[:200]!r} for {len(fds)} sockets; say FileDescriptorName=public in the unit of the"
            " public port's sockets, FileDescriptorName=admin in that of the admin port's one"
        )
    sockets = [_take(fd) for fd in fds]
    public = [sock for sock, label in zip(sockets, labels, strict=True) if label == "public"]
    return HandedOver(public, next((sock for sock, label in zip(sockets, labels, strict=True) if label == "admin"), None))


def _take(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise UserError(f"LISTEN_FDS: descriptor {fd} is no socket: {error.strerror}") from error
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM or not is_listening:
        raise UserError(f"LISTEN_FDS: descriptor {fd} is no listening TCP socket; the unit needs ListenStream=[ADDRESS:]PORT")
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock
