"""Forged session files and recordings that would fail later or exhaust memory or disk."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from campaigns.harness.fuzz.session_files import make_zip, unzip
from tests.studio.conftest import NOTE, change_edit
from tonewood.errors import AudioError
from tonewood.studio import session_archive, uploads
from tonewood.studio.session_archive import uncompressed_size
from tonewood.studio.state import StudioState

Change = Callable[[dict[str, bytes]], None]
REFUSED = "neither a recording nor a session file"


@pytest.fixture(scope="module")
def whole(client: TestClient, session: dict[str, Any]) -> dict[str, bytes]:
    """Return the entries of a session file by name."""
    change_edit(client, session, amount=0.7, notes=[NOTE])
    client.get(f"/api/sessions/{session['id']}/take/recipe")  # waits for the full rendering
    content = client.get(f"/api/sessions/{session['id']}/take/session").content
    return unzip(content)


def modify_json(name: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Return a change of a JSON entry."""

    def changed(parts: dict[str, bytes]) -> None:
        tree = json.loads(parts[name])
        change(tree)
        parts[name] = json.dumps(tree).encode()

    return changed


def manifest(change: Callable[[dict[str, Any]], object]) -> Change:
    return modify_json("session.json", change)


def mask(**changes: object) -> Change:
    return modify_json("found-0.recipe.json", lambda tree: tree["mask"].update(changes))


def part(name: str, content: bytes) -> Change:
    return lambda parts: parts.update({name: content})


def both(*changes: Change) -> Change:
    def changed(parts: dict[str, bytes]) -> None:
        for change in changes:
            change(parts)

    return changed


def bands(power: object, hz: object, claimed: bytes = b"") -> Change:
    sink = io.BytesIO()
    np.savez(sink, power=np.array(power), hz=np.array(hz))
    inner = unzip(sink.getvalue())
    if claimed:  # another shape in the header, of the same length
        inner["power.npy"] = inner["power.npy"].replace(b"(1, 1), }" + b" " * len(claimed), claimed)
        assert claimed in inner["power.npy"]
    return part("bands.npz", make_zip(inner))


def damaged_bands(damage: Callable[[bytes], bytes], name: str = "power.npy") -> Change:
    """Return a change of one array of otherwise valid bands."""
    sink = io.BytesIO()
    np.savez(sink, power=np.array([[1.0], [1.0]]), hz=np.array(HZ))
    inner = unzip(sink.getvalue())
    return part("bands.npz", make_zip({**inner, name: damage(inner["power.npy"])}))


HZ = [100.0, 200.0]
MADE_UP: dict[str, Change] = {
    "history with a gap": manifest(lambda item: item["history"][-1].update(number=77)),
    "history that is empty": manifest(lambda item: item.update(history=[])),
    "history twice": manifest(lambda item: item.update(history=item["history"] * 2)),
    "history beyond all numbers": manifest(lambda item: item["history"][-1].update(number=2**70)),
    "history of more than is kept": manifest(
        lambda item: item.update(
            history=[{**item["history"][0], "number": number} for number in range(502)], at=0
        )
    ),
    "standing outside its history": manifest(lambda item: item.update(at=99)),
    "found before the first": manifest(lambda item: item["history"][-1].update(found=-1)),
    "found beyond all names": manifest(lambda item: item["history"][-1].update(found=10**300)),
    "found and not there": manifest(lambda item: item["history"][-1].update(found=5)),
    "nested without end": part("session.json", b"[" * 1_000_000),
    "manifest of millions": part("session.json", b'{"history": [' + b"0," * 3_000_000 + b"0]}"),
    "recipe of millions": part("found-0.recipe.json", b'{"mask": [' + b"0," * 400_000 + b"0]}"),
    "rows a hair apart": mask(hz=[1.0, 1.0 + 1e-9], rows=2),
    "one row": mask(hz=[100.0], rows=1),
    "frames a hair apart": mask(hop_seconds=1e-9),
    "a mask of hours": mask(frames=2_000_000, parts=["eJw="] * 334),
    "a mask beyond all numbers": mask(frames=10**400),
    "bands that are none": part("bands.npz", b"PK\x03\x04 nothing"),
    "bands of text": bands([["a"]], ["b"]),
    "bands below nothing": bands([[-1.0], [1.0]], HZ),
    "bands beyond all numbers": bands([[np.inf], [1.0]], HZ),
    "bands of no frequency": bands([[np.nan], [1.0]], HZ),
    "bands that fall": bands([[1.0], [1.0]], HZ[::-1]),
    "bands of another number": bands([[1.0]], HZ),
    "bands with a broken header": damaged_bands(lambda inner: b"\x93NUMPY\x01\x00\x04\x00{(:\n" + inner),
    "bands without a shape": damaged_bands(lambda inner: inner.replace(b"(2, 1), }", b"((),),  }")),
    "bands with a longer header": damaged_bands(lambda inner: inner[:8] + b"\xff\xff" + inner[10:]),
    "bands with another entry": damaged_bands(lambda inner: inner, name="power"),
    "bands of no time": bands([[], []], HZ),
    "bands of terabytes": bands([[1.0]], [9.0], b"(1, 1099511627776), }"),
    "an anchor that is none": part("anchor.json", b"{}"),
    "an anchor beyond all gains": part("anchor.json", b"[1e308, null]"),
    "an anchor of words": part("anchor.json", b'["0.5", null]'),
    "an anchor of text and number": part("anchor.json", b'[0.5, "1.0"]'),
    "an anchor without end": part("anchor.json", b"[NaN, Infinity]"),
    "an anchor of megabytes": part("anchor.json", b"[0.0, null]" + b" " * 2_000_000 + b"x"),
    "a model that is none": both(
        part("model.tonewood", b"no model"), manifest(lambda item: item.update(digest="0" * 64))
    ),
    "a model that is another": manifest(lambda item: item.update(digest="0" * 64)),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE_UP)
def test_forged_session_file_is_rejected(
    client: TestClient, studio_state: StudioState, whole: dict[str, bytes], name: str
) -> None:
    parts = dict(whole)
    MADE_UP[name](parts)
    before = everything(studio_state)
    answer = client.post("/api/recordings?name=a.tonewood-session", content=make_zip(parts))
    assert answer.status_code == 400, answer.text
    assert everything(studio_state) == before
    assert str(studio_state.database.folder) not in answer.text


def test_session_file_with_bands_is_accepted(client: TestClient, whole: dict[str, bytes]) -> None:
    parts = dict(whole)
    damaged_bands(lambda inner: inner)(parts)
    answer = client.post("/api/recordings?name=a.tonewood-session", content=make_zip(parts))
    assert answer.status_code == 201, answer.text
    client.delete(f"/api/sessions/{answer.json()['id']}")


@pytest.mark.parametrize("name", ["session.json", "found-0.recipe.json"])
@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_entry_with_other_compression_is_rejected(
    client: TestClient, studio_state: StudioState, whole: dict[str, bytes], name: str, method: int
) -> None:
    before, sink = everything(studio_state), io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in whole.items():
            archive.writestr(entry, content, method if entry == name else None)
        info = archive.getinfo(name)
    damaged = bytearray(sink.getvalue())
    start = info.header_offset + len(info.FileHeader()) + 9
    damaged[start : start + 20] = bytes(20)
    answer = client.post("/api/recordings?name=a.tonewood-session", content=bytes(damaged))
    assert answer.status_code == 400, answer.text
    assert "or is damaged" in answer.json()["error"]
    assert everything(studio_state) == before


def test_encrypted_session_file_is_rejected(
    client: TestClient, studio_state: StudioState, whole: dict[str, bytes]
) -> None:
    before, sink = everything(studio_state), io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for entry, content in whole.items():
            archive.writestr(entry, content)
            archive.getinfo(entry).flag_bits |= 1
    answer = client.post("/api/recordings?name=a.tonewood-session", content=sink.getvalue())
    assert answer.status_code == 400, answer.text
    assert everything(studio_state) == before


@pytest.mark.parametrize("error", [KeyError("sound"), ValueError("negative"), RuntimeError("shape")])
def test_error_of_ours_is_not_reported_as_damage(
    client: TestClient,
    studio_state: StudioState,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(*values: Any) -> None:
        raise error

    before = everything(studio_state)
    monkeypatch.setattr(session_archive, "decode_to_session", fail)
    with pytest.raises(type(error)):
        client.post("/api/recordings?name=a.tonewood-session", content=make_zip(whole))
    assert everything(studio_state) == before


def everything(studio_state: StudioState) -> list[Any]:
    """Return the stored sessions, folders and models."""
    places = (studio_state.database.folder / "sessions", studio_state.database.models_folder)
    folders = [sorted(item.name for item in place.iterdir()) for place in places]
    return [*folders, [session.id for session in studio_state.database.list_sessions()]]


@pytest.mark.parametrize("claim", [{"rate": 1}, {"rate": 768_000}, {"samples": 1}, {"channels": 1}])
def test_session_file_with_wrong_recording_properties_is_rejected(
    client: TestClient, studio_state: StudioState, whole: dict[str, bytes], claim: dict[str, int]
) -> None:
    parts, before = dict(whole), everything(studio_state)
    manifest(lambda item: item["sound"].update(claim))(parts)
    answer = client.post("/api/recordings?name=a.tonewood-session", content=make_zip(parts))
    assert "another recording than the one it describes" in answer.json()["error"]
    assert everything(studio_state) == before


def test_session_file_with_unusable_recording_is_reported_without_path(
    client: TestClient, studio_state: StudioState, whole: dict[str, bytes]
) -> None:
    parts, before = dict(whole), everything(studio_state)
    sink = io.BytesIO()
    soundfile.write(sink, np.zeros(16_000), 16_000, format="WAV")
    parts["upload.wav"] = sink.getvalue()
    answer = client.post("/api/recordings?name=a.tonewood-session", content=make_zip(parts))
    assert answer.json()["error"].startswith("take.wav is silent")
    assert everything(studio_state) == before


def test_title_of_session_file_is_one_line_of_limited_length(
    client: TestClient, whole: dict[str, bytes]
) -> None:
    for title, expected in (("a\nb\x1b[2J", "a\\nb\\x1b[2J"), ("x" * 10_000, "x" * 120)):
        parts = dict(whole)
        manifest(partial(dict.update, title=title))(parts)
        answer = client.post("/api/recordings?name=a.tonewood-session", content=make_zip(parts))
        assert answer.json()["title"] == expected
        client.delete(f"/api/sessions/{answer.json()['id']}")


def test_zip_bomb_of_terabytes(client: TestClient, studio_state: StudioState) -> None:
    before = everything(studio_state)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("session.json", b"{}")
        archive.filelist[0].file_size = 2**42  # the size in the central directory
    answer = client.post("/api/recordings?name=a.tonewood-session", content=buffer.getvalue())
    assert (answer.status_code, len(buffer.getvalue()) < 300) == (400, True)
    assert "more than 4 GiB" in answer.json()["error"]
    assert everything(studio_state) == before


def test_zip_bomb_that_declares_a_wrong_size(client: TestClient, whole: dict[str, bytes]) -> None:
    content = bytearray(make_zip({**whole, "session.json": b" " * 50_000_000}))
    size = (50_000_000).to_bytes(4, "little")
    while (at := content.find(size)) >= 0:
        content[at : at + 4] = (2).to_bytes(4, "little")
    assert len(content) < 10 * len(make_zip(whole))
    answer = client.post("/api/recordings?name=a.tonewood-session", content=bytes(content))
    assert answer.status_code == 400
    assert REFUSED in answer.json()["error"]


def test_zip_bomb_that_declares_more_than_the_archive_has() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("hz.npy", b"x" * 100)
        archive.filelist[0].compress_size = 2**32 - 2  # up to a gibibyte would be read at once
    with zipfile.ZipFile(sink) as archive, pytest.raises(zipfile.BadZipFile, match="declares more bytes"):
        uncompressed_size(archive)
    assert uncompressed_size(zipfile.ZipFile(io.BytesIO(make_zip({"a": b"x" * 9, "b": b""})))) == 9


def test_session_that_cannot_be_viewed_is_discarded(
    client: TestClient, studio_state: StudioState, take: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> dict[str, Any]:
        raise AudioError("this cannot be shown")

    before = everything(studio_state)
    with monkeypatch.context() as patch:
        patch.setattr(studio_state, "session_view", broken)
        answer = client.post("/api/recordings?name=a.wav", content=take.read_bytes())
    assert answer.status_code == 400
    assert everything(studio_state) == before


def test_audio_bomb_of_hours(client: TestClient, studio_state: StudioState) -> None:
    before = everything(studio_state)
    sink = io.BytesIO()
    with soundfile.SoundFile(sink, "w", 4_000, 1, "PCM_16", format="FLAC") as file:
        file.write(np.array([0.5, -0.5]))
        for _ in range(181):
            file.write(np.zeros(60 * 4_000))
    assert len(sink.getvalue()) < 200_000
    answer = client.post("/api/recordings?name=bomb.flac", content=sink.getvalue())
    assert answer.status_code == 400
    assert "lasts longer than 3 h" in answer.json()["error"]
    assert everything(studio_state) == before


def test_audio_bomb_of_gigabytes(
    client: TestClient, studio_state: StudioState, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(studio_state)
    sink = io.BytesIO()
    samples = np.zeros((200_000, 8))
    samples[0] = 0.5
    soundfile.write(sink, samples, 16_000, "PCM_16", format="FLAC")
    route = "/api/recordings?name=bomb.flac"
    monkeypatch.setattr(uploads, "_MAX_DECODED_BYTES", 2**20)
    answer = client.post(route, content=sink.getvalue())
    assert answer.status_code == 400
    assert "decodes to more than" in answer.json()["error"]
    assert everything(studio_state) == before
    monkeypatch.setattr(uploads, "_MAX_DECODED_BYTES", 2**24)
    assert client.post(route, content=sink.getvalue()).status_code == 201


def test_upload_leaves_free_space_on_the_disk(
    client: TestClient, studio_state: StudioState, take: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, free = everything(studio_state), SimpleNamespace(free=2**26 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free)
    answer = client.post("/api/recordings?name=a.wav", content=take.read_bytes()[:1_000_000])
    assert answer.status_code == 507
    assert "free some space" in answer.json()["error"]
    assert everything(studio_state) == before


@pytest.mark.parametrize("claim", [0x10000000, 0x70000000, 0xF0000000])
def test_wav_header_that_declares_gigabytes_is_harmless(
    client: TestClient, studio_state: StudioState, take: Path, claim: int
) -> None:
    before, content = everything(studio_state), bytearray(take.read_bytes())
    at = content.find(b"data") + 4
    content[at : at + 4] = claim.to_bytes(4, "little")
    answer = client.post("/api/recordings?name=a.wav", content=bytes(content))
    assert answer.status_code == 400
    assert everything(studio_state) == before


def test_recipe_entry_size_is_limited(
    client: TestClient, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max(len(whole[item]) for item in ("session.json", "model.tonewood", "anchor.json"))
    recipe = whole["found-0.recipe.json"] + b" " * longest
    monkeypatch.setattr(session_archive, "_MAX_ENTRY_BYTES", longest)
    content = make_zip({**whole, "found-0.recipe.json": recipe})
    answer = client.post("/api/recordings?name=a.tonewood-session", content=content)
    assert answer.status_code == 400
