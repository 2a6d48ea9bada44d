"""The API's docs as one page of HTML without script, made from the OpenAPI page."""

import re
from importlib import resources
from typing import Any

import jinja2
import markupsafe
import msgspec

_METHODS = ("get", "post", "put", "patch", "delete")


def render_docs(page: dict[str, Any]) -> bytes:
    """The page, for a browser."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["json"] = _write
    environment.filters["schema"] = _link
    template = environment.from_string(resources.files(__package__).joinpath("docs.html").read_text("utf-8"))
    return template.render(page=page, groups=_groups(page)).encode()


def _groups(page: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The operations by tag, each with its method and path."""
    groups: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in page["tags"]}
    for path, methods in page["paths"].items():
        for method in _METHODS:
            if method in methods:
                groups[methods[method]["tags"][0]].append({"method": method.upper(), "path": path, **methods[method]})
    return groups


def _link(schema: Any) -> markupsafe.Markup:
    """A schema as a link where it is a component, else as JSON with links."""
    if isinstance(schema, dict) and set(schema) == {"$ref"}:
        name = schema["$ref"].rpartition("/")[2]
        return markupsafe.Markup('<a href="#schema-{0}">{0}</a>').format(name)
    text = markupsafe.escape(_write(schema))
    linked = re.sub(r"#/components/schemas/(\w+)", r'<a href="#schema-\1">\g<0></a>', str(text))
    return markupsafe.Markup('<pre tabindex="0">{}</pre>').format(markupsafe.Markup(linked))  # noqa: S704  # escaped above


def _write(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
