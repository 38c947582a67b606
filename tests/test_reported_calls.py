"""Calls and files that people reported of other audio tools end well here."""

import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import tonewood
from tonewood.errors import AudioError, CallError, ModelError, OutputError
from tonewood.listening.database import AnswerDatabase
from tonewood.model.model import Model, _model_tensors
from tonewood.model.model_file import serialize_model
from tonewood.settings import EnhanceSettings
from tonewood.studio.database import SessionDatabase
from tonewood.studio.registries import FolderRegistry
from tonewood.utils.files import exclusive_lock, write_bytes

Run = Callable[..., Any]
FAST = ("--steps", "0", "--set", "force=true", "--set", "certificate.control_steps=0")


@pytest.fixture
def wave(play: Callable[..., Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(play(1.0), dtype=np.float32)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int8, np.uint8])
def test_integers_are_scaled_by_their_type(model: Model, wave: Any, dtype: type) -> None:
    info = np.iinfo(dtype)
    full, zero = (128, 128) if dtype is np.uint8 else (info.max, 0)
    integers = np.round(wave.astype(np.float64) * full * 0.9 + zero).astype(dtype)
    floats = (integers.astype(np.float64) - zero) / (full + (zero == 0))
    assert tonewood.score(integers, 16_000, model) == tonewood.score(floats, 16_000, model)


def test_other_values_are_refused_in_one_line(model: Model, wave: Any) -> None:
    for samples in (
        wave > 0,
        wave.astype(complex),
        np.array(["a"] * 9000),
        wave.astype(np.int64),
        [[1.0], [1, 2]],
    ):
        with pytest.raises(CallError, match=r"samples (are|cannot)"):
            tonewood.score(samples, 16_000, model)  # type: ignore[arg-type]
    for rate in ("16000", True, 16_000.5, [16_000], -1):
        with pytest.raises(CallError, match="rate is"):
            tonewood.score(wave, rate, model)  # type: ignore[arg-type]
    with pytest.raises(CallError, match="rate is missing"):
        tonewood.score(wave, model=model)
    with pytest.raises(AudioError, match="cancel"):
        tonewood.score(np.stack([wave[0], -wave[0]]), 16_000, model)


def test_paths_tensors_and_whole_floats_are_taken(model: Model, wave: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    soundfile.write(tmp_path / "take.wav", wave.T, 16_000, subtype="FLOAT")
    expected = tonewood.score(wave, 16_000, model)
    assert tonewood.score(tmp_path / "take.wav", model=model) == expected
    assert tonewood.score(torch.from_numpy(wave.copy()).requires_grad_(), 16_000.0, model) == expected  # type: ignore[arg-type]


def test_state_of_torch_does_not_matter(model: Model, wave: Any) -> None:
    torch = pytest.importorskip("torch")
    settings = EnhanceSettings().replace(search=dict(steps=1, optimiser="RMSprop"))
    expected = tonewood.enhance(wave, 16_000, model, settings=settings).samples
    with torch.inference_mode():
        assert np.array_equal(tonewood.enhance(wave, 16_000, model, settings=settings).samples, expected)
        loss = tonewood.NeuralLoss(model, 22_050)
    waveform = torch.from_numpy(wave.copy())[None].requires_grad_()
    loss(waveform).backward()
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()


def test_model_with_values_that_are_not_finite_is_refused(model: Model, tmp_path: Path) -> None:
    tensors = _model_tensors(model)
    for name in ("scorer.linear.bias", "source_likeness.mean"):
        path = tmp_path / "bad.tonewood"
        changed = {**tensors, name: np.full_like(tensors[name], np.nan)}
        path.write_bytes(serialize_model(changed, model.settings, model.card))
        with pytest.raises(ModelError, match="not finite numbers"):
            tonewood.load(path)


def test_texts_of_files_are_shown_safely(run: Run, model: Model, tmp_path: Path) -> None:
    card = model.card.model_copy(update={"domain": "x\x1b[31my", "licence": "\x1b]0;z\x07"})
    replace(model, card=card).save(tmp_path / "evil.tonewood")
    result = run("info", tmp_path / "evil.tonewood")
    assert "\x1b" not in result.out
    assert "x\\x1b[31my" in result.out


def test_device_or_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(OutputError, match="not a regular file"):
        write_bytes(tmp_path / "link", b"x", overwrite=True)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_waiting_lock_follows_its_owner(tmp_path: Path) -> None:
    with (
        exclusive_lock(tmp_path / "a"),
        pytest.raises(OutputError, match="another process"),
        exclusive_lock(tmp_path / "a"),
    ):
        pass
    order: list[str] = []

    def wait() -> None:
        started.set()
        with exclusive_lock(tmp_path / "a", wait=True):
            order.append("second")

    started, thread = threading.Event(), threading.Thread(target=wait)
    with exclusive_lock(tmp_path / "a"):
        thread.start()
        assert started.wait(60)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_private_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    SessionDatabase(tmp_path / "studio").close()
    AnswerDatabase(tmp_path / "answers.db")
    for name in ("studio/sessions", "studio/studio.db", "answers.db"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o077 == 0


def test_links_out_of_the_root_are_not_listed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (tmp_path / "secret.wav").touch()
    (root / "in" / "p.wav").symlink_to(tmp_path / "secret.wav")
    (root / "in" / "own.wav").touch()
    (root / "in" / "out").symlink_to(tmp_path)
    registry = FolderRegistry(root)
    view = registry.folder_view(registry.register(root / "in"))
    assert (view["sounds"], view["folders"]) == (1, [])


def test_folder_goes_on_beside_what_cannot_be_done(
    run: Run, model_file: Path, wave: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "take.flac", wave.T, 16_000)
    soundfile.write(folder / ("x" * 251 + ".wav"), wave.T, 16_000)
    shutil.copy(folder / "take.flac", folder / "Take.flac")
    (folder / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(folder / "pipe.wav")
    result = run("enhance", folder, "-o", tmp_path / "out", "-m", model_file, *FAST)
    names = sorted(path.name[:4] for path in (tmp_path / "out").iterdir() if path.suffix in (".wav", ".flac"))
    assert names == ["Take", "take", "xxxx"]
    assert result.code == 1
    assert "2 of 5 failed" in result.err
    assert "unexpected" not in result.err


def test_standard_streams_are_refused(run: Run, tmp_path: Path) -> None:
    result = run("enhance", "-", "-o", "-")
    assert result.code == 2
    assert "is not supported" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_full_standard_output_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tonewood.cli.common.print_card", refuse)
    result = run("info", "cello")
    assert "standard output cannot be used (no space left on device)" in result.err
    assert result.code == 1
