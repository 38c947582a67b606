"""The studio's responses match its OpenAPI document for valid and invalid requests."""

from typing import Any

from hypothesis import strategies as st
from starlette.testclient import TestClient

from campaigns.harness.contract import check_operation, operations
from tests.studio.conftest import NOTE
from tonewood.studio.app import create_studio_app
from tonewood.studio.state import StudioState

# Events never end.
ENDLESS = ("/api/events",)


def test_responses_match_openapi_document(
    client: TestClient, studio_state: StudioState, session: dict[str, Any]
) -> None:
    def placed(case: Any, data: st.DataObject) -> None:
        deletes = case.method == "DELETE" and case.path == "/api/sessions/{name}"
        if "name" in case.path_parameters and not deletes and data.draw(st.integers(0, 3)):
            case.path_parameters["name"] = session["id"]
        if case.path == "/api/places" and "at" in case.query and data.draw(st.booleans()):
            case.query["at"] = folder

    assert studio_state.folders is not None
    folder = studio_state.folders.folder_view(None)["id"]
    labels = []
    for operation in operations(create_studio_app(studio_state).openapi(), ENDLESS):
        check_operation(client, operation, placed)
        labels.append(operation.label)
    assert len(labels) > 35


def test_openapi_document_is_not_served(client: TestClient) -> None:
    for path in ("/openapi.json", "/docs", "/redoc", "/api/openapi.json"):
        assert client.get(path).status_code == 404


def test_strings_and_booleans_are_not_accepted_as_numbers(
    client: TestClient, session: dict[str, Any]
) -> None:
    at = f"/api/sessions/{session['id']}"
    note = {**NOTE, "id": "n1"}
    for method, path, wrong in (
        ("POST", "enhance", {"steps": True}),
        ("POST", "enhance", {"steps": "3"}),
        ("POST", "again", {"force": 1}),
        ("PUT", "edit", {"amount": True}),
        ("PUT", "edit", {"amount": "0.5"}),
        ("PUT", "edit", {"notes": [{**note, "hz": "900"}]}),
        ("PUT", "edit", {"notes": [{**note, "muted": "no"}]}),
    ):
        answer = client.request(method, f"{at}/{path}", json=wrong)
        assert answer.status_code == 422, (path, wrong)
    assert client.put(f"{at}/edit", json={"amount": 1, "notes": [note]}).is_success
