"""edge/systemd.py: sockets that a service manager hands over, in processes of their own, and what it is told."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import UserError
from edge.listening import listen
from edge.settings import Settings
from edge.systemd import HandedOver, take_notifier, take_sockets

ROOT = Path(__file__).parent.parent.parent
TAKES = """
import json, os, sys
from edge.errors import UserError
from edge.systemd import take_sockets
for number, fd in enumerate(json.loads(sys.argv[1])):
    os.dup2(fd, 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
try:
    taken = take_sockets(os.environ)
except UserError as error:
    print(json.dumps({"fault": str(error)}))
else:
    print(json.dumps({
        "public": [sock.getsockname()[1] for sock in taken.public],
        "admin": taken.admin.getsockname()[1] if taken.admin else None,
        "inherited": [sock.get_inheritable() for sock in taken.public],
        "left": [name for name in os.environ if name.startswith("LISTEN_")],
    }))
"""


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Three that listen, one that does not, and one of another kind."""
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    made += [socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
    yield made
    for sock in made:
        sock.close()


def take(handed: list[socket.socket], names: str = "", count: str = "") -> dict[str, object]:
    """What a process finds that was started with these sockets."""
    fds = [sock.fileno() for sock in handed]
    environ = {**os.environ, "LISTEN_FDS": count or str(len(fds)), **({"LISTEN_FDNAMES": names} if names else {})}
    found = subprocess.run(
        [sys.executable, "-c", TAKES, json.dumps(fds)],
        env=environ, pass_fds=fds, cwd=ROOT, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    answer: dict[str, object] = json.loads(found.stdout)
    return answer


def test_named_sockets_are_the_public_and_the_admin_port_s(sockets: list[socket.socket]) -> None:
    """By FileDescriptorName; children inherit neither them nor what was said of them."""
    one, two, three = (sock.getsockname()[1] for sock in sockets[:3])
    expected = {"public": [one, three], "admin": two, "inherited": [False, False], "left": []}
    assert take(sockets[:3], "public:admin:public") == expected


def test_sockets_without_names_are_public(sockets: list[socket.socket]) -> None:
    """Older managers give none."""
    assert take(sockets[:2])["public"] == [sock.getsockname()[1] for sock in sockets[:2]]


@pytest.mark.parametrize(
    ("indexes", "names", "count", "fault"),
    [
        ([0], "clickedge.socket", "", "FileDescriptorName=public"),
        ([0, 1], "admin:admin", "", "LISTEN_FDNAMES"),
        ([0, 1], "public", "", "for 2 sockets"),
        ([3], "", "", "no listening TCP socket"),
        ([4], "", "", "no listening TCP socket"),
        ([0], "", "one", "no number of sockets"),
        ([], "", "1", "descriptor 3 is no"),
    ],
)
def test_sockets_that_cannot_be_used_are_refused(
    sockets: list[socket.socket], indexes: list[int], names: str, count: str, fault: str
) -> None:
    """One line says what is wrong in the unit; nothing is served on half of what was meant."""
    assert fault in str(take([sockets[index] for index in indexes], names, count)["fault"])


def test_sockets_of_another_process_are_left_alone() -> None:
    """LISTEN_PID is whose they are: a child of the service must not take them for its own."""
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "public"}
    assert take_sockets(environ) == HandedOver([], None)
    assert not environ


@pytest.mark.parametrize(("given", "workers"), [(1, 3), (3, 3), (3, 2)])
def test_each_worker_has_a_socket_and_each_socket_a_worker(
    sockets: list[socket.socket], given: int, workers: int
) -> None:
    """One socket is everybody's; of several, none is left without somebody who accepts."""
    settings = Settings(data_dir="/nowhere", workers=workers, admin_host="127.0.0.1", admin_port=0)
    listening = listen(settings, HandedOver(sockets[:given], None))
    listening.admin.close()
    assert len(listening.public) == workers
    assert all(listening.public)
    assert {sock for share in listening.public for sock in share} == set(sockets[:given])


def test_ports_of_our_own_that_are_taken_are_named(sockets: list[socket.socket]) -> None:
    """Without a manager the settings say where; a port of somebody else is no port to share."""
    with pytest.raises(UserError, match="EDGE_PORT: cannot listen"):
        listen(Settings(data_dir="/nowhere", host="127.0.0.1", port=sockets[0].getsockname()[1]), HandedOver([], None))


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_manager_hears_what_it_is_told(tmp_path: Path, *, is_abstract: bool) -> None:
    """A datagram to a path or an abstract name; its address is not left for children."""
    name = f"clickedge-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": f"@{name}" if is_abstract else name}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if is_abstract else name)
        take_notifier(environ).tell("RELOADING=1", "MONOTONIC_USEC=5")
        assert manager.recv(100) == b"RELOADING=1\nMONOTONIC_USEC=5"
    assert not environ


def test_a_manager_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    """Nor does one that was never there."""
    take_notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")
    take_notifier({}).tell("READY=1")
