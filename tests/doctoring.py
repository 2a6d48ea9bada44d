"""What the tests of `doctor` share: settings that name an installation, and what a check says of it."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge.doctor.findings import Finding
from edge.doctor.installation import Installation, look_at
from edge.settings import Settings


def make_installation(data_dir: Path, *, config_file: Path | None = None, **settings: Any) -> Installation:
    """An installation as its files are now."""
    return look_at(Settings(data_dir=str(data_dir), **settings), config_file)


def said_by(check: Callable[[Installation], Iterator[Finding]], found: Installation) -> list[str]:
    """Each finding as `state: what was found`."""
    return [f"{one.state}: {one.found}" for one in check(found)]


def make_certificate(directory: Path, *, days: int, name: str = "edge.test") -> tuple[str, str]:
    """A self-signed certificate and its key; with fewer than 0 days it has expired."""
    key, request, certificate, names = (str(directory / one) for one in ("key.pem", "request.pem", "cert.pem", "names"))
    Path(names).write_text(f"subjectAltName=DNS:{name}\n")
    new = [
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        key,
        "-out",
        request,
        "-subj",
        f"/CN={name}",
    ]
    sign = ["x509", "-req", "-in", request, "-signkey", key, "-days", str(days), "-extfile", names, "-out", certificate]
    for arguments in (new, sign):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    Path(key).chmod(0o600)
    return certificate, key
