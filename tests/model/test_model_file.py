import json
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import tonewood
from tonewood.audio_io.reader import read_recording
from tonewood.errors import ModelError, OutputError
from tonewood.model import model_file as container
from tonewood.model.card import Quartiles
from tonewood.model.model import Model, load_model


def header(content: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", content[:8])
    actual: dict[str, Any] = json.loads(content[8 : 8 + length])
    return actual


def with_metadata(content: bytes, **changes: str | None) -> bytes:
    """The same model file with other metadata."""
    (length,) = struct.unpack("<Q", content[:8])
    head = header(content)
    for name, value in changes.items():
        head["__metadata__"][name] = value
        if value is None:
            del head["__metadata__"][name]
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def test_saved_model_loads_equal(model: Model, model_file: Path) -> None:
    back = load_model(model_file)
    assert back.name == "tiny"
    assert back.settings == model.settings
    assert back.card == model.card
    assert back.digest == model.digest
    assert back.judge is not None
    assert model.judge is not None
    for mine, theirs in ((back.scorer, model.scorer), (back.judge, model.judge)):
        assert mine.weights.keys() == theirs.weights.keys()
        assert all(np.array_equal(value, theirs.weights[name]) for name, value in mine.weights.items())
    stored = model.priors.tensors()
    assert all(np.array_equal(v, stored[k]) for k, v in back.priors.tensors().items())
    assert back.way_guide is not None
    assert model.way_guide is not None
    assert all(np.array_equal(v, back.way_guide.weights[k]) for k, v in model.way_guide.weights.items())


def test_saving_is_reproducible_and_replaces_nothing(model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.tonewood"
    load_model(model_file).save(path)
    assert path.read_bytes() == model_file.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        load_model(model_file).save(path)


def test_digest_depends_on_everything_but_the_card(model: Model, model_file: Path) -> None:
    content = model_file.read_bytes()
    assert header(content)["__metadata__"]["format"] == "tonewood"
    noted = model.card.model_copy(update={"notice": "x", "seconds": 1.0})
    assert replace(model, card=noted).digest == model.digest
    altered = replace(model, judge=None)
    assert altered.digest != model.digest


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_one_error(data: st.DataObject, model_file: Path, tmp_path: Path) -> None:
    content = bytearray(model_file.read_bytes())
    # Half of the damage to the header, which is read with care, half anywhere.
    (length,) = struct.unpack("<Q", content[:8])
    last = data.draw(st.sampled_from([8 + length, len(content)])) - 1
    place = data.draw(st.integers(0, last))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "damaged.tonewood"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged\.tonewood (is not a Ton|has format)") as said:
        load_model(path)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\xff" * 100,
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 20_000) + b"[" * 20_000,
        struct.pack("<Q", 2**63) + b"{}",
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tonewood"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is not a Tonewood model, or is damaged"):
        load_model(path)


def test_other_safetensors_files_are_refused(tmp_path: Path) -> None:
    for metadata in (None, {"format": "pt"}, {"format": "tonewood", "version": "2"}):
        save_file({"a": torch.zeros(3)}, tmp_path / "a.tonewood", metadata)
        with pytest.raises(ModelError, match="is not a Tonewood model"):
            load_model(tmp_path / "a.tonewood")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save(Trap(sprung), tmp_path / "a.tonewood")
    (tmp_path / "b.tonewood").write_bytes(pickle.dumps(Trap(sprung)))
    for name in ("a", "b"):
        with pytest.raises(ModelError, match="is not a Tonewood model"):
            load_model(tmp_path / f"{name}.tonewood")
    assert not sprung.exists()


def test_an_unknown_version_is_named(model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.tonewood"
    path.write_bytes(with_metadata(model_file.read_bytes(), version="99"))
    with pytest.raises(ModelError, match=r"new\.tonewood has format version 99; this .* reads 2: "):
        load_model(path)


@pytest.mark.parametrize("part", ["settings", "card", "sha256"])
def test_missing_or_changed_metadata_is_refused(model_file: Path, tmp_path: Path, part: str) -> None:
    content = model_file.read_bytes()
    before = header(content)["__metadata__"][part]
    for value in (None, "", before[:-1] + ("0" if before[-1] != "0" else "1")):
        path = tmp_path / "a.tonewood"
        path.write_bytes(with_metadata(content, **{part: value}))
        with pytest.raises(ModelError, match="is not a Tonewood model, or is damaged"):
            load_model(path)
    path.write_bytes(with_metadata(content))
    load_model(path)


def test_unusable_paths_are_refused(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"no\\nway is neither a model file nor a bundled model"):
        load_model("no\nway")
    with pytest.raises(ModelError, match=r"cannot be read \(is a directory\)"):
        load_model(tmp_path)
    monkeypatch.setattr(container, "_MAX_MODEL_BYTES", 1_000)
    with pytest.raises(ModelError, match="is not a Tonewood model: one has less than"):
        load_model(model_file)


def test_bundled_model_loads_by_name(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda _: model_file.parent)
    monkeypatch.chdir(tmp_path)
    assert list(container.bundled_models()) == ["tiny"]
    assert load_model("tiny").name == "tiny"
    with pytest.raises(ModelError, match="or one of: tiny"):
        load_model("large")


def test_bundled_models_are_small_and_valid() -> None:
    for name, place in container.bundled_models().items():
        assert len(place.read_bytes()) < 2e6
        output = load_model(name)
        assert output.name == name
        assert output.card.notice


def test_digest_depends_on_targets(model: Model) -> None:
    labels = replace(model, settings=model.settings.replace(training=dict(targets="labels")))
    assert labels.digest != model.digest


def test_quartiles() -> None:
    assert Quartiles.of(torch.arange(5.0)) == (1, 2, 3)


def test_model_of_earlier_version_works_as_before() -> None:
    # A bundled model of commit 98e61a4: labels as targets, networks that do not know what is needed.
    model = load_model(Path(__file__).with_name("ungraded.tonewood"))
    assert model.digest == "2c4a2f36d0607f303dd0d637a03a9d18c6fb0dc3438da522dd0b062ed9fee3ef"
    assert not model.has_graded_scorer
    assert model.way_guide is None
    reader = read_recording(Path(container.__file__).parents[1] / "bundled" / "example.flac")
    score = tonewood.score(reader.samples, reader.rate, model)
    assert score.scorer == pytest.approx(0.98832, abs=1e-4)
    enhanced = tonewood.enhance(reader.samples, reader.rate, model)
    assert enhanced.certificate.verdict == "good"
    assert enhanced.certificate.rms_db == pytest.approx(8.0212, abs=1e-2)
