"""The arrows of the architecture and the size of the rooms, read from the source; nothing is imported.

cli -> supervisor -> worker | drain | sender | shipper | admin -> http -> tracking -> storage
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400

ROOMS = ("cli", "supervisor", "worker", "drain", "sender", "shipper", "admin", "http", "tracking")
BELOW = {
    "cli": set(ROOMS),
    "supervisor": {"supervisor", "worker", "drain", "sender", "shipper", "admin", "http", "tracking"},
    "worker": {"worker", "http", "tracking"},
    "drain": {"drain", "tracking"},
    "sender": {"sender", "tracking"},
    "shipper": {"shipper"},
    "admin": {"admin", "drain", "sender", "http", "tracking"},  # the one function that changes a conversion is the drain's
    "http": {"http", "tracking"},
    "tracking": {"tracking"},
    "common": {"tracking"},
}
"""Which rooms of `edge` each may import; `common` is what stands in `edge` itself and is no room."""

TRACKING_PACKAGES = {"msgspec", "orjson"}
TRACKING_EDGE = {"edge.errors", "edge.counters"}
TRACKING_STORAGE = {"storage.journal.events", "storage.errors"}
OUTSIDE_WORLD = {
    "asyncio", "fcntl", "glob", "http", "io", "mmap", "multiprocessing", "os", "pathlib", "select", "selectors", "shutil",
    "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip
"""What decides nothing but reaches out: files, sockets, processes, clocks. (Chance may stay: a macro asks for it.)"""


class Import(NamedTuple):
    """One import: where, and which module by its full name."""

    path: Path
    line: int
    module: str

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(package: str) -> Iterator[Import]:
    for path in sources(package):
        for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
            if isinstance(node, ast.Import):
                yield from (Import(path, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (Import(path, node.lineno, name) for name in imported_modules(path, node))


def imported_modules(path: Path, node: ast.ImportFrom) -> Iterator[str]:
    """`from a import b` names a.b where that is a module of ours, else a; relative imports are made absolute."""
    parents = path.relative_to(ROOT).with_suffix("").parts[: -node.level] if node.level else ()
    module = ".".join((*parents, *([node.module] if node.module else [])))
    for alias in node.names:
        inner = ROOT.joinpath(*module.split("."), alias.name)
        yield f"{module}.{alias.name}" if inner.is_dir() or inner.with_suffix(".py").is_file() else module


def top(module: str) -> str:
    return module.partition(".")[0]


def room_of(module: str) -> str:
    """The room of a module of `edge`: worker.py and worker_*.py are the worker's."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else ""
    return next((room for room in ROOMS if name == room or name.startswith(f"{room}_")), "common")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_storage_knows_nothing_of_the_edge() -> None:
    """Storage can be read, tested and replaced without the edge, and speaks no HTTP."""
    assert [found.place for found in imports("storage") if top(found.module) in {"edge", "aiohttp"}] == []


def test_only_storage_postgres_speaks_to_postgres() -> None:
    """One folder knows asyncpg; the rest asks it."""
    inside = ROOT / "storage" / "postgres"
    found = [*imports("edge"), *(one for one in imports("storage") if inside not in one.path.parents)]
    assert [one.place for one in found if top(one.module) == "asyncpg"] == []


def test_only_storage_stream_speaks_to_the_stream() -> None:
    """One folder knows nats-py; the rest asks it."""
    inside = ROOT / "storage" / "stream"
    found = [*imports("edge"), *(one for one in imports("storage") if inside not in one.path.parents)]
    assert [one.place for one in found if top(one.module) == "nats"] == []


def test_without_a_stream_nobody_pays_for_its_library() -> None:
    """Workers, drains, senders, admin processes and the supervisor start without nats-py; so do all commands."""
    names = ["edge.worker", "edge.drain.process", "edge.sender.process", "edge.admin.process", "edge.supervisor"]
    names += [f"edge.cli.{path.stem}" for path in (ROOT / "edge" / "cli").glob("[!_]*.py")]
    code = f"import sys\nfor name in {names}:\n    __import__(name)\nsys.exit('nats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_arrows_between_the_rooms_of_the_edge_point_down() -> None:
    """cli -> supervisor -> worker | drain | admin -> http -> tracking; what is common imports no process."""
    wrong = [
        found.place
        for found in imports("edge")
        if top(found.module) == "edge"
        and (room := room_of(found.module)) != "common"
        and room not in BELOW[room_of(module_of(found.path))]
        and found.path.name != "__main__.py"
    ]
    assert wrong == []


def test_tracking_decides_and_does_no_input_or_output() -> None:
    """Its results depend on its arguments alone: no file, socket or clock, and only pure packages."""
    inside = ROOT / "edge" / "tracking"
    found = [one for one in imports("edge") if inside in one.path.parents]
    assert [one.place for one in found if not is_pure(one.module)] == []


def is_pure(module: str) -> bool:
    if top(module) == "edge":
        return room_of(module) == "tracking" or module in TRACKING_EDGE
    if top(module) == "storage":
        return module in TRACKING_STORAGE
    if top(module) in TRACKING_PACKAGES:
        return True
    return top(module) in sys.stdlib_module_names and module not in OUTSIDE_WORLD and top(module) not in OUTSIDE_WORLD


def test_only_commands_pass_the_environment_to_the_settings() -> None:
    """Whatever changes the product's behaviour stands in the table of settings."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("edge")
        if ROOT / "edge" / "cli" not in path.parents
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["edge", "storage"])
def test_functions_and_files_stay_readable(package: str) -> None:
    """No function is longer than a screen, no file longer than a sitting."""
    wrong = []
    for path in sources(package):
        text = path.read_text("utf-8")
        if (lines := text.count("\n")) > MAX_FILE_LINES:
            wrong.append(f"{path.relative_to(ROOT)} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines")
    assert wrong == []
