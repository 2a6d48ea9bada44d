"""What is looked at: the settings, and the `serve` that runs on their data dir, if one does."""

import os
from pathlib import Path
from typing import NamedTuple

import psutil

from edge.settings import Settings

SERVE_LOCK = "serve.lock"


class Installation(NamedTuple):
    """`serve_pid` 0: it runs, and its number cannot be told from here; None: none runs."""

    settings: Settings
    config_file: Path | None
    serve_pid: int | None

    @property
    def is_running(self) -> bool:
        return self.serve_pid is not None

    @property
    def data_dir(self) -> Path:
        return self.settings.data_path

    def existing_dir(self) -> Path:
        """The data dir, or what exists of the way to it: a directory, unless something else or no right is in the way."""
        for path in (self.data_dir, *self.data_dir.parents):
            try:
                path.stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError:
                pass
            return path
        return Path("/")

    def family(self) -> set[int]:
        """The running serve and all of its processes."""
        if not self.serve_pid:
            return set()
        try:
            serve = psutil.Process(self.serve_pid)
            return {serve.pid, *(child.pid for child in serve.children(recursive=True))}
        except psutil.Error:
            return {self.serve_pid}


def find_holder(lock_file: Path) -> int | None:
    """The process that holds this file's lock; 0 where it cannot be told, None where nobody does.

    The kernel's list is read rather than the lock tried: to hold it for an instant could stop a `serve` that starts.
    """
    try:
        status = lock_file.stat()
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if "->" not in words and words[1] == "FLOCK" and _is_of(words[5], status):
            return max(0, int(words[4]))
    return None


def _is_of(place: str, status: os.stat_result) -> bool:
    """Whether `major:minor:inode` is that file; filesystems without a device of their own may name another one there."""
    major, minor, inode = place.split(":")
    is_same_device = os.makedev(int(major, 16), int(minor, 16)) == status.st_dev
    return int(inode) == status.st_ino and (is_same_device or os.major(status.st_dev) == 0)


def look_at(settings: Settings, config_file: Path | None) -> Installation:
    """What the settings name, as it is now."""
    return Installation(settings, config_file, find_holder(settings.data_path / SERVE_LOCK))


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))
