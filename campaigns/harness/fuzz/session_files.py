"""Session files, sent to the studio's own route: all that is right, to be damaged."""

import io
import json
import zipfile
from pathlib import Path
from random import Random

import numpy as np
from starlette.testclient import TestClient

from campaigns.harness.fuzz.http_requests import EDIT, judged
from campaigns.harness.fuzz.mutations import BYTES, TEXT, mutated
from campaigns.harness.fuzz.readers import Reader
from tonewood.studio.state import StudioState


def sessions(desk: StudioState, client: TestClient, recording: bytes, recipe: bytes) -> Reader:
    """A reader of session files: the route that takes them, as a page sends one."""

    def read(path: Path) -> None:
        answer = client.post("/api/recordings?name=a.tonewood-session", content=path.read_bytes())
        if answer.status_code == 201:
            client.delete(f"/api/sessions/{answer.json()['id']}")
        left = [*(desk.database.folder / "sessions").iterdir(), *desk.database.list_sessions()]
        assert not left, left
        judged(answer.status_code, answer.text)

    seed = session_file(client, recording, recipe)
    return Reader(".tonewood-session", (seed,), read, (_inside, _inside, *BYTES))


def session_file(client: TestClient, recording: bytes, recipe: bytes) -> bytes:
    """A session file that holds all that one may."""
    session = client.post("/api/recordings?name=seed.wav", content=recording).json()["id"]
    client.put(f"/api/sessions/{session}/edit", json=EDIT)
    parts = unpacked(client.get(f"/api/sessions/{session}/take/session").content)
    client.delete(f"/api/sessions/{session}")
    told = json.loads(parts["session.json"])
    for entry in told["history"]:
        entry["found"] = 0
    sink = io.BytesIO()
    np.savez(sink, power=np.ones((2, 1)), hz=np.array([100.0, 200.0]))
    # The studio knows the model by its digest, so that nothing need be brought; it is damaged
    # as a model file already.
    return packed(
        {
            **parts,
            "session.json": json.dumps(told).encode(),
            "model.tonewood": b"known by its digest",
            "found-0.recipe.json": recipe,
            "bands.npz": sink.getvalue(),
            "anchor.json": b"[0.0, null]",
        }
    )


def unpacked(content: bytes) -> dict[str, bytes]:
    """What a zip archive holds, by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts: dict[str, bytes]) -> bytes:
    """A zip archive of parts, its checksums right."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return sink.getvalue()


def _inside(content: bytes, random: Random) -> bytes:
    """An archive with damage to one of its parts."""
    try:
        parts = unpacked(content)
    except Exception:  # damaged before: whatever zipfile says of it
        return content
    if not parts:
        return content
    name = random.choice(sorted(parts))
    kinds = TEXT if name.endswith(".json") else BYTES
    parts[name] = mutated(parts[name], kinds, random)
    return packed(parts)
