"""The studio's answers keep to what its OpenAPI document declares, whatever is asked."""

from typing import Any

from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.hostile.contract import keeps, operations
from tonewood.studio.app import application
from tonewood.studio.desk import Desk

# Events never end.
ENDLESS = ("/api/events",)


def test_openapi_document_is_kept_to(
    client: TestClient, desk: Desk, session: dict[str, Any]
) -> None:
    def placed(case: Any, data: st.DataObject) -> None:
        deletes = case.method == "DELETE" and case.path == "/api/sessions/{name}"
        if "name" in case.path_parameters and not deletes and data.draw(st.integers(0, 3)):
            case.path_parameters["name"] = session["id"]
        if case.path == "/api/places" and "at" in case.query and data.draw(st.booleans()):
            case.query["at"] = folder

    assert desk.places is not None
    folder = desk.places.shown(None)["id"]
    asked = []
    for operation in operations(application(desk).openapi(), ENDLESS):
        keeps(client, operation, placed)
        asked.append(operation.label)
    assert len(asked) > 35


def test_openapi_document_is_not_served(client: TestClient) -> None:
    for path in ("/openapi.json", "/docs", "/redoc", "/api/openapi.json"):
        assert client.get(path).status_code == 404
