"""Outputs of `enhance`: format, recipe, picture and printed results."""

import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.batch.conftest import FEW, Play, file_tree
from tests.conftest import Run
from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import file_sha256
from tonewood.enhancement import recipe
from tonewood.mask.render import render_through_mask
from tonewood.model.model import Model, load_model

FORMATS = [
    (".wav", 44_100, 2, "WAV", "PCM_24"),
    (".wav", 48_000, 1, "WAV", "PCM_16"),
    (".wav", 16_000, 8, "WAV", "PCM_16"),
    (".wav", 22_050, 1, "WAV", "PCM_32"),
    (".wav", 44_100, 1, "WAV", "FLOAT"),
    (".wav", 8_000, 1, "WAV", "PCM_16"),
    (".wav", 192_000, 1, "WAV", "PCM_24"),
    (".flac", 44_100, 2, "FLAC", "PCM_24"),
    (".aiff", 44_100, 1, "AIFF", "PCM_24"),
    (".ogg", 44_100, 2, "OGG", "VORBIS"),
    (".mp3", 44_100, 2, "MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("suffix", "rate", "channels", "container", "subtype"), FORMATS)
def test_rate_channels_length_and_format_are_kept(
    tmp_path: Path,
    play: Play,
    run: Run,
    model_file: Path,
    suffix: str,
    rate: int,
    channels: int,
    container: str,
    subtype: str,
) -> None:
    first = tmp_path / f"a{suffix}"
    soundfile.write(first, play(0.61, rate, channels).T, rate, subtype, format=container)
    ran = run("enhance", first, "-o", tmp_path / "out", "-m", model_file, *FEW)
    assert ran.code == 0, ran.err
    before, after = soundfile.info(first), soundfile.info(tmp_path / "out" / first.name)
    for name in ("samplerate", "channels", "frames", "format", "subtype"):
        assert getattr(after, name) == getattr(before, name), name
    old, new = (read_recording(p).samples for p in (first, tmp_path / "out" / first.name))
    assert np.abs(old - new).max() > 0.01


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [(".wav", "PCM_24"), (".wav", "PCM_32"), (".wav", "DOUBLE"), (".flac", "PCM_16"),
     (".ogg", "VORBIS"), (".mp3", "MPEG_LAYER_III")],
)  # fmt: skip
def test_amount_0_returns_the_input_bit_for_bit(
    tmp_path: Path, rng: np.random.Generator, run: Run, model_file: Path, suffix: str, subtype: str
) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    wave = 0.3 * rng.standard_normal((16_000, 2))
    soundfile.write(first, wave, 16_000, subtype)
    assert run("enhance", first, "-o", second, "-m", model_file, "--amount", 0, *FEW).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_amount_0_into_another_format_keeps_every_sample(
    tmp_path: Path, take: Path, run: Run, model_file: Path
) -> None:
    second = tmp_path / "b.flac"
    assert run("enhance", take, "-o", second, "-m", model_file, "--amount", 0, *FEW).code == 0
    np.testing.assert_array_equal(read_recording(take).samples, read_recording(second).samples)
    assert read_recording(second).format == AudioFormat("FLAC", "PCM_16")


def test_recipe_and_recording_give_the_output_samples(
    tmp_path: Path, play: Play, run: Run, model_file: Path
) -> None:
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(first, play(1.3, 44_100, 2).T, 44_100, "PCM_24")
    assert run("enhance", first, "-o", second, "-m", model_file, *FEW).code == 0
    saved = recipe.load_recipe(tmp_path / "b.wav.recipe.json")
    model, recording = load_model(model_file), read_recording(first)
    assert saved.input.sha256 == file_sha256(first)
    assert saved.model.digest == model.digest
    assert (saved.input.rate, saved.input.channels, saved.input.samples) == (
        44_100, *recording.samples.shape,
    )  # fmt: skip
    assert saved.settings.search.steps == saved.steps == 2
    rendered = render_through_mask(
        recording.samples,
        recording.rate,
        saved.mask.to_mask(),
        saved.settings.render,
        model.settings.spectrum,
    )
    assert rendered.gain_db == pytest.approx(saved.gain_db, abs=1e-9)
    expected = np.rint(rendered.samples.astype(np.float64) * 2**23) / 2**23
    np.testing.assert_array_equal(read_recording(second).samples, expected.astype(np.float32))


def test_recipe_and_json_have_the_settings_that_were_used(
    tmp_path: Path, take: Path, run: Run, model_file: Path
) -> None:
    """With the guide off, the paper's search follows the scorer, with other defaults."""
    call = ("enhance", take, "-o", tmp_path / "b.wav", "-m", model_file, "--method", "paper", "--json")
    guide_off = ("--set", "search.guide=0", "--steps", "2")
    ran = run(*call, *guide_off)
    assert ran.code == 0, ran.err
    saved = recipe.load_recipe(tmp_path / "b.wav.recipe.json").settings
    assert (saved.search.score, saved.search.learning_rate, saved.search.steps) == (1.0, 0.3, 2)
    assert saved.prior.notes.gains_only
    assert ran.objects[0]["settings"] == saved.model_dump(mode="json")
    assert run(*call, *guide_off).objects[0]["already"]
    # The weight of the scorer is that of the method, but typed: another output.
    assert run(*call, *guide_off, "--set", "search.score=0").code == 1


def test_same_command_gives_same_bytes(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    for name in ("1", "2"):
        out = tmp_path / name
        call = ("enhance", take, "-o", out, "-m", model_file, "--prior", "blocks", *FEW)
        assert run(*call).code == 0
    assert file_tree(tmp_path / "1") == ["good.wav", "good.wav.recipe.json"]
    for name in file_tree(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_plot_writes_png(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, "--plot", "--json", *FEW)
    assert ran.code == 0, ran.err
    picture = Path(ran.objects[0]["picture"])
    assert picture == tmp_path / "out" / "good.wav.png"
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:])
    assert min(width, height) > 600


def test_plot_without_matplotlib_fails_before_the_work(
    tmp_path: Path,
    take: Path,
    run: Run,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, "--plot")
    assert ran.code == 1
    assert ran.err == "tonewood: --plot needs matplotlib: pip install '.[plot]'\n"
    assert not (tmp_path / "out").exists()


def test_line_breaks_in_file_names_are_escaped(
    tmp_path: Path, take: Path, run: Run, model_file: Path
) -> None:
    odd = tmp_path / os.fsdecode(b"a\nb\xe9\xc3\xbc.wav")
    odd.write_bytes(take.read_bytes())
    out = tmp_path / "out"
    ran = run("enhance", odd, "-o", out, "-m", model_file, *FEW)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0].endswith(r"a\nb\udce9ü.wav")
    ran = run("enhance", odd, "-o", out, "-m", model_file, "--json", "--overwrite", *FEW)
    assert os.fsencode(ran.objects[0]["input"]) == os.fsencode(odd)
    assert ran.out.isascii()


def test_json_output_has_its_keys(
    tmp_path: Path, take: Path, run: Run, model_file: Path, model: Model
) -> None:
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, "--json", *FEW)
    (result,) = ran.objects
    assert set(result) >= {
        "input", "output", "recipe", "picture", "scorer", "judge", "prior", "steps", "gain_db",
        "certificate", "seconds", "warnings",
    }  # fmt: skip
    assert set(result["scorer"]) == set(result["judge"]) == {"before", "after"}
    assert json.loads(Path(result["recipe"]).read_text())["model"]["digest"] == model.digest
    scored = run("score", take, result["output"], "-m", model_file, "--json").objects
    assert [o["input"] for o in scored] == [str(take), result["output"]]
    assert scored[0]["scorer"] == pytest.approx(result["scorer"]["before"], abs=1e-4)
    assert scored[1]["judge"] == pytest.approx(result["judge"]["after"], abs=1e-3)
