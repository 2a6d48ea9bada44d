"""A node started as systemd does it: on listening sockets that the test holds, telling the test of its state."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.node import COMMAND, Node, eventually

_EXEC = """
import os, sys
count = int(sys.argv[1])
for number, fd in enumerate(map(int, sys.argv[2:2 + count])):
    os.dup2(fd, 3 + number)
os.environ.update(LISTEN_FDS=str(count), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""
HEARD_S = 60.0


class ManagedNode(Node):
    """One service: its sockets outlive each `serve`."""

    def __init__(self, data_dir: Path, *, catalog: Path, env: dict[str, str]) -> None:
        super().__init__(data_dir, catalog=catalog, env=env)
        self._listening = [socket.create_server(("127.0.0.1", one), backlog=4096) for one in (self.port, self.admin_port)]
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._address = str(data_dir.with_name(data_dir.name + ".notify"))
        self._manager.bind(self._address)
        self.heard: list[str] = []

    def launch(self, *flags: str) -> None:
        """Start another `serve` on the same sockets. Its own ports would be others."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
        numbers = [str(sock.fileno()) for sock in self._listening]
        applying = ["--apply", str(self._catalog)]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _EXEC, str(len(numbers)), *numbers, str(COMMAND), "serve", "--host", "192.0.2.1",
                 "--admin-host", "192.0.2.1", "--data-dir", str(self.data_dir), *applying, *flags],
                env={**environ, **self._env, "LISTEN_FDNAMES": "public:admin", "NOTIFY_SOCKET": self._address},
                pass_fds=[sock.fileno() for sock in self._listening], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    async def wait_heard(self, word: str) -> str:
        """Until the service says something with that word in it, from now on; what it said."""

        async def is_heard() -> bool:
            try:
                self.heard.append(self._manager.recv(4096).decode())
            except BlockingIOError:
                return False
            return word in self.heard[-1]

        await eventually(is_heard, HEARD_S, lambda: f"{self.heard}\n{self.describe()}")
        return self.heard[-1]

    def release(self) -> None:
        """Close the sockets."""
        for sock in [*self._listening, self._manager]:
            sock.close()


async def restart(node: ManagedNode) -> None:
    """As `systemctl restart`: the old one is told and awaited, then another is started, and is ready."""
    assert await node.stop() == 0
    node.launch()
    await node.wait_heard("READY=1")
