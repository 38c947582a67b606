"""Damaged session files and requests are rejected in one line, without a server error."""

import json
from random import Random
from typing import Any

import pytest
from starlette.testclient import TestClient

from campaigns.harness.fuzz.mutations import BYTES, TEXT, mutate
from tests.studio.conftest import NOTE, change_edit
from tonewood.studio import session_archive

SHARE = 120


def test_damaged_session_files(client: TestClient, session: dict[str, Any]) -> None:
    change_edit(client, session, amount=0.7, notes=[NOTE])
    whole = client.get(f"/api/sessions/{session['id']}/take/session").content
    random = Random(0)
    answers = []
    for number in range(SHARE):
        # Where the names, sizes and ways of packing stand is the end; damage that too.
        if number % 2:
            content = whole[:-2_000] + mutate(whole[-2_000:], BYTES, random)
        else:
            content = mutate(whole, BYTES, random)
        answer = client.post("/api/recordings?name=a.tonewood-session", content=content)
        answers.append(answer.status_code)
        if answer.status_code != 201:
            assert answer.status_code < 500, answer.text
            assert "\n" not in answer.json()["error"]
        else:
            client.delete(f"/api/sessions/{answer.json()['id']}")
    assert sum(code != 201 for code in answers) > SHARE / 4


def test_archive_entry_size_is_limited(
    client: TestClient, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = client.get(f"/api/sessions/{session['id']}/take/session").content
    route = "/api/recordings?name=a.tonewood-session"
    monkeypatch.setattr(session_archive, "_MAX_ENTRY_BYTES", 100)
    answer = client.post(route, content=whole)
    assert answer.status_code == 400
    assert "or is damaged" in answer.json()["error"]
    monkeypatch.undo()
    assert client.post(route, content=whole).status_code == 201


def test_damaged_requests(client: TestClient, session: dict[str, Any]) -> None:
    state = client.get(f"/api/sessions/{session['id']}/state").json()
    body = json.dumps({**state["edit"], "notes": [NOTE]}).encode()
    random = Random(1)
    routes = [
        ("PUT", f"/api/sessions/{session['id']}/edit", body),
        ("POST", f"/api/sessions/{session['id']}/enhance", b'{"steps": 0, "force": true}'),
        ("POST", "/api/batches", b'{"input": "a", "output": "b", "model": "tiny", "amount": 1}'),
        ("POST", "/api/trainings", b'{"reference": "a", "source": "b", "name": "m"}'),
    ]
    for number in range(4 * SHARE):
        method, route, right = routes[number % len(routes)]
        content = mutate(right, TEXT, random)
        headers = {"Content-Type": "application/json"}
        answer = client.request(method, route, content=content, headers=headers)
        assert answer.status_code < 500, (route, content, answer.text)
