"""One kept connection that never repeats a request by itself: a row that is there twice is then the server's doing.

(Locust's FastHttpUser sends a GET again when its connection turns out to be closed.) Sockets are gevent's in Locust.
"""

import socket
from contextlib import suppress

from benchmarks.mixed_traffic import Reply

TIMEOUT_S = 30.0
_HEAD_END = b"\r\n\r\n"


class Unanswered(OSError):
    """The connection broke or timed out before the answer was whole."""


class Client:
    """Requests one after the other over a connection to `address`; opened when needed, given up after a failure."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._received = b""

    def ask(self, method: str, target: str, headers: dict[str, str], body: str = "") -> Reply:
        """The answer; Unanswered when there is none."""
        lines = [f"{method} {target} HTTP/1.1", "Host: edge.test", *(f"{name}: {one}" for name, one in headers.items())]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.exchange(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), has_body=method != "HEAD")

    def exchange(self, request: bytes, *, has_body: bool = True) -> Reply:
        """The answer to these bytes, whatever they are."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, TIMEOUT_S)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(request)
            return self._read(self._socket, has_body)
        except OSError as error:
            self.close()
            raise Unanswered(str(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        self._socket, self._received = None, b""

    def _read(self, sock: socket.socket, has_body: bool) -> Reply:
        while _HEAD_END not in self._received:
            self._receive(sock)
        head, _, self._received = self._received.partition(_HEAD_END)
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("Content-Length", "0")) if has_body else 0
        while len(self._received) < length:
            self._receive(sock)
        body, self._received = self._received[:length], self._received[length:]
        if headers.get("Connection") == "close":
            self.close()
        return Reply(int(status_line.split(" ")[1]), headers, body)

    def _receive(self, sock: socket.socket) -> None:
        more = sock.recv(65536)
        if not more:
            raise ConnectionResetError("closed before the answer was whole")
        self._received += more
