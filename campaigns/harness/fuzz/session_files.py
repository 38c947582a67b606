"""Reader of session files: the studio's upload route, with a valid session file to damage."""

import io
import json
import zipfile
from pathlib import Path
from random import Random

import numpy as np
from starlette.testclient import TestClient

from campaigns.harness.fuzz.http_requests import EDIT, check_status
from campaigns.harness.fuzz.mutations import BYTES, TEXT, mutate
from campaigns.harness.fuzz.readers import Reader
from tonewood.studio.state import StudioState


def session_reader(studio_state: StudioState, client: TestClient, recording: bytes, recipe: bytes) -> Reader:
    """Return a reader that uploads session files to the studio."""

    def read(path: Path) -> None:
        answer = client.post("/api/recordings?name=a.tonewood-session", content=path.read_bytes())
        if answer.status_code == 201:
            client.delete(f"/api/sessions/{answer.json()['id']}")
        left = [
            *(studio_state.database.folder / "sessions").iterdir(),
            *studio_state.database.list_sessions(),
        ]
        assert not left, left
        check_status(answer.status_code, answer.text)

    seed = make_session_file(client, recording, recipe)
    return Reader(".tonewood-session", (seed,), read, (_damage_member, _damage_member, *BYTES))


def make_session_file(client: TestClient, recording: bytes, recipe: bytes) -> bytes:
    """Return a session file with every possible part."""
    session = client.post("/api/recordings?name=seed.wav", content=recording).json()["id"]
    client.put(f"/api/sessions/{session}/edit", json=EDIT)
    parts = unzip(client.get(f"/api/sessions/{session}/take/session").content)
    client.delete(f"/api/sessions/{session}")
    session_json = json.loads(parts["session.json"])
    for entry in session_json["history"]:
        entry["found"] = 0
    sink = io.BytesIO()
    np.savez(sink, power=np.ones((2, 1)), hz=np.array([100.0, 200.0]))
    # The studio has this model already, so its content is not needed; damaged model files have
    # a reader of their own.
    return make_zip(
        {
            **parts,
            "session.json": json.dumps(session_json).encode(),
            "model.tonewood": b"known by its digest",
            "found-0.recipe.json": recipe,
            "bands.npz": sink.getvalue(),
            "anchor.json": b"[0.0, null]",
        }
    )


def unzip(content: bytes) -> dict[str, bytes]:
    """Return the files of a zip archive by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def make_zip(parts: dict[str, bytes]) -> bytes:
    """Return a zip archive of files, with correct checksums."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return sink.getvalue()


def _damage_member(content: bytes, random: Random) -> bytes:
    """Damage one file of an archive."""
    try:
        parts = unzip(content)
    except Exception:  # damaged by an earlier mutation
        return content
    if not parts:
        return content
    name = random.choice(sorted(parts))
    kinds = TEXT if name.endswith(".json") else BYTES
    parts[name] = mutate(parts[name], kinds, random)
    return make_zip(parts)
