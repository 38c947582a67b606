"""The listening server's responses match its OpenAPI document for valid and invalid requests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import strategies as st

from campaigns.harness.contract import check_operation, operations
from tonewood.listening.definition import ListeningTest
from tonewood.listening.server import create_listening_app

INVALID_BODIES = [
    b'{"value": "set", "final": true, "seconds": NaN}',
    b'{"value": "set", "final": true, "seconds": 1, "\\ud800": 1}',
    b'{"value": {"A": Infinity}, "final": true, "seconds": 1}',
    b"[" * 100_000,
    b"\xff",
]


def test_responses_match_openapi_document(copy_test: Callable[[str], tuple[ListeningTest, Path]]) -> None:
    test, folder = copy_test("pairs")
    app = create_listening_app(test, folder)
    with TestClient(app, base_url="http://127.0.0.1:8766") as client:
        listener = client.post("/api/listeners", json={"agreed": True}).json()["listener"]

        def insert_names(case: Any, data: st.DataObject) -> None:
            if "X-Listener" in case.headers and case.method != "DELETE" and data.draw(st.booleans()):
                case.headers["X-Listener"] = listener
            if "number" in case.path_parameters and data.draw(st.booleans()):
                case.path_parameters["number"] = 0

        labels = []
        for operation in operations(app.openapi()):
            check_operation(client, operation, insert_names)
            labels.append(operation.label)
        assert len(labels) == 8


@pytest.mark.parametrize("content", INVALID_BODIES)
def test_non_json_numbers_are_rejected_in_one_line(
    copy_test: Callable[[str], tuple[ListeningTest, Path]], content: bytes
) -> None:
    test, folder = copy_test("pairs")
    client = TestClient(create_listening_app(test, folder))
    listener = client.post("/api/listeners", json={"agreed": True}).json()["listener"]
    headers = {"Content-Type": "application/json", "X-Listener": listener}
    for method, path in (("PUT", "/api/screens/0"), ("POST", "/api/listeners")):
        answer = client.request(method, path, content=content, headers=headers)
        assert answer.status_code in (400, 422)
        assert set(answer.json()) == {"error"}
        assert "\n" not in answer.json()["error"]
