import errno
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tonewood.batch.runner import run_batch
from tonewood.batch.tasks import EnhanceTask
from tonewood.dsp.loudness import integrated_loudness, true_peak_db
from tonewood.enhancement import output_files
from tonewood.errors import CallError, FolderError, OutputError
from tonewood.listening import builder, definition, stimuli
from tonewood.listening.builder import check_test_folder
from tonewood.listening.definition import ANCHORS_HZ, ListeningTest
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings

BuiltTest = tuple[ListeningTest, Path]


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_stimuli_have_equal_format_and_random_names(built_tests: dict[str, BuiltTest], kind: str) -> None:
    test, folder = built_tests[kind]
    files = sorted((folder / "stimuli").iterdir())
    assert sorted(path.name for path in files) == sorted(item.file for item in test.stimuli)
    stats = [path.stat() for path in files]
    assert len({item.st_size for item in stats}) == 1
    assert len({item.st_mtime_ns for item in stats}) == 1
    infos = [soundfile.info(path) for path in files]
    assert (
        len({(item.frames, item.samplerate, item.channels, item.subtype, item.format) for item in infos}) == 1
    )
    words = {"good", "plain", "odd", "piece", "anchor", "mask", "random"}
    for path in files:
        assert len(path.stem) == 16
        int(path.stem, 16)
        assert not any(word in path.name for word in words)
        # A header of 44 bytes: nothing but the format and the samples.
        content = path.read_bytes()
        assert len(content) == 44 + 2 * test.samples * test.channels
        assert content[36:40] == b"data"
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in files}) == len(files)
    assert all(
        hashlib.sha256((folder / "stimuli" / item.file).read_bytes()).hexdigest() == item.sha256
        for item in test.stimuli
    )
    # The order of names does not follow the conditions.
    order = [item.condition for item in sorted(test.stimuli, key=lambda item: item.file)]
    assert order != sorted(order)


@pytest.mark.parametrize("kind", ["pairs", "mushra"])
def test_stimuli_have_equal_loudness_without_clipping(built_tests: dict[str, BuiltTest], kind: str) -> None:
    test, folder = built_tests[kind]
    loud: dict[int, list[float]] = {}
    for item in test.stimuli:
        wave, rate = soundfile.read(folder / "stimuli" / item.file, dtype="float32", always_2d=True)
        measured = integrated_loudness(wave.T, rate)
        assert measured == pytest.approx(item.loudness, abs=0.01)
        assert true_peak_db(wave.T, rate) < -0.9
        assert np.abs(wave[:3]).max() < 1e-3  # faded
        assert np.abs(wave[-3:]).max() < 1e-3
        loud.setdefault(item.excerpt, []).append(measured)
    assert all(np.ptp(group) < 0.1 for group in loud.values())
    assert 5.0 <= test.seconds <= 12.0


def test_copies_of_a_sound_differ_in_bytes(built_tests: dict[str, BuiltTest]) -> None:
    test, folder = built_tests["abx"]
    files = test.file_by_condition()
    paths = [folder / "stimuli" / files[0, "plain", copy] for copy in (0, 1)]
    first, second = (soundfile.read(path, dtype="int16")[0] for path in paths)
    assert not np.array_equal(first, second)
    assert np.abs(first.astype(int) - second).max() <= 3  # dither alone


def test_anchors_meet_filter_specification(rng: np.random.Generator) -> None:
    rate, time = 44_100, np.arange(44_100) / 44_100
    for corner in ANCHORS_HZ.values():
        for hz, low, high in ((0.99 * corner, -0.1, 0.1), (corner * 8 / 7, -200, -25),
                              (corner * 9 / 7, -200, -50)):  # fmt: skip
            wave = np.sin(2 * np.pi * hz * time)[None].astype(np.float32)
            out = stimuli.low_pass_anchor(wave, rate, corner)
            level = 20 * np.log10(np.std(out[0, 4000:-4000]) / np.std(wave[0, 4000:-4000]) + 1e-12)
            assert low <= level <= high
    click = np.zeros((1, 4_000), dtype=np.float32)
    click[0, 2_000] = 1
    assert np.argmax(stimuli.low_pass_anchor(click, rate, 3_500.0)) == 2_000  # no delay


def test_excerpts_are_at_the_strongest_effect(rng: np.random.Generator) -> None:
    effect = np.ones(1_000)
    effect[600:700] = 5
    start = stimuli.find_strongest_excerpt(effect, 200)
    assert start is not None
    assert 500 <= start <= 600
    other = stimuli.find_strongest_excerpt(effect, 200, (start,))
    assert other is not None
    assert abs(other - start) >= 200
    assert stimuli.find_strongest_excerpt(np.ones(250), 200, (0,)) is None
    silent = np.zeros(1_000)
    silent[300:] = 1
    drawn = (stimuli.draw_random_excerpt(silent, 200, rng) for _ in range(50))
    starts = [item for item in drawn if item is not None]
    assert len(starts) == 50
    assert min(starts) >= 200
    assert len(set(starts)) > 20
    assert stimuli.draw_random_excerpt(np.zeros(1_000), 200, rng) is None


def test_short_piece_gives_fewer_excerpts(conditions: dict[str, Path], tmp_path: Path) -> None:
    result = list(stimuli.pieces_from_conditions([conditions["plain"], conditions["odd"]]))[:1]
    plan = builder.make_plan(seconds=5.0, excerpts=1_000, checked=False)
    *_, test = builder.build_listening_test(result, plan, tmp_path / "t")
    assert isinstance(test, ListeningTest)
    assert [item.chosen for item in test.excerpts] == ["mask", "random"]  # of eight seconds


def test_antiphase_tone_cancels_without_headphones() -> None:
    order = np.array([2, 0, 1])  # plain third, soft first, antiphase second
    wave = stimuli.headphone_check_sound(8_000, order)
    tones = wave.reshape(2, 3, -1)
    over_headphones = np.std(tones, axis=(0, 2))
    over_loudspeakers = np.std(tones.sum(axis=0), axis=1)
    assert np.argmin(over_headphones) == 0
    assert np.argmin(over_loudspeakers) == 1
    pulses = stimuli.hearing_check_sound(8_000, 500.0, 4)
    audible = np.abs(pulses[0]) > 1e-4
    assert int((np.diff(np.flatnonzero(audible)) > 800).sum()) == 3
    assert pulses.shape == stimuli.hearing_check_sound(8_000, 500.0, 2).shape


def test_seed_determines_file_names(
    conditions: dict[str, Path], tmp_path: Path, built_tests: dict[str, BuiltTest]
) -> None:
    result = list(stimuli.pieces_from_conditions([conditions["plain"], conditions["odd"]]))
    names = []
    for number, seed in enumerate((3, 4)):
        plan = builder.make_plan(
            kind="pairs", seconds=5.0, repeats=1, checked=False, seed=seed, title="Ours",
            reference=None, choice="random",
        )  # fmt: skip
        *_, test = builder.build_listening_test(result, plan, tmp_path / str(number))
        assert isinstance(test, ListeningTest)
        names.append({item.file for item in test.stimuli})
    assert names[0] == {item.file for item in built_tests["pairs"][0].stimuli}
    assert not names[0] & names[1]


def test_outputs_are_matched_to_inputs_by_content(
    conditions: dict[str, Path], model: Model, tmp_path: Path
) -> None:
    settings = EnhanceSettings().replace(search=dict(steps=0), force=True)
    planned = output_files.plan_jobs([conditions["plain"]], tmp_path / "out")
    for event in run_batch(planned, EnhanceTask(settings), model):
        assert not isinstance(event, output_files.FileFailure)
    result = list(stimuli.pieces_from_outputs([tmp_path / "out"], [conditions["plain"].parent]))
    assert [item.name for item in result if isinstance(item, stimuli.ComparedPiece)] == [
        "piece0",
        "piece1",
    ]
    assert all(list(item.paths) == ["untouched", "enhanced"] for item in result)  # type: ignore[union-attr]
    first = result[0]
    assert isinstance(first, stimuli.ComparedPiece)
    assert first.paths["untouched"].parent == conditions["plain"]
    waves = first.read_conditions(44_100)
    effect = first.effect_db(waves, 44_100)
    assert effect.shape == (len(waves["enhanced"][0]) * 100 // 44_100 + 1,)
    assert effect.max() > 0.1
    (lost, *_) = stimuli.pieces_from_outputs([tmp_path / "out"], [conditions["odd"]])
    assert isinstance(lost, output_files.FileFailure)
    assert "name its folder with --inputs" in str(lost.error)
    with pytest.raises(FolderError, match="no output with a recipe"):
        list(stimuli.pieces_from_outputs([conditions["plain"]]))


def test_invalid_plans_are_rejected(
    conditions: dict[str, Path], tmp_path: Path, built_tests: dict[str, BuiltTest], play: Callable[..., Any]
) -> None:
    with pytest.raises(CallError, match="at least two folders"):
        list(stimuli.pieces_from_conditions([conditions["plain"]]))
    with pytest.raises(CallError, match="use 5 to 12 s"):
        builder.make_plan(seconds=3.0, kind="pairs", choice="random")
    with pytest.raises(CallError, match="--reference"):
        builder.make_plan(kind="mushra", choice="random")
    short = tmp_path / "short"
    short.mkdir()
    for name in ("piece0", "other"):
        soundfile.write(short / f"{name}.wav", play(2.0).T, 16_000)
    result = list(stimuli.pieces_from_conditions([conditions["plain"], short]))
    lost = [item for item in result if isinstance(item, output_files.FileFailure)]
    assert all(str(item.error).endswith("add it") for item in lost)
    assert len(lost) == 2
    plan = builder.make_plan(kind="pairs", choice="random", seconds=5.0)
    events = []
    with pytest.raises(FolderError, match="no piece can be used"):
        events += list(builder.build_listening_test(result, plan, tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".tonewood*"))
    test, folder = built_tests["pairs"]
    with pytest.raises(OutputError, match="exists"):
        check_test_folder(folder, overwrite=False)
    with pytest.raises(OutputError, match="contains other files"):
        check_test_folder(conditions["plain"], overwrite=True)
    assert definition.load_listening_test(folder) == test
    (tmp_path / "test.json").write_text('{"format": "x"}')
    with pytest.raises(FolderError, match="damaged"):
        definition.load_listening_test(tmp_path)
    with pytest.raises(FolderError, match="not a listening test"):
        definition.load_listening_test(short)


def test_leftovers_of_killed_builder_are_removed(conditions: dict[str, Path], tmp_path: Path) -> None:
    hidden = tmp_path / ".tonewood-0123456789abcdef"
    (hidden / "stimuli").mkdir(parents=True)
    (hidden / "stimuli" / "0.wav").write_bytes(b"half")
    result = list(stimuli.pieces_from_conditions([conditions["plain"], conditions["odd"]]))
    plan = builder.make_plan(kind="pairs", seconds=5.0, checked=False)
    list(builder.build_listening_test(result, plan, tmp_path / "test"))
    assert [item.name for item in tmp_path.iterdir()] == ["test"]


def test_replacement_is_all_or_nothing(
    built_tests: dict[str, BuiltTest], conditions: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _, folder = built_tests["pairs"]
    out = Path(shutil.copytree(folder, tmp_path / "test"))
    (out / "report").mkdir()
    result = list(stimuli.pieces_from_conditions([conditions["plain"], conditions["odd"]]))
    plan = builder.make_plan(kind="pairs", seconds=5.0, checked=False)
    with pytest.raises(OutputError, match="contains other files"):  # would be deleted with the test
        list(builder.build_listening_test(result, plan, out, overwrite=True))
    (out / "report").rmdir()
    before = sorted(item.name for item in out.rglob("*"))
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == out and self.name.startswith(".tonewood-"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="Input/output error"):
            list(builder.build_listening_test(result, plan, out, overwrite=True))
    assert sorted(item.name for item in out.rglob("*")) == before
    list(builder.build_listening_test(result, plan, out, overwrite=True))
    assert sorted(item.name for item in out.rglob("*")) != before
    assert [item.name for item in tmp_path.iterdir()] == ["test"]
