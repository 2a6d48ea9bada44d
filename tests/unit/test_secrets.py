"""edge/secrets.py: made once, private, whole."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.errors import UserError
from edge.secrets import load_or_create, load_or_create_uuid


def test_a_secret_is_made_once_and_then_read(tmp_path: Path) -> None:
    """The same value at every start; another one in another data dir; nothing else is left beside it."""
    first = load_or_create(tmp_path / "secret", 32)
    assert len(first) == 64
    assert load_or_create(tmp_path / "secret", 32) == first
    assert load_or_create(tmp_path / "admin.token", 32) != first
    assert sorted(os.listdir(tmp_path)) == ["admin.token", "secret"]


def test_only_its_owner_may_read_a_secret(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask says."""
    before = os.umask(0)
    try:
        load_or_create(tmp_path / "secret", 32)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The line says what to run, and does not show the secret."""
    path = tmp_path / "secret"
    secret = load_or_create(path, 32)
    path.chmod(mode)
    with pytest.raises(UserError, match=f"chmod 600 {path}") as caught:
        load_or_create(path, 32)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"two words of a long secret", b"\xff" * 32, b"\0" * 32])
def test_a_file_without_a_secret_in_it_is_refused(tmp_path: Path, content: bytes) -> None:
    """An emptied file is never taken for a secret, nor replaced: the ids out there were signed with the lost one."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match="restore it, or remove the file"):
        load_or_create(path, 32)
    assert path.read_bytes() == content


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    """Whoever is first makes it; everybody has the same."""
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: load_or_create(tmp_path / "secret", 32), range(64)))
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == ["secret"]


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_directory_that_cannot_be_used_is_one_line(tmp_path: Path, parent: str) -> None:
    """The user reads which path, why, and what to set."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="EDGE_DATA_DIR") as caught:
        load_or_create(tmp_path / parent / "secret", 32)
    assert "\n" not in str(caught.value)


def test_a_data_dirs_uuid_is_made_once(tmp_path: Path) -> None:
    """The name that the node lease knows this data dir by."""
    path = tmp_path / "node.id"
    assert load_or_create_uuid(path) == load_or_create_uuid(path)
    path.write_text("no uuid")
    with pytest.raises(UserError, match="holds no UUID"):
        load_or_create_uuid(path)
