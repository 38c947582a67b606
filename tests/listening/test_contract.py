"""The listening server's answers keep to what its OpenAPI document declares, whatever is asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import strategies as st

from campaigns.harness.contract import check_operation, operations
from tonewood.listening.definition import ListeningTest
from tonewood.listening.server import create_listening_app

WRONG = [
    b'{"value": "set", "final": true, "seconds": NaN}',
    b'{"value": "set", "final": true, "seconds": 1, "\\ud800": 1}',
    b'{"value": {"A": Infinity}, "final": true, "seconds": 1}',
    b"[" * 100_000,
    b"\xff",
]


def test_openapi_document_is_kept_to(copied: Callable[[str], tuple[ListeningTest, Path]]) -> None:
    test, folder = copied("pairs")
    made = create_listening_app(test, folder)
    with TestClient(made, base_url="http://127.0.0.1:8766") as client:
        listener = client.post("/api/listeners", json={"agreed": True}).json()["listener"]

        def placed(case: Any, data: st.DataObject) -> None:
            if "X-Listener" in case.headers and case.method != "DELETE" and data.draw(st.booleans()):
                case.headers["X-Listener"] = listener
            if "number" in case.path_parameters and data.draw(st.booleans()):
                case.path_parameters["number"] = 0

        asked = []
        for operation in operations(made.openapi()):
            check_operation(client, operation, placed)
            asked.append(operation.label)
        assert len(asked) == 8


@pytest.mark.parametrize("content", WRONG)
def test_what_json_cannot_hold_is_refused_in_a_line(
    copied: Callable[[str], tuple[ListeningTest, Path]], content: bytes
) -> None:
    test, folder = copied("pairs")
    client = TestClient(create_listening_app(test, folder))
    listener = client.post("/api/listeners", json={"agreed": True}).json()["listener"]
    headers = {"Content-Type": "application/json", "X-Listener": listener}
    for method, path in (("PUT", "/api/screens/0"), ("POST", "/api/listeners")):
        answer = client.request(method, path, content=content, headers=headers)
        assert answer.status_code in (400, 422)
        assert set(answer.json()) == {"error"}
        assert "\n" not in answer.json()["error"]
