"""The browser libraries that the console serves itself, taken from their npm packages: `make vendor`.

Versions and SHA-256 of the packages are pinned here; the files and their licences are part of the repository.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).parent / "static" / "vendor"


class Package(NamedTuple):
    """A package as npm names it; `files`: what is kept of it, by the name it has here."""

    name: str
    version: str
    sha256: str
    files: dict[str, str]


PACKAGES = (
    Package(
        "htmx.org",
        "2.0.11",
        "165a2655073e9e6e55e307a7c74e8ebcdb76afb7701f9c16cfd106a13add408e",
        {"htmx.min.js": "dist/htmx.min.js", "LICENSE.htmx": "LICENSE"},
    ),
    Package(
        "uplot",
        "1.6.32",
        "4b8a8191e425658e3ea8c8c1314b0fc679c861ee3a1af2b20c7b16ba50b5133d",
        {
            "uplot.min.js": "dist/uPlot.iife.min.js",
            "uplot.min.css": "dist/uPlot.min.css",
            "LICENSE.uplot": "LICENSE",
        },
    ),
)


def unpack(package: Package, archive: bytes) -> dict[str, bytes]:
    """The files that are kept, by their names here. ValueError if this is another archive than the pinned one."""
    found = hashlib.sha256(archive).hexdigest()
    if found != package.sha256:
        raise ValueError(f"{package.name} {package.version}: its SHA-256 is {found}, pinned is {package.sha256}")
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        with tarfile.open(fileobj=file) as members:
            return {name: _read(members, f"package/{path}") for name, path in package.files.items()}


def _read(members: tarfile.TarFile, path: str) -> bytes:
    member = members.extractfile(path)
    if member is None:
        raise ValueError(f"{path} is no file")
    return member.read()


def fetch(package: Package) -> bytes:
    """The package's archive, by the npm client."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            ["npm", "pack", "--silent", f"{package.name}@{package.version}"], cwd=directory, check=True, timeout=120
        )
        [archive] = Path(directory).glob("*.tgz")
        return archive.read_bytes()


def main() -> int:
    """Fetch all packages and write their files."""
    for package in PACKAGES:
        for name, data in unpack(package, fetch(package)).items():
            (VENDOR / name).write_bytes(data)
            print(f"{name} of {package.name} {package.version}")  # noqa: T201 - a script of the developers
    return 0


if __name__ == "__main__":
    sys.exit(main())
