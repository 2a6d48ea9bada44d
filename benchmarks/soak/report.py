"""The report: figures as JSON, a page with tables, a picture of the whole soak."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.soak.run import Soak


def write_report(figures: Mapping[str, Any], found: Soak, directory: Path, *, is_published: bool) -> None:
    """Into `directory`, made if missing; published, into the documentation as well."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "soak.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in figures.items() if k not in ("memory","faults_struck","packages")}, indent=1))
    for one in figures["faults_struck"]: print(one)
    for one in figures["memory"]: print(one)
