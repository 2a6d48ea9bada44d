"""The API of a running node against its own OpenAPI page: schemathesis sends what fits and what does not."""

import asyncio
import json
import signal
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.node import Node

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
SETTINGS = hypothesis.settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def node(short_directory: Path) -> Iterator[Node]:
    """A node that takes any number of requests."""
    node = Node(short_directory / f"api-{uuid.uuid4().hex[:8]}", env={"EDGE_API_RATE_LIMIT": "0"})
    try:
        asyncio.run(node.start())
        yield node
        assert asyncio.run(node.stop()) == 0
    finally:
        asyncio.run(node.stop(signal.SIGKILL))


def ask(node: Node, token: str, method: str, path: str, body: Any = None) -> Any:
    """The JSON of an answer."""
    request = urllib.request.Request(
        node.admin + path,
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def takes_any_text(operation: Any) -> bool:
    """Whether a repeated text parameter is among its parameters: there is no text that such a one would refuse."""
    schemas = [one["schema"] for one in operation.definition.raw.get("parameters", ()) if one["in"] == "query"]
    return any(schema.get("items") == {"type": "string"} for schema in schemas)


def validate(operation: Any, token: str) -> str:
    """Send requests that fit the operation and some that do not; what was wrong with the answers, "" for nothing."""
    fitting, unfitting = (
        operation.as_strategy(generation_mode=mode)
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    )
    checks = CHECKS if takes_any_text(operation) else [*CHECKS, negative_data_rejection]

    @hypothesis.settings(SETTINGS)
    @hypothesis.given(case=fitting | unfitting)
    def run(case: Any) -> None:
        # aiohttp itself refuses a longer request line, as text.
        hypothesis.assume(len(case.as_curl_command()) < 6000)
        case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=checks)

    try:
        run()
    except (schemathesis.errors.SchemathesisError, AssertionError, BaseExceptionGroup) as error:
        return f"{operation.label}: {error}"
    return ""


@pytest.mark.parametrize("scope", ["partner", "admin"])
def test_every_answer_is_as_the_openapi_page_says(node: Node, scope: str) -> None:
    """Whatever is sent, with a partner's key or the admin's: no 5xx, and only documented statuses, types and shapes."""
    token = (node.data_dir / "admin.token").read_text().strip()
    if scope == "partner":
        token = ask(node, token, "POST", "/api/v1/keys", {"name": "tester", "scope": scope, "aff_id": 2})["token"]
    page = schemathesis.openapi.from_url(f"{node.admin}/api/openapi.json")
    operations: list[Any] = [found.ok() for found in page.get_all_operations()]  # type: ignore[union-attr]
    endless = {one.label for one in operations if "text/event-stream" in str(one.definition.raw)}
    failures = [validate(one, token) for one in operations if one.label not in endless]
    assert not any(failures), "\n\n".join(failures)
    assert "api_failed" not in node.log_path.read_text()
