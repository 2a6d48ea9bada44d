"""The examples of the vendors' own pages, one file per vendor in `dialects/`, and the catalog that they need.

In them `{click}` stands for the id of a click made beforehand, `{id}` for that of the click the request makes.
"""

import tomllib
from pathlib import Path

import msgspec

from tests.wire.edge_state import CATALOG

DIRECTORY = Path(__file__).parent / "dialects"


class Example(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request and what it comes to. `event`: click, impression, postback, pixel, or "" for none."""

    name: str
    target: str
    vendor: str = ""
    method: str = "GET"
    type: str = ""
    headers: tuple[str, ...] = ()
    body: str = ""
    event: str = "postback"
    status: int = 200
    reply: str | None = None
    location: str = ""
    goal_id: int = 0
    params: dict[str, str] = {}
    absent: tuple[str, ...] = ()
    alias: str | None = None
    by_contact: bool = False

    @property
    def key(self) -> str:
        """What docs/dialects.md calls it."""
        return f"{self.vendor} {self.name}".replace(" ", "-")


def _read(path: Path) -> list[Example]:
    examples = tomllib.loads(path.read_text("utf-8"))["examples"]
    return [msgspec.convert({**one, "vendor": path.stem}, Example) for one in examples]


EXAMPLES = [example for path in sorted(DIRECTORY.glob("*.toml")) for example in _read(path)]


def _alias(path: str, kind: str, params: str) -> str:
    return f'\n[[aliases]]\npath = "{path}"\nkind = "{kind}"\nparams = {{ {params} }}\n'


_LINKS = ("5f0c2a4e-7d3b-4c1a-9e8f-001122334455", "60d1f0c2a4e7d30001a2b3c4", "kClick", "k9ab", "9001", "john")
MOVED = (
    CATALOG.replace('{ id = 2, name = "sale, first" }', '{ id = 2, name = "sale, first" }, { id = 3, name = "event1" }')
    + "".join(_alias(path, "click", "offer_id = 17, aff_id = 2") for path in _LINKS)
    + "".join(_alias(path, "click", "offer_id = 17") for path in ("2CTPL", "555", "1000", "11110001"))
    + "".join(_alias(path, "pixel", "offer_id = 17") for path in ("default1", "55a22310"))
    + "".join(_alias(path, "postback", "aff_id = 2") for path in ("28KL6", "testaff"))
)
"""`CATALOG` with the vendors' campaigns, links and partners as aliases."""

FEATURES = ("click", "direct click", "impression", "postback", "pixel", "goal", "status", "postback refused")


def features_as_markdown() -> str:
    """Who speaks what: each cell is the example that shows it, run by test_vendor_requests.py."""
    known = {example.key for example in EXAMPLES}
    lines = [f"| vendor | {' | '.join(FEATURES)} |", "|---" * (len(FEATURES) + 1) + "|"]
    for vendor in sorted({example.vendor for example in EXAMPLES}):
        keys = [f"{vendor} {name}".replace(" ", "-") for name in FEATURES]
        cells = [f"`{key}`" if key in known else "" for key in keys]
        lines.append(f"| {vendor} | {' | '.join(cells)} |")
    return "\n".join(lines)
