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
    negative_data_rejection,
    unsupported_method,
]
EXAMPLES = 12


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


@pytest.mark.parametrize("scope", ["partner", "admin"])
def test_every_answer_is_as_the_openapi_page_says(node: Node, scope: str) -> None:
    """Whatever is sent, with a partner's key or the admin's: no 5xx, and only documented statuses, types and shapes."""
    token = (node.data_dir / "admin.token").read_text().strip()
    if scope == "partner":
        token = ask(node, token, "POST", "/api/v1/keys", {"name": "tester", "scope": scope, "aff_id": 2})["token"]
    schema = schemathesis.openapi.from_url(f"{node.admin}/api/openapi.json")
    headers = {"Authorization": f"Bearer {token}"}
    count, failures = 0, []
    for result in schema.get_all_operations():
        operation = result.ok()
        if "text/event-stream" in str(operation.definition.raw):
            continue  # never ends

        @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
                             suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.given(case=operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
        def run(case: schemathesis.Case) -> None:
            nonlocal count
            count += 1
            case.call_and_validate(headers=headers, checks=CHECKS)

        try:
            run()
        except BaseException as error:
            failures.append(f"{operation.label}: {error}\n" + "\n".join(map(str, getattr(error, 'exceptions', ()))))
    print(count)
    assert failures == [], "\n\n".join(failures)
    assert "api_failed" not in node.log_path.read_text()
