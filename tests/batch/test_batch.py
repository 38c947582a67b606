import errno
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tonewood.audio_io import libsndfile
from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import file_sha256
from tonewood.batch import enhance_file
from tonewood.enhancement import plotting, recipe
from tonewood.enhancement.output_files import FileJob, plan_jobs
from tonewood.errors import CallError
from tonewood.mask.render import render_through_mask
from tonewood.model.model import Model, load_model
from tonewood.utils import atomic_write

Samples = npt.NDArray[np.float32]
Play = Callable[..., Samples]
Run = Callable[..., Any]
# `force`: the small instrument need not be like the tiny model's source.
FEW = ("--steps", "2", "--set", "search.stop_at_reference=false", "--set", "force=true")


@pytest.fixture
def take(tmp_path: Path, play: Play) -> Path:
    """A good recording, alone in a folder `in`."""
    path = tmp_path / "in" / "good.wav"
    path.parent.mkdir()
    soundfile.write(path, play(1.2).T, 16_000)
    return path


def tree(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def refusing(code: int) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return refuse


# --- What an output keeps

KEPT = [
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


@pytest.mark.parametrize(("suffix", "rate", "channels", "container", "subtype"), KEPT)
def test_rate_channels_length_and_depth_are_kept(
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


# --- Which input becomes which output


def test_a_folder_keeps_its_tree(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    below = take.parent / "disc 2" / "side b"
    below.mkdir(parents=True)
    (below / "x.wav").write_bytes(take.read_bytes())
    (take.parent / "notes.txt").write_text("no audio")
    ran = run("enhance", take.parent, "-o", tmp_path / "out", "-m", model_file, *FEW)
    assert ran.code == 0, ran.err
    found = [name for name in tree(tmp_path / "out") if not name.endswith(".json")]
    assert found == ["disc 2/side b/x.wav", "good.wav"]


def test_an_output_below_the_input_is_no_input_of_the_next_run(
    take: Path, run: Run, model_file: Path
) -> None:
    command = ("enhance", take.parent, "-o", take.parent / "out", "-m", model_file, *FEW)
    assert run(*command).code == 0
    again = run(*command, "--overwrite", "--json")
    assert again.code == 0
    assert [o["input"] for o in again.objects] == [str(take)]
    assert tree(take.parent) == ["good.wav", "out/good.wav", "out/good.wav.recipe.json"]
    alone = run("enhance", take.parent / "out", "-o", take.parent / "out", "-m", model_file)
    assert alone.code == 1
    assert "contains only earlier outputs" in alone.err


def test_an_output_folder_above_or_beside_the_recordings_hides_none(tmp_path: Path) -> None:
    music = tmp_path / "music"
    for name in ("a.wav", "jazz/b.wav"):
        (music / name).parent.mkdir(parents=True, exist_ok=True)
        (music / name).write_bytes(b"")
    for out in (tmp_path, music / "jazz"):
        laid = plan_jobs([music], out)
        assert laid == [
            FileJob(music / "a.wav", out / "a.wav"),
            FileJob(music / "jazz/b.wav", out / "jazz/b.wav"),
        ]


def test_one_input_may_name_its_output_file(tmp_path: Path) -> None:
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    assert plan_jobs([a], tmp_path / "c.flac") == [FileJob(a, tmp_path / "c.flac")]
    assert plan_jobs([a], tmp_path / "c") == [FileJob(a, tmp_path / "c" / "a.wav")]
    (tmp_path / "d.wav").mkdir()
    assert plan_jobs([a], tmp_path / "d.wav") == [FileJob(a, tmp_path / "d.wav" / "a.wav")]
    with pytest.raises(CallError, match=r"c\.txt is not an audio file .* \.wav or \.flac"):
        plan_jobs([a], tmp_path / "c.txt")
    for inputs in ([a, b], [tmp_path]):
        with pytest.raises(CallError, match=r"c\.flac is a file; several .* need a folder"):
            plan_jobs(inputs, tmp_path / "c.flac")
    a.write_bytes(b"")
    with pytest.raises(CallError, match="is a file"):
        plan_jobs([b, b], a)


def test_two_inputs_of_one_name_are_refused_and_one_named_twice_is_done_once(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "1" / "a.wav", tmp_path / "2" / "a.wav"
    with pytest.raises(CallError, match=r"1/a\.wav and .*2/a\.wav would both become .*out/a\.wav"):
        plan_jobs([one, two], tmp_path / "out")
    assert plan_jobs([one, one], tmp_path / "out") == [FileJob(one, tmp_path / "out" / "a.wav")]


# --- Recipe and picture


def test_a_recipe_renders_the_same_samples_from_files_alone(
    tmp_path: Path, play: Play, run: Run, model_file: Path
) -> None:
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(first, play(1.3, 44_100, 2).T, 44_100, "PCM_24")
    assert run("enhance", first, "-o", second, "-m", model_file, *FEW).code == 0
    kept = recipe.load_recipe(tmp_path / "b.wav.recipe.json")
    model, recording = load_model(model_file), read_recording(first)
    assert kept.input.sha256 == file_sha256(first)
    assert kept.model.digest == model.digest
    assert (kept.input.rate, kept.input.channels, kept.input.samples) == (
        44_100, *recording.samples.shape,
    )  # fmt: skip
    assert kept.settings.search.steps == kept.steps == 2
    made = render_through_mask(
        recording.samples,
        recording.rate,
        kept.mask.to_mask(),
        kept.settings.render,
        model.settings.spectrum,
    )
    assert made.gain_db == pytest.approx(kept.gain_db, abs=1e-9)
    whole = np.rint(made.samples.astype(np.float64) * 2**23) / 2**23
    np.testing.assert_array_equal(read_recording(second).samples, whole.astype(np.float32))


def test_the_same_call_gives_the_same_bytes(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    for name in ("1", "2"):
        out = tmp_path / name
        call = ("enhance", take, "-o", out, "-m", model_file, "--prior", "blocks", *FEW)
        assert run(*call).code == 0
    assert tree(tmp_path / "1") == ["good.wav", "good.wav.recipe.json"]
    for name in tree(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_plot_draws_a_page(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, "--plot", "--json", *FEW)
    assert ran.code == 0, ran.err
    drawn = Path(ran.objects[0]["picture"])
    assert drawn == tmp_path / "out" / "good.wav.png"
    head = drawn.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:])
    assert min(width, height) > 600


def test_plot_without_matplotlib_says_so_before_the_work(
    tmp_path: Path,
    take: Path,
    run: Run,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, "--plot")
    assert ran.code == 1
    assert ran.err == "tonewood: --plot needs matplotlib: pip install '.[plot]'\n"
    assert not (tmp_path / "out").exists()


# --- Bad input: one clear line, nothing lost


def bad_files(folder: Path, play: Play) -> dict[Path, str]:
    """Files of every disappointing kind, and what is said of each."""
    folder.mkdir(exist_ok=True)
    good = play(1.0)[0]
    says: dict[str, str] = {}

    def put(name: str, wave: npt.NDArray[Any], reason: str, rate: int = 16_000) -> None:
        soundfile.write(folder / name, wave, rate, "FLOAT")
        says[name] = reason

    put("zero.wav", np.zeros((0, 1)), "contains no samples")
    put("short.wav", good[:1_600], "lasts 0.1 s; 0.25 s are needed")
    put("silence.wav", 0 * good, "is silent")
    put("constant.wav", 0 * good + 0.25, "is constant")
    put("nine.wav", np.tile(good[:, None], 9), "has 9 channels; 8 can be used")
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        broken = good.copy()
        broken[8_000] = value
        put(f"{name}.wav", broken, "not finite numbers, the first at 0.50 s")
    for name, rate in (("hertz", 1), ("megahertz", 10_000_000)):
        put(f"{name}.wav", good, f"has a sample rate of {rate} Hz")
        content = bytearray((folder / f"{name}.wav").read_bytes())
        struct.pack_into("<I", content, 24, rate)
        (folder / f"{name}.wav").write_bytes(content)
    put("truncated.wav", good, "is cut off or damaged")
    whole = (folder / "truncated.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("these are words, no audio " * 20)
    (folder / "empty folder").mkdir(exist_ok=True)
    says |= {
        "empty.wav": r"is empty (0 bytes)",
        "text.wav": "is not audio",
        "empty folder": "no audio file below",
        "missing.wav": "does not exist",
    }
    return {folder / name: reason for name, reason in says.items()}


@pytest.mark.parametrize("command", ["enhance", "score"])
def test_every_bad_file_is_named_with_its_reason_alone(
    tmp_path: Path, play: Play, run: Run, model_file: Path, command: str
) -> None:
    files = bad_files(tmp_path / "bad", play)
    out = ("-o", tmp_path / "out") if command == "enhance" else ()
    for path, reason in files.items():
        before = tree(tmp_path)
        ran = run(command, path, *out, "-m", model_file)
        assert ran.code == 1, path
        assert ran.out == "", path
        assert ran.err.startswith("tonewood: "), path
        assert str(path) in ran.err
        assert reason in ran.err
        assert ran.err.count("\n") == 1, ran.err
        assert tree(tmp_path) == before
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["enhance", "score"])
def test_in_a_batch_the_others_are_done(
    tmp_path: Path, play: Play, take: Path, run: Run, model_file: Path, command: str
) -> None:
    files = bad_files(tmp_path / "bad", play)
    other = take.with_name("last.wav")
    other.write_bytes(take.read_bytes())
    out = ("-o", tmp_path / "out", *FEW) if command == "enhance" else ()
    ran = run(command, take, *files, other, *out, "-m", model_file, "--json")
    assert ran.code == 1
    failed = {o["input"]: o["error"] for o in ran.objects if "error" in o}
    assert {str(path) for path in files} == set(failed)
    for path, reason in files.items():
        assert reason in failed[str(path)]
        assert f"tonewood: {failed[str(path)]}\n" in ran.err
    assert [o["input"] for o in ran.objects if "error" not in o] == [str(take), str(other)]
    assert ran.err.endswith(f"tonewood: {len(files)} of {len(files) + 2} failed, 2 done\n")
    if command == "enhance":
        recipes = [f"{p.name}{s}" for p in (take, other) for s in ("", ".recipe.json")]
        assert tree(tmp_path / "out") == sorted(recipes)


def test_a_file_with_some_silence_is_fine_and_a_clipped_one_is_done_with_a_warning(
    tmp_path: Path, play: Play, run: Run, model_file: Path
) -> None:
    silent, clipped = tmp_path / "some.wav", tmp_path / "clipped.wav"
    wave = play(3.0)[0]
    wave[16_000:32_000] = 0
    soundfile.write(silent, wave, 16_000)
    soundfile.write(clipped, np.clip(20 * play(1.0)[0], -1, 1), 16_000)
    ran = run("enhance", silent, clipped, "-o", tmp_path / "o", "-m", model_file, *FEW, "--json")
    assert ran.code == 0
    assert [any("clipped" in w for w in o["warnings"]) for o in ran.objects] == [False, True]
    assert f"warning: {clipped}: the input is clipped" in ran.err


def test_very_quiet_and_very_short_recordings_are_done(
    tmp_path: Path, play: Play, run: Run, model_file: Path
) -> None:
    quiet, short = tmp_path / "quiet.wav", tmp_path / "short.wav"
    soundfile.write(quiet, 5e-4 * play(1.0)[0], 16_000, "FLOAT")  # under -70 LUFS
    soundfile.write(short, play(0.25)[0], 16_000)
    ran = run("enhance", quiet, short, "-o", tmp_path / "o", "-m", model_file, *FEW, "--json")
    assert ran.code == 0, ran.err
    loudness = recipe.load_recipe(tmp_path / "o" / "quiet.wav.recipe.json").loudness_lufs
    assert loudness is not None
    assert loudness.before < -70
    assert loudness.after == pytest.approx(loudness.before, abs=0.1)
    assert soundfile.info(tmp_path / "o" / "short.wav").frames == 4_000


# --- Outputs that cannot be


def test_nothing_is_overwritten_unless_told(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    for name in ("good.wav", "good.wav.recipe.json"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_text("mine")
        command = ("enhance", take, "-o", out, "-m", model_file, *FEW)
        ran = run(*command)
        assert ran.code == 1
        assert f"{out / name} exists: name another output or pass --overwrite" in ran.err
        assert tree(out) == [name]
        assert (out / name).read_text() == "mine"
        assert run(*command, "--overwrite").code == 0
        assert tree(out) == ["good.wav", "good.wav.recipe.json"]
        assert b"mine" not in (out / name).read_bytes()


def test_an_input_is_never_an_output(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    link = tmp_path / "link.wav"
    link.symlink_to(take)
    before = take.read_bytes()
    for out in (take, take.parent, link):
        ran = run("enhance", take, "-o", out, "-m", model_file, "--overwrite")
        assert ran.code == 1
        assert "is the input itself: name another output" in ran.err
    # `in/good.wav` would become `music/other/good.wav`, which is an input too.
    other = tmp_path / "music" / "other" / "good.wav"
    other.parent.mkdir(parents=True)
    other.write_bytes(before)
    inputs = (take.parent, tmp_path / "music")
    ran = run("enhance", *inputs, "-o", other.parent, "-m", model_file, "--overwrite", *FEW)
    assert ran.code == 1
    assert "good.wav is an input too: name another output" in ran.err
    assert other.read_bytes() == before


def test_unwritable_outputs_are_refused_before_the_work(
    tmp_path: Path,
    take: Path,
    run: Run,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unused(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the work was begun")

    monkeypatch.setattr(enhance_file, "enhance_stream", unused)
    (tmp_path / "file").write_text("")
    ran = run("enhance", take, "-o", tmp_path / "file" / "out", "-m", model_file)
    assert ran.code == 1
    assert f"({tmp_path / 'file'} is a file): name another output folder" in ran.err
    (tmp_path / "old.wav.recipe.json").write_text("")
    ran = run("enhance", take, "-o", tmp_path / "old.wav", "-m", model_file)
    assert ran.code == 1
    assert "old.wav.recipe.json exists" in ran.err
    monkeypatch.setattr(os, "access", lambda *_: False)
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file)
    assert ran.code == 1
    assert "out cannot be written to (permission denied): name another output folder" in ran.err


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, take: Path, run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", refusing(errno.EROFS))
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, *FEW)
    assert ran.code == 1
    assert "out cannot be written to (read-only file system)" in ran.err


@pytest.mark.parametrize("suffix", [".wav", ".json", ".png"])
def test_a_full_disk_leaves_nothing_of_that_file_and_the_others_go_on(
    tmp_path: Path,
    take: Path,
    run: Run,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    synchronise, full = atomic_write._fsync, [True]

    def once(path: Path) -> None:
        if path.suffix == suffix and full:
            full.clear()
            raise OSError(errno.ENOSPC, "No space left on device")
        synchronise(path)

    monkeypatch.setattr(atomic_write, "_fsync", once)
    other = take.with_name("other.wav")
    other.write_bytes(take.read_bytes())
    out = tmp_path / "out"
    ran = run("enhance", take, other, "-o", out, "-m", model_file, "--plot", "--json", *FEW)
    assert ran.code == 1
    assert [("error" in o) for o in ran.objects] == [True, False]
    assert "was not written: the disk is full: free some space" in ran.objects[0]["error"]
    assert tree(out) == ["other.wav", "other.wav.png", "other.wav.recipe.json"]


@pytest.mark.parametrize("place", ["encode", "search", "draw"])
def test_an_interrupt_leaves_no_half_of_anything(
    tmp_path: Path,
    take: Path,
    run: Run,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    def interrupt(path: object, *_: object, **__: object) -> NoReturn:
        if isinstance(path, Path) and path.exists():
            path.write_bytes(b"half")
        raise KeyboardInterrupt

    module, name = {
        "encode": (libsndfile, "encode_blocks"),
        "search": (enhance_file, "enhance_stream"),
        "draw": (plotting, "plot_enhancement"),
    }[place]
    monkeypatch.setattr(module, name, interrupt)
    out = tmp_path / "out"
    ran = run("enhance", take, "-o", out, "-m", model_file, "--plot", *FEW)
    assert ran.code == 130
    assert ran.err == "tonewood: interrupted; finished outputs are kept\n"
    assert ran.out == ""
    assert tree(tmp_path) == ["in/good.wav"]


def test_names_that_would_break_a_line_do_not(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    odd = tmp_path / os.fsdecode(b"a\nb\xe9\xc3\xbc.wav")
    odd.write_bytes(take.read_bytes())
    out = tmp_path / "out"
    ran = run("enhance", odd, "-o", out, "-m", model_file, *FEW)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0].endswith(r"a\nb\udce9ü.wav")
    ran = run("enhance", odd, "-o", out, "-m", model_file, "--json", "--overwrite", *FEW)
    assert os.fsencode(ran.objects[0]["input"]) == os.fsencode(odd)
    assert ran.out.isascii()


def test_json_is_one_object_a_line_with_these_keys(
    tmp_path: Path, take: Path, run: Run, model_file: Path, model: Model
) -> None:
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, "--json", *FEW)
    (done,) = ran.objects
    assert set(done) >= {
        "input", "output", "recipe", "picture", "scorer", "judge", "prior", "steps", "gain_db",
        "certificate", "seconds", "warnings",
    }  # fmt: skip
    assert set(done["scorer"]) == set(done["judge"]) == {"before", "after"}
    assert json.loads(Path(done["recipe"]).read_text())["model"]["digest"] == model.digest
    scored = run("score", take, done["output"], "-m", model_file, "--json").objects
    assert [o["input"] for o in scored] == [str(take), done["output"]]
    assert scored[0]["scorer"] == pytest.approx(done["scorer"]["before"], abs=1e-4)
    assert scored[1]["judge"] == pytest.approx(done["judge"]["after"], abs=1e-3)


def test_an_unreadable_file_fails_alone(
    tmp_path: Path, take: Path, run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = take.with_name("secret.wav")
    secret.write_bytes(take.read_bytes())
    monkeypatch.setattr(os, "access", lambda path, *_: Path(path) != secret)
    opened = Path.open

    def refuse(path: Path, *rest: Any, **more: Any) -> Any:
        return refusing(errno.EACCES)() if path == secret else opened(path, *rest, **more)

    monkeypatch.setattr(Path, "open", refuse)
    ran = run("enhance", secret, take, "-o", tmp_path / "out", "-m", model_file, *FEW)
    assert ran.code == 1
    assert f"tonewood: {secret} cannot be read (permission denied)" in ran.err
    assert tree(tmp_path / "out") == ["good.wav", "good.wav.recipe.json"]
