"""Who runs the embedded server: ourselves or, since PostgreSQL refuses root, a system user of its own."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import DatabaseUnusable

NAME = "clickedge"
SUGGESTED_DATA_DIR = "/var/lib/clickedge"


@dataclass(frozen=True)
class ServerUser:
    """`is_other`: not the user that we are, so files must be handed over and programs started as that user."""

    uid: int
    gid: int
    is_other: bool

    def popen_arguments(self) -> dict[str, Any]:
        """What `subprocess` needs to start a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_other else {}

    def own(self, path: Path, mode: int) -> None:
        """Hand over something that we have just made."""
        path.chmod(mode)
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        """Whether this user may enter the directory, or run the program, `path` (ACLs and all: the kernel is asked)."""
        return self.run(["test", "-x", str(path)]).returncode == 0

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run to the end as this user, in a bare environment; both outputs captured together."""
        return subprocess.run(
            command, cwd="/", env=bare_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", check=False, start_new_session=True,
            **self.popen_arguments(),
        )  # fmt: skip


def bare_environment() -> dict[str, str]:
    """Without the PG* variables, locale and secrets of ours, which the server has no business with."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def choose_server_user() -> ServerUser:
    """Ourselves; as root the system user `clickedge`, made if missing."""
    if os.geteuid() != 0:
        return ServerUser(os.geteuid(), os.getegid(), is_other=False)
    try:
        found = pwd.getpwnam(NAME)
    except KeyError:
        found = _add_user()
    return ServerUser(found.pw_uid, found.pw_gid, is_other=True)


def _add_user() -> pwd.struct_passwd:
    program = shutil.which("useradd", path=os.defpath + ":/usr/sbin:/sbin")
    if program is None:
        raise DatabaseUnusable(
            f"PostgreSQL does not run as root, and there is no useradd to make the system user `{NAME}`:"
            " make that user, or run clickedge as an ordinary user, or set EDGE_DATABASE_URL"
        )
    done = subprocess.run(
        [program, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
         "--shell", "/usr/sbin/nologin", NAME],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        raise DatabaseUnusable(
            f"cannot make the system user `{NAME}` that PostgreSQL runs as: {done.stderr.strip()}"
        ) from None


def make_data_dir(data_dir: Path) -> None:
    """Make what is missing of `data_dir`: as root open for passing through (0711), else private; touch no other mode."""
    is_root = os.geteuid() == 0
    missing = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(0o711 if is_root else 0o700)


def require_reachable(directory: Path, user: ServerUser) -> None:
    """DatabaseUnusable naming the first directory on the way that the server's user may not enter."""
    if not user.is_other or user.can_reach(directory):
        return
    for parent in (*reversed(directory.parents), directory):
        if not user.can_reach(parent):
            raise DatabaseUnusable(
                f"the user `{NAME}`, which PostgreSQL runs as, may not enter {parent} on the way to {directory}:"
                f" choose another data dir, such as {SUGGESTED_DATA_DIR}"
            )
