"""The sockets of a node: bound here, or handed over by the service manager, and held for as long as it lives."""

import socket
from typing import NamedTuple

from edge.errors import UserError
from edge.settings import Settings
from edge.systemd import HandedOver

BACKLOG = 4096


class Listening(NamedTuple):
    """Listening sockets: the public ones of each worker slot, and the admin process's."""

    public: list[list[socket.socket]]
    admin: socket.socket

    def close_public(self) -> None:
        """Close the supervisor's copies: who waits in a queue is lost once the workers' are closed too."""
        for sock in {id(sock): sock for sockets in self.public for sock in sockets}.values():
            sock.close()


def listen(settings: Settings, given: HandedOver) -> Listening:
    """What the service manager gave, else sockets of our own. UserError: a port cannot be had."""
    public = _share(given.public, settings.workers) if given.public else [[sock] for sock in _bind_public(settings)]
    admin = given.admin or _bind(settings.admin_host, settings.admin_port, "EDGE_ADMIN_PORT", shared=False)
    return Listening(public, admin)


def _share(sockets: list[socket.socket], workers: int) -> list[list[socket.socket]]:
    """Each worker gets a socket at least, each socket a worker: one socket is everybody's."""
    shares: list[list[socket.socket]] = [[] for _ in range(workers)]
    for number in range(max(len(sockets), workers)):
        shares[number % workers].append(sockets[number % len(sockets)])
    return shares


def _bind_public(settings: Settings) -> list[socket.socket]:
    """A socket per worker, all on the public port, held here so that no queued connection dies with a worker."""
    # Alone first: SO_REUSEPORT would join another program's port without a word.
    probe = _bind(settings.host, settings.port, "EDGE_PORT", shared=False)
    port = probe.getsockname()[1]
    probe.close()
    return [_bind(settings.host, port, "EDGE_PORT", shared=True) for _ in range(settings.workers)]


def _bind(host: str, port: int, setting: str, *, shared: bool) -> socket.socket:
    sock = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        if sock:
            sock.close()
        raise UserError(f"{setting}: cannot listen on {host}:{port}: {error.strerror}") from error
    sock.setblocking(False)
    return sock
